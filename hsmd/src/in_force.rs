//! The policy in force: where its document lies, and how another takes its place.
//!
//! The journal says which policy was loaded last, by the SHA-256 of its document; the document itself is too long for
//! an entry, and lies beside the journal. At a start exactly that document is put in force again, or nothing is.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hsm_policy::grants::Policy;
use hsm_proto::v1 as wire;
use sha2::{Digest as _, Sha256};

use crate::guard::{self, Guard, PolicyMark, Signed};

/// A policy, and where it comes from.
pub struct InForce {
    /// Who may have what signed.
    pub policy: Policy,
    /// What the journal says of it; None where nobody signed it, or none was loaded.
    pub mark: Option<PolicyMark>,
    /// The document; None where none was loaded.
    pub path: Option<PathBuf>,
    /// SHA-256 of the document, 32 bytes; empty where none was loaded.
    pub sha256: Vec<u8>,
    /// The chains that it names: what a metric may be labelled with.
    pub chains: HashSet<String>,
}

/// Why no policy can be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document cannot be read or is wrong.
    #[error("policy {}: {reason}", path.display())]
    Document {
        /// The document.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A policy that nobody signed was to take the place of one that officers did.
    #[error(
        "officers signed policy version {0} here, and one that nobody signed does not take its place: use `hsmd run`"
    )]
    Signed(u64),
    /// The document that was loaded last is not there as it was.
    #[error(
        "policy {} is not the document of version {version} that was loaded, whose SHA-256 is {sha256}: {reason}. \
         Put that file back, from a backup or from whoever had it signed, or load a newer policy while hsmd is \
         stopped: `hsmd policy load`", path.display()
    )]
    Gone {
        /// Where it has to be.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// In hex.
        sha256: String,
        /// What is wrong.
        reason: String,
    },
}

impl InForce {
    /// No policy, which grants nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new(Policy::default(), None, None, Vec::new())
    }

    /// The one that was loaded last.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn loaded(state_dir: &Path, mark: Option<&PolicyMark>) -> Result<Self, Error> {
        let Some(mark) = mark else {
            return Ok(Self::nothing());
        };
        let path = path(state_dir, mark);
        let gone = |reason: String| Error::Gone {
            path: path.clone(),
            version: mark.version,
            sha256: hex::encode(mark.sha256),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|error| gone(error.to_string()))?;
        if Sha256::digest(&text)[..] != mark.sha256 {
            return Err(gone("it was changed".to_owned()));
        }
        let policy = Policy::parse(&text).map_err(|error| gone(error.to_string()))?;
        Ok(Self::signed(policy, mark, state_dir))
    }

    /// The one that was loaded last, which may have been read before.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn loaded_from(
        read: Option<Read>,
        state_dir: &Path,
        mark: Option<&PolicyMark>,
    ) -> Result<Self, Error> {
        match (read, mark) {
            (Some(read), Some(mark)) if read.sha256 == mark.sha256 => {
                Ok(Self::signed(read.policy, mark, state_dir))
            }
            _ => Self::loaded(state_dir, mark),
        }
    }

    /// One that nobody has to have signed: only `hsmd dev` puts such a one in force.
    ///
    /// # Errors
    ///
    /// [`Error::Document`].
    pub fn unsigned(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Document {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let policy = Policy::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let sha256 = Sha256::digest(&text).to_vec();
        Ok(Self::new(policy, None, Some(path.to_owned()), sha256))
    }

    /// Whether nobody signed it.
    #[must_use]
    pub fn is_unsigned(&self) -> bool {
        self.mark.is_none() && self.path.is_some()
    }

    /// Its version; 0 where it has none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.mark.as_ref().map_or(0, |mark| mark.version)
    }

    /// Whether it could not be loaded any more: it stays in force, and somebody should see to a newer one.
    #[must_use]
    pub fn is_old(&self, now: SystemTime) -> bool {
        let now = guard::entry::wall_clock(now).seconds;
        self.mark.as_ref().is_some_and(|mark| mark.expires < now)
    }

    /// For `hsmd status`.
    #[must_use]
    pub fn status(&self, now: SystemTime) -> wire::PolicyStatus {
        wire::PolicyStatus {
            version: self.version(),
            expires: self.mark.as_ref().map(|mark| prost_types::Timestamp {
                seconds: mark.expires,
                nanos: 0,
            }),
            old: self.is_old(now),
            unsigned: self.is_unsigned(),
        }
    }

    fn signed(policy: Policy, mark: &PolicyMark, state_dir: &Path) -> Self {
        let path = path(state_dir, mark);
        let sha256 = mark.sha256.to_vec();
        Self::new(policy, Some(mark.clone()), Some(path), sha256)
    }

    fn new(
        policy: Policy,
        mark: Option<PolicyMark>,
        path: Option<PathBuf>,
        sha256: Vec<u8>,
    ) -> Self {
        let chains = policy.grants().map(|grant| grant.chain_id().to_string());
        Self {
            chains: chains.collect(),
            policy,
            mark,
            path,
            sha256,
        }
    }
}

