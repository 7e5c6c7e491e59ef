//! Who the officers are.

use std::fmt;

use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, HashAlg, PublicKey};

use super::Error;
use crate::quoted;

/// The most officers that a deployment has.
pub const MAX_OFFICERS: usize = 32;

/// The officers of a deployment, and how many of them a document needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Officers {
    members: Vec<Officer>,
    threshold: usize,
}

/// An officer: a name, and the SSH key that he or she signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Officer {
    name: String,
    key: PublicKey,
}

impl Officers {
    /// 1 to [`MAX_OFFICERS`] officers with different names and keys, `threshold` of whom must sign.
    ///
    /// # Errors
    ///
    /// [`Error::Count`], [`Error::Threshold`], [`Error::Officer`] where a name or a key occurs twice.
    pub fn new(members: Vec<Officer>, threshold: usize) -> Result<Self, Error> {
        let officers = members.len();
        if !(1..=MAX_OFFICERS).contains(&officers) {
            return Err(Error::Count(officers));
        }
        if !(1..=officers).contains(&threshold) {
            return Err(Error::Threshold {
                threshold,
                officers,
            });
        }
        for (index, member) in members.iter().enumerate() {
            let mut before = members.iter().take(index);
            if let Some(same) = before.find(|other| {
                other.name == member.name || other.key.key_data() == member.key.key_data()
            }) {
                return Err(Error::Officer {
                    name: member.name.clone(),
                    reason: format!("has the name or the key of {}", same.name),
                });
            }
        }
        Ok(Self { members, threshold })
    }

    /// From the text of OpenSSH's `allowed_signers` (ssh-keygen(1)): an officer a line, as a name, key type,
    /// key and comment; empty lines and those that begin with `#` are passed over. Options are refused.
    ///
    /// # Errors
    ///
    /// As [`Officers::new`] and [`Officer::parse`].
    pub fn parse(text: &str, threshold: usize) -> Result<Self, Error> {
        let lines = text.lines().map(str::trim);
        let members = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Officer::parse);
        Self::new(members.collect::<Result<_, _>>()?, threshold)
    }

    /// All of them.
    pub fn members(&self) -> &[Officer] {
        &self.members
    }

    /// How many must sign; at least 1.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    pub(super) fn holder(&self, key: &KeyData) -> Option<&Officer> {
        self.members
            .iter()
            .find(|officer| officer.key.key_data() == key)
    }
}

impl Officer {
    /// From a line of `allowed_signers`: a name of 1 to 64 bytes of `A-Z a-z 0-9 . _ @ + -`, and a key of the
    /// type ssh-ed25519, ecdsa-sha2-nistp256, sk-ssh-ed25519@openssh.com or
    /// sk-ecdsa-sha2-nistp256@openssh.com. A comment after it is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Officer`].
    pub fn parse(line: &str) -> Result<Self, Error> {
        let (name, key) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let wrong = |reason: String| Error::Officer {
            name: quoted(name),
            reason,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
        if !(1..=64).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(wrong(
                "a name is 1 to 64 bytes of A-Z a-z 0-9 . _ @ + -".to_owned(),
            ));
        }
        // Blanks at will between the fields, as OpenSSH reads them; the comment is left out.
        let mut fields = key.split_ascii_whitespace();
        let (kind, blob) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let key = PublicKey::from_openssh(&format!("{kind} {blob}"))
            .map_err(|error| wrong(format!("{} is no key: {error}", quoted(key))))?;
        match key.key_data() {
            KeyData::Ed25519(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {}
            KeyData::Ecdsa(key) if key.curve() == EcdsaCurve::NistP256 => {}
            _ => {
                return Err(wrong(format!(
                    "a key of type {}: accepted are ssh-ed25519, ecdsa-sha2-nistp256 and their sk- forms",
                    key.algorithm()
                )));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's fingerprint, as `ssh-keygen -l` prints it: `SHA256:` and base64.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// As [`Officer::parse`] reads it.
impl fmt::Display for Officer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.to_openssh().map_err(|_| fmt::Error)?;
        write!(f, "{} {}", self.name, key.trim_end())
    }
}
