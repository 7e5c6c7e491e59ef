//! The secret that is split.

use zeroize::Zeroizing;

/// Shortest and longest secret, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 16..=32;

/// A secret of 16 to 32 bytes, an even number of them; wiped when it is dropped.
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes bytes as a secret.
    ///
    /// # Errors
    /// [`WrongLength`]. The bytes are wiped then too.
    pub fn new(bytes: Zeroizing<Box<[u8]>>) -> Result<Self, WrongLength> {
        if BYTES.contains(&bytes.len()) && bytes.len().is_multiple_of(2) {
            Ok(Self(bytes))
        } else {
            Err(WrongLength(bytes.len()))
        }
    }

    /// The bytes, to be put where the step that asks for them names.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Its length in bytes, which is no secret.
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }
}

/// A secret of so many bytes cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret of {0} bytes cannot be split: 16 to 32 bytes, an even number of them, can")]
pub struct WrongLength(
    /// Its length in bytes.
    pub usize,
);
