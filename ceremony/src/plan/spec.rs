//! The spec: a TOML document that is reviewed like code, checked as a whole before anything is made from it.

mod check;

use std::fmt;

use hsm_shares::{Scheme, SchemeError};
use serde::Deserialize;

use crate::transcript::Digest;

/// Most bytes of a spec that are read.
const MAX_SPEC: usize = 256 << 10;

/// A spec that was checked.
#[derive(Clone, Debug)]
pub struct Spec {
    raw: Raw,
    scheme: Scheme,
    digest: Digest,
}

/// The document as it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: String,
    role: Vec<Role>,
    device: Vec<Device>,
    authentication_key: Vec<AuthenticationKey>,
    key: Vec<Key>,
    wrap: Wrap,
}

/// Someone who has a part in the ceremony and signs its transcript.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The part, such as `administrator` or `witness`.
    pub name: String,
    /// Who has it.
    pub person: String,
    /// What this person initials with: 2 to 4 letters, no two alike.
    pub initials: String,
}

/// A YubiHSM2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What it is called in the script.
    pub name: String,
    /// The ten digits printed on it.
    pub serial: String,
    /// What it is there for.
    #[serde(rename = "use")]
    pub used_as: Use,
    /// Its connector, on this laptop: `http://127.0.0.1:PORT`.
    pub connector: String,
}

/// What a device is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Keys are generated in it. There is one.
    Generate,
    /// Keys are restored into it from their backups. There is at least one: a backup that was never restored is none.
    Restore,
}

/// An authentication key, put into every device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationKey {
    /// Its label, 1 to 40 bytes.
    pub label: String,
    /// Its object id.
    pub id: u16,
    /// What it is for, which bounds its capabilities.
    pub purpose: Purpose,
    /// The domains that it reaches, 1 to 16.
    pub domains: Vec<u8>,
    /// Its capabilities, by the device's names.
    pub capabilities: Vec<String>,
    /// What it can give to objects that it makes; `administer` alone makes any.
    #[serde(default)]
    pub delegated_capabilities: Vec<String>,
}

/// What an authentication key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// hsmd signs with it.
    Sign,
    /// The audit log is read with it.
    Audit,
    /// The next ceremony begins with it.
    Administer,
}

/// A key that is generated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its label, 1 to 40 bytes.
    pub label: String,
    /// Its object id.
    pub id: u16,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its domains, 1 to 16.
    pub domains: Vec<u8>,
    /// Its capabilities, by the device's names: what it needs, and nothing else.
    pub capabilities: Vec<String>,
}

/// The algorithm of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on secp256k1.
    Secp256k1,
}

/// The wrap key, and who gets its shares.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// Counts the wrap keys of these devices, from 1 on.
    pub generation: u32,
    /// Its object id.
    pub id: u16,
    /// Its domains, 1 to 16; every key's are among them.
    pub domains: Vec<u8>,
    /// How many groups it takes.
    pub group_threshold: u8,
    /// The groups.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

/// A group of custodians.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// How many of its custodians it takes.
    pub threshold: u8,
    /// Its custodians, each with one share.
    #[serde(rename = "custodian")]
    pub custodians: Vec<Custodian>,
}

/// Someone who keeps a share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// Who; nobody has two shares.
    pub name: String,
    /// The serial numbers of the tamper-evident bags for the sheet.
    #[serde(default)]
    pub bags: Vec<String>,
    /// Where the share goes as an encrypted file, the age recipient (`age1...`).
    pub recipient: Option<String>,
}

impl Spec {
    /// Reads a spec and checks all of it.
    ///
    /// # Errors
    /// [`Error`]: the first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_SPEC {
            return Err(Error::TooLong(text.len()));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| Error::Malformed(error.to_string()))?;
        let scheme = check::check(&raw)?;
        Ok(Self {
            raw,
            scheme,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// What the ceremony is called.
    pub fn title(&self) -> &str {
        &self.raw.title
    }

    /// Those who have a part.
    pub fn roles(&self) -> &[Role] {
        &self.raw.role
    }

    /// The devices, in the order in which they are made ready.
    pub fn devices(&self) -> &[Device] {
        &self.raw.device
    }

    /// The authentication keys.
    pub fn authentication_keys(&self) -> &[AuthenticationKey] {
        &self.raw.authentication_key
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.raw.key
    }

    /// The wrap key.
    pub fn wrap(&self) -> &Wrap {
        &self.raw.wrap
    }

    /// How the wrap key is split.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The SHA-256 of the document.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Secp256k1 => "secp256k1",
        })
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sign => "sign",
            Self::Audit => "audit",
            Self::Administer => "administer",
        })
    }
}

/// What is wrong with a spec, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than is read.
    #[error("the spec has {0} bytes, and at most {MAX_SPEC} are read")]
    TooLong(usize),
    /// No TOML, or a field that is unknown, missing or of another type.
    #[error("the spec does not load: {0}")]
    Malformed(String),
    /// A value that cannot be.
    #[error("{place}: {problem}")]
    Value {
        /// Where it stands.
        place: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The groups cannot be.
    #[error("wrap: {0}")]
    Scheme(#[from] SchemeError),
}
