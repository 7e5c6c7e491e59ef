//! The steps, and the order in which a spec needs them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::{Algorithm, Spec, Use};

/// A member of a group, both counted from 1, and who it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareOf {
    /// The group, from 1 on.
    pub group: u8,
    /// The member in it, from 1 on.
    pub member: u8,
    /// Who keeps the share.
    pub custodian: String,
}

/// One thing that is done, confirmed and written down before the next. Devices and keys by the spec's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Those who have a role identify themselves; clocks are compared.
    Assemble,
    /// The digest of the program is read aloud and compared with the published one.
    ShowSoftware,
    /// A device is given back its factory state.
    Reset {
        /// Which device.
        device: String,
    },
    /// Serial number, firmware and certificate are compared, and that it is empty.
    Verify {
        /// Which device.
        device: String,
    },
    /// The spec's authentication keys are put into it.
    AddAuthenticationKeys {
        /// Which device.
        device: String,
    },
    /// The factory's authentication key is removed.
    RemoveDefaultKey {
        /// Which device.
        device: String,
    },
    /// The device is told to record everything, and to stop when its log is full.
    SetAudit {
        /// Which device.
        device: String,
    },
    /// The wrap key is made: device XOR system XOR dice. Begins the block that holds secrets in memory.
    MakeWrapKey,
    /// The wrap key is put into a device.
    PutWrapKey {
        /// Which device.
        device: String,
    },
    /// A key is generated in a device.
    GenerateKey {
        /// Which device.
        device: String,
        /// Which key.
        key: String,
    },
    /// The device certifies that it generated the key.
    Attest {
        /// Which device.
        device: String,
        /// Which key.
        key: String,
    },
    /// The key is exported under the wrap key.
    Export {
        /// Which device.
        device: String,
        /// Which key.
        key: String,
    },
    /// The wrap key is split into shares.
    SplitWrapKey,
    /// A share is printed or encrypted, and handed to its custodian.
    HandOut(ShareOf),
    /// Its custodian reads a share back.
    ReadBack(ShareOf),
    /// Every quorum of the shares that were read back is combined, and gives the wrap key.
    Rehearse,
    /// The exported keys are restored into another device.
    Restore {
        /// Which device.
        device: String,
    },
    /// Public keys and a test signature of the restored keys are compared with the first device's.
    Compare {
        /// Which device.
        device: String,
    },
    /// The wrap key and the shares are wiped from memory. Ends the block.
    WipeWrapKey,
    /// The transcript is closed, and every role signs it.
    Close,
}

/// The steps that a spec needs.
pub(super) fn steps(spec: &Spec) -> Vec<Step> {
    let mut steps = vec![Step::Assemble, Step::ShowSoftware];
    for device in spec.devices() {
        let device = || device.name.clone();
        steps.push(Step::Reset { device: device() });
        steps.push(Step::Verify { device: device() });
        steps.push(Step::AddAuthenticationKeys { device: device() });
        steps.push(Step::RemoveDefaultKey { device: device() });
        steps.push(Step::SetAudit { device: device() });
    }
    steps.push(Step::MakeWrapKey);
    for device in spec.devices() {
        steps.push(Step::PutWrapKey {
            device: device.name.clone(),
        });
    }
    let generating = spec
        .devices()
        .iter()
        .filter(|device| device.used_as == Use::Generate);
    let keys = generating.flat_map(|device| spec.keys().iter().map(move |key| (device, key)));
    for (device, key) in keys {
        let (device, label) = (|| device.name.clone(), || key.label.clone());
        steps.push(Step::GenerateKey {
            device: device(),
            key: label(),
        });
        // A YubiHSM2 attests no Ed25519 key.
        if key.algorithm != Algorithm::Ed25519 {
            steps.push(Step::Attest {
                device: device(),
                key: label(),
            });
        }
        steps.push(Step::Export {
            device: device(),
            key: label(),
        });
    }
    steps.push(Step::SplitWrapKey);
    let shares = shares(spec);
    for share in &shares {
        steps.push(Step::HandOut(share.clone()));
    }
    for share in shares {
        steps.push(Step::ReadBack(share));
    }
    steps.push(Step::Rehearse);
    for device in spec
        .devices()
        .iter()
        .filter(|device| device.used_as == Use::Restore)
    {
        steps.push(Step::Restore {
            device: device.name.clone(),
        });
        steps.push(Step::Compare {
            device: device.name.clone(),
        });
    }
    steps.extend([Step::WipeWrapKey, Step::Close]);
    steps
}

fn shares(spec: &Spec) -> Vec<ShareOf> {
    let groups = (1..).zip(&spec.wrap().groups);
    let members = groups.flat_map(|(group, members)| {
        (1..)
            .zip(&members.custodians)
            .map(move |(m, c)| (group, m, c))
    });
    let share = |(group, member, custodian): (u8, u8, &super::Custodian)| ShareOf {
        group,
        member,
        custodian: custodian.name.clone(),
    };
    members.map(share).collect()
}

impl fmt::Display for ShareOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "share {}.{} of {}",
            self.group, self.member, self.custodian
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assemble => f.write_str("Assemble"),
            Self::ShowSoftware => f.write_str("Show the software"),
            Self::Reset { device } => write!(f, "Reset device {device}"),
            Self::Verify { device } => write!(f, "Verify device {device}"),
            Self::AddAuthenticationKeys { device } => {
                write!(f, "Add the authentication keys to device {device}")
            }
            Self::RemoveDefaultKey { device } => {
                write!(f, "Remove the factory's key from device {device}")
            }
            Self::SetAudit { device } => write!(f, "Set the audit log of device {device}"),
            Self::MakeWrapKey => f.write_str("Make the wrap key"),
            Self::PutWrapKey { device } => write!(f, "Put the wrap key into device {device}"),
            Self::GenerateKey { device, key } => write!(f, "Generate key {key} in device {device}"),
            Self::Attest { key, .. } => write!(f, "Attest key {key}"),
            Self::Export { key, .. } => write!(f, "Export key {key}"),
            Self::SplitWrapKey => f.write_str("Split the wrap key"),
            Self::HandOut(share) => write!(f, "Hand out {share}"),
            Self::ReadBack(share) => write!(f, "Read back {share}"),
            Self::Rehearse => f.write_str("Rehearse the recovery"),
            Self::Restore { device } => write!(f, "Restore into device {device}"),
            Self::Compare { device } => write!(f, "Compare device {device}"),
            Self::WipeWrapKey => f.write_str("Wipe the wrap key from memory"),
            Self::Close => f.write_str("Close the transcript"),
        }
    }
}
