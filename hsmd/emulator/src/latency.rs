//! How long the device takes for a command.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::device::Answer;

const SIGN_EDDSA: u8 = 0x6a;

const SIGN_ECDSA: u8 = 0x56;

/// A profile of how long commands take.
///
/// As text, on the command line and the control socket: `none`, `vendor`, or a list such as
/// `0x6a=100,0x56=73,*=3` of command codes and milliseconds, where `*` stands for all that are not named.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Latency {
    /// As fast as the emulator is.
    #[default]
    None,
    /// The vendor's published figures: Ed25519 105 ms for 32 bytes and 137 ms for 128, in between and beyond
    /// on the same line; ECDSA 73 ms (P-256, taken for all curves). Everything else 3 ms, which is no figure
    /// of the vendor's.
    Vendor,
    /// A time for each command.
    Each {
        /// By command code.
        commands: BTreeMap<u8, Duration>,
        /// For all others.
        others: Duration,
    },
}

impl Latency {
    /// How long the command that `answer` belongs to takes in all.
    pub(crate) fn of(&self, answer: &Answer) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Vendor => match answer.command {
                SIGN_EDDSA => ed25519(answer.length.saturating_sub(2)),
                SIGN_ECDSA => Duration::from_millis(73),
                _ => Duration::from_millis(3),
            },
            Self::Each { commands, others } => *commands.get(&answer.command).unwrap_or(others),
        }
    }
}

/// A profile that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "no latency {0:?}: none, vendor, or a list such as 0x6a=100,*=3 of command codes and milliseconds"
)]
pub struct UnknownLatency(String);

impl FromStr for Latency {
    type Err = UnknownLatency;

    fn from_str(text: &str) -> Result<Self, UnknownLatency> {
        let unknown = || UnknownLatency(text.to_owned());
        match text {
            "none" => return Ok(Self::None),
            "vendor" => return Ok(Self::Vendor),
            _ => {}
        }
        let (mut commands, mut others) = (BTreeMap::new(), Duration::ZERO);
        for entry in text.split(',') {
            let (command, time) = entry.split_once('=').ok_or_else(unknown)?;
            let time = Duration::from_millis(time.parse::<u32>().map_err(|_| unknown())?.into());
            if command == "*" {
                others = time;
                continue;
            }
            let code = command.strip_prefix("0x").ok_or_else(unknown)?;
            let code = u8::from_str_radix(code, 16).map_err(|_| unknown())?;
            commands.insert(code, time);
        }
        Ok(Self::Each { commands, others })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Vendor => f.write_str("vendor"),
            Self::Each { commands, others } => {
                for (command, time) in commands {
                    write!(f, "{command:#04x}={},", time.as_millis())?;
                }
                write!(f, "*={}", others.as_millis())
            }
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

    #[test]
    fn a_profile_is_read_as_it_is_written() {
        for text in ["none", "vendor", "0x56=73,0x6a=100,*=3", "*=0"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        for text in [
            "", "fast", "6a=1", "0x6a", "0x6a=", "0x1ff=1", "0x6a=-1", "*=1,",
        ] {
            assert!(text.parse::<Latency>().is_err(), "{text:?}");
        }
    }
}
