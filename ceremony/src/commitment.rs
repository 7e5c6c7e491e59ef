//! Salted commitments: they show that a share is the one that was handed out, and nothing of it.

use hsm_shares::Share;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::transcript::{Digest, ShareId};

/// What stands before everything else that is hashed, so that no other digest of ours is one of these.
const DOMAIN: &[u8] = b"hsm-ceremony share commitment 1\n";

/// A commitment to a share: SHA-256 over `hsm-ceremony share commitment 1`, a line feed, the salt (32 bytes), generation
/// (4 bytes, big-endian), group and member (1 byte each), and the share's words in lower case, with a blank between.
///
/// A share has at least 128 random bits, so salt and commitment are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// 32 random bytes.
    pub salt: Digest,
    /// The SHA-256.
    pub digest: Digest,
}

impl Commitment {
    /// To a share in its place, with a salt that is used once.
    pub fn new(place: &ShareId, share: &Share, salt: [u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(salt);
        hash.update(place.generation.to_be_bytes());
        hash.update([place.group, place.member]);
        for (index, word) in share.words().iter().enumerate() {
            if index > 0 {
                hash.update(b" ");
            }
            hash.update(word);
        }
        Self {
            salt: Digest(salt),
            digest: Digest(hash.finalize().into()),
        }
    }

    /// Whether this share, in this place, is the one that was committed to.
    pub fn holds(&self, place: &ShareId, share: &Share) -> bool {
        Self::new(place, share, self.salt.0) == *self
    }
}
