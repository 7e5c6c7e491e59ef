//! Raw signing: payloads that are no consensus messages, with keys that are for nothing else.

use std::fmt;

use serde::Deserialize;

use super::{Denial, Grantee, KeyName, Policy};
use crate::identity::Caller;

/// One `[[raw]]` of the document: a key, and what it signs payloads for. Its callers have the role operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub(super) callers: Vec<Grantee>,
    pub(super) key: KeyName,
    pub(super) purpose: Purpose,
    pub(super) hash: Hash,
    pub(super) line: usize,
}

impl Raw {
    /// Who may ask; at least one.
    pub fn callers(&self) -> &[Grantee] {
        &self.callers
    }

    /// The key, which no `[[grant]]` names.
    pub fn key(&self) -> &KeyName {
        &self.key
    }

    /// What it is for, as the caller has to say, too.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// How a payload is hashed before it is signed.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The line of the document where it begins, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// As people read it.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callers: Vec<String> = self.callers.iter().map(Grantee::to_string).collect();
        write!(
            f,
            "{} may have key {} sign payloads of their own for {:?}, hashed with {}",
            callers.join(", "),
            self.key,
            self.purpose.0,
            self.hash
        )
    }
}

/// What a key is for: 1 to 100 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Purpose(String);

impl Purpose {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Purpose {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let printable = |c: char| c == ' ' || c.is_ascii_graphic();
        match (1..=100).contains(&text.len()) && text.chars().all(printable) {
            true => Ok(Self(text)),
            false => Err("a purpose is 1 to 100 printable ASCII characters".to_owned()),
        }
    }
}

/// How a payload is hashed before it is signed (FIPS 180-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// As it stands in the document.
    pub fn name(self) -> &'static str {
        match self {
            Hash::Sha256 => "sha256",
            Hash::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Proof that the policy permits a payload of this purpose. Only [`Policy::permit_raw`] makes one.
#[derive(Debug)]
#[must_use]
pub struct RawPermit {
    hash: Hash,
}

impl RawPermit {
    /// How the payload is hashed.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

impl Policy {
    /// Whether `caller` may have a payload of this purpose signed with `key`. What the payload is, is judged elsewhere.
    ///
    /// # Errors
    ///
    /// [`Denial::RawNotGranted`], [`Denial::Frozen`].
    pub fn permit_raw(
        &self,
        caller: &Caller,
        key: &KeyName,
        purpose: &str,
    ) -> Result<RawPermit, Denial> {
        let raw = self.raw(key).filter(|raw| {
            raw.purpose.0 == purpose && raw.callers.iter().any(|grantee| grantee.is(caller))
        });
        let raw = raw.ok_or_else(|| Denial::RawNotGranted {
            caller: caller.clone(),
            key: key.clone(),
        })?;
        if let Some(freeze) = self.freeze(key) {
            return Err(Denial::Frozen {
                key: key.clone(),
                line: freeze.line,
            });
        }
        Ok(RawPermit { hash: raw.hash })
    }

    /// All of them, in the order of their keys.
    pub fn raws(&self) -> &[Raw] {
        &self.raws
    }

    /// The one of a key, where there is one.
    pub(super) fn raw(&self, key: &KeyName) -> Option<&Raw> {
        let place = self.raws.binary_search_by(|raw| raw.key.cmp(key));
        self.raws.get(place.ok()?)
    }
}
