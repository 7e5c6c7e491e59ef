//! Which policy is in force, as the journal yields it.

use hsm_proto::v1 as wire;

use super::State;

/// A policy that was loaded. The document lies beside the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMark {
    /// At least 1.
    pub version: u64,
    /// SHA-256 of the document.
    pub sha256: [u8; 32],
    /// The last moment at which it could be loaded, in seconds since 1970-01-01T00:00:00Z.
    pub expires: i64,
}

impl State {
    /// The policy that was loaded last.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyMark> {
        self.policy.as_ref()
    }

    /// Its version; 0 where none was loaded.
    #[must_use]
    pub fn policy_version(&self) -> u64 {
        self.policy.as_ref().map_or(0, |policy| policy.version)
    }

    pub(super) fn plan_policy(&self, loaded: wire::PolicyLoaded) -> Result<PolicyMark, String> {
        let mark = policy_from_wire(loaded.policy.unwrap_or_default())?;
        let before = self.policy_version();
        if mark.version <= before {
            return Err(format!(
                "policy {} loaded after policy {before}",
                mark.version
            ));
        }
        if self.officers().is_none() {
            return Err("a policy loaded, and no officers".to_owned());
        }
        Ok(mark)
    }
}

pub(in crate::guard) fn policy_to_wire(mark: &PolicyMark) -> wire::PolicyMark {
    wire::PolicyMark {
        version: mark.version,
        sha256: mark.sha256.to_vec(),
        expires: Some(prost_types::Timestamp {
            seconds: mark.expires,
            nanos: 0,
        }),
    }
}

pub(super) fn policy_from_wire(mark: wire::PolicyMark) -> Result<PolicyMark, String> {
    let length = mark.sha256.len();
    Ok(PolicyMark {
        version: mark.version,
        sha256: mark
            .sha256
            .try_into()
            .map_err(|_| format!("a policy's digest of {length} bytes"))?,
        expires: mark.expires.unwrap_or_default().seconds,
    })
}
