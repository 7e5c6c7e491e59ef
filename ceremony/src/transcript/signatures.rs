//! The roles' signatures over a closed transcript.

use hsm_policy::officers::{self, Officers};

use super::entry::{Digest, Event};
use super::read::{Damage, read};

/// What the roles sign with: `ssh-keygen -Y sign -n transcript@hsm-ceremony -f KEY transcript.jsonl`.
pub const NAMESPACE: &str = "transcript@hsm-ceremony";

/// Checks a closed transcript and the signatures over it: as many of the roles as their list demands, every signature
/// good. Gives the names of those who signed.
///
/// # Errors
/// [`Error`].
pub fn check_signatures(
    transcript: &[u8],
    signatures: &[String],
    roles: &Officers,
) -> Result<(Vec<String>, Digest), Error> {
    let (entries, head) = read(transcript)?;
    if !entries
        .last()
        .is_some_and(|last| matches!(last.event, Event::Closed { .. }))
    {
        return Err(Error::Open);
    }
    let signers = roles.signers(NAMESPACE, transcript, signatures)?;
    Ok((signers, head))
}

/// Why a transcript does not count as signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// It is not finished.
    #[error(
        "the transcript is not closed: the ceremony is not finished, or its last lines were cut off"
    )]
    Open,
    /// The signatures are not enough, or not good.
    #[error(transparent)]
    Signatures(#[from] officers::Error),
}