/// A document that was read, and is not in force.
pub struct Read {
    sha256: [u8; 32],
    policy: Policy,
}

impl Read {
    /// The newest document beside the journal, before the journal says which one counts; none where it cannot be read.
    /// Parsing takes many times the memory that the policy does, and what it gives back serves the journal's replay.
    #[must_use]
    pub fn newest(state_dir: &Path) -> Option<Self> {
        let files = std::fs::read_dir(state_dir).ok()?.flatten();
        let newest = files.filter_map(|file| Some((version(&file.file_name())?, file.path())));
        let (_, path) = newest.max()?;
        let text = std::fs::read_to_string(path).ok()?;
        Some(Self {
            sha256: Sha256::digest(&text).into(),
            policy: Policy::parse(&text).ok()?,
        })
    }
}

/// Loads a policy that enough officers signed, all of it or nothing: its document is made durable beside the journal,
/// the journal says that it counts, and `put` puts it in force. `has_key` tells whether the configuration has a key.
///
/// # Errors
///
/// As [`Guard::load_policy`].
pub async fn load(
    guard: &Guard,
    state_dir: &Path,
    signed: &Signed,
    has_key: impl Fn(&str) -> bool,
    put: impl FnOnce(InForce),
) -> Result<(PolicyMark, Vec<String>), guard::Error> {
    let keep = |policy: &Policy, mark: &PolicyMark| {
        names_known_keys(policy, has_key)?;
        hsm_journal::replace_file(&path(state_dir, mark), &signed.document)
            .map_err(|error| error.to_string())
    };
    let put = |policy: Policy, mark: &PolicyMark| put(InForce::signed(policy, mark, state_dir));
    guard
        .load_policy(signed, keep, put, SystemTime::now())
        .await
}

/// That the configuration has every key which a policy grants or freezes.
///
/// # Errors
///
/// A sentence about the first line that names another.
pub fn names_known_keys(policy: &Policy, has_key: impl Fn(&str) -> bool) -> Result<(), String> {
    let granted = policy.grants().map(|grant| (grant.line(), grant.key()));
    let frozen = policy.freezes().iter().map(|it| (it.line(), it.key()));
    let raws = policy.raws().iter().map(|it| (it.line(), it.key()));
    let mut named = granted.chain(frozen).chain(raws);
    match named.find(|(_, key)| !has_key(key.as_str())) {
        None => Ok(()),
        Some((line, key)) => Err(format!(
            "line {line}: it names key {key}, and the configuration has no [[key]] of that name: correct the name, or \
             add the key"
        )),
    }
}

/// The digest in the name: a document never takes the place of another.
fn path(state_dir: &Path, mark: &PolicyMark) -> PathBuf {
    let sha256 = hex::encode(mark.sha256);
    state_dir.join(format!("policy-{}-{sha256}.toml", mark.version))
}

/// The version in such a name.
fn version(name: &OsStr) -> Option<u64> {
    let rest = name.to_str()?.strip_prefix("policy-")?;
    rest.strip_suffix(".toml")?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_gone_or_changed_is_not_put_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let text = "[[grant]]\ncallers = [\"spiffe://d/sentry/a\"]\nkey = \"k\"\nchain_id = \"c\"\nkinds = [\"prevote\"]\n";
        let mark = PolicyMark {
            version: 7,
            sha256: Sha256::digest(text).into(),
            expires: 0,
        };
        let refused = |word: &str| {
            let error = InForce::loaded(directory.path(), Some(&mark))
                .err()
                .unwrap();
            let error = error.to_string();
            assert!(
                error.contains(word) && error.contains("policy load"),
                "{error}"
            );
        };
        refused("No such file");
        assert!(Read::newest(directory.path()).is_none());
        let path = path(directory.path(), &mark);
        std::fs::write(&path, text).unwrap();
        let older = path.with_file_name("policy-6-00.toml");
        std::fs::write(older, "").unwrap();
        let read = || Read::newest(directory.path());
        assert_eq!(read().unwrap().sha256, mark.sha256);
        let other = PolicyMark {
            sha256: [0; 32],
            ..mark.clone()
        };
        let loaded_from = |mark| InForce::loaded_from(read(), directory.path(), mark);
        assert_eq!(loaded_from(Some(&mark)).unwrap().policy.grants().count(), 1);
        assert_eq!(loaded_from(None).unwrap().policy.grants().count(), 0);
        assert!(loaded_from(Some(&other)).is_err());
        let in_force = InForce::loaded(directory.path(), Some(&mark)).unwrap();
        assert_eq!(in_force.policy.grants().count(), 1);
        assert!(in_force.is_old(SystemTime::now()) && !in_force.is_unsigned());
        std::fs::write(&path, text.replace("\"c\"", "\"d\"")).unwrap();
        refused("it was changed");
        std::fs::write(&path, [0xff]).unwrap();
        refused("UTF-8");
        assert_eq!(
            InForce::loaded(directory.path(), None).unwrap().version(),
            0
        );
    }
}
