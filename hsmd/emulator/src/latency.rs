//! How long the device takes for a command.

use std::time::Duration;

use crate::device::Answer;

const SIGN_ECDSA: u8 = 0x56;
const SIGN_EDDSA: u8 = 0x6a;

/// A profile of how long commands take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Latency {
    /// As fast as the emulator is.
    #[default]
    None,
    /// The vendor's published figures: Ed25519 105 ms for 32 bytes and 137 ms for 128, in between and beyond
    /// on the same line; ECDSA 73 ms (P-256; taken for secp256k1 too). Everything else 3 ms.
    Vendor,
}

impl Latency {
    /// How long the command that `answer` belongs to takes in all.
    pub(crate) fn of(self, answer: &Answer) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Vendor => match answer.command {
                SIGN_ECDSA => Duration::from_millis(73),
                SIGN_EDDSA => ed25519(answer.length.saturating_sub(2)),
                _ => Duration::from_millis(3),
            },
        }
    }
}

/// For a message of `length` bytes: (137 ms - 105 ms) / 96 bytes = 1/3 ms a byte.
fn ed25519(length: usize) -> Duration {
    let beyond = u32::try_from(length.saturating_sub(32)).unwrap_or(u32::MAX);
    Duration::from_millis(105) + Duration::from_millis(1) * beyond / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_takes_what_the_vendor_publishes() {
        for (length, milliseconds) in [(0, 105), (32, 105), (128, 137)] {
            assert_eq!(
                ed25519(length),
                Duration::from_millis(milliseconds),
                "{length} bytes"
            );
        }
    }
}
