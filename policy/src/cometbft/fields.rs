//! Chain id, timestamp and block id, each checked when it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Error, quoted};

/// The name of a chain: 1 to 50 bytes (CometBFT `types/genesis.go`, MaxChainIDLen) of printable UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ChainId(Arc<str>);

impl ChainId {
    /// Checks length and characters. [`Error::Field`] where they are not as [`ChainId`] says.
    pub fn new(text: &str) -> Result<Self, Error> {
        if (1..=50).contains(&text.len()) && text.chars().all(is_printable) {
            return Ok(ChainId(text.into()));
        }
        Err(Error::field(
            "chain_id",
            quoted(text),
            "1 to 50 bytes of printable text",
        ))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ChainId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        ChainId::new(&text)
    }
}

/// Invisible, combining and direction-changing characters could make one chain id look like another.
fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// A moment, as protobuf's Timestamp has it: 0001-01-01T00:00:00Z, which is Go's zero time, to
/// 9999-12-31T23:59:59.999999999Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: i32,
}

impl Timestamp {
    const FIRST_SECOND: i64 = -62_135_596_800;
    const LAST_SECOND: i64 = 253_402_300_799;
    const NANOS_PER_SECOND: i32 = 1_000_000_000;

    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Timestamp {
        seconds: 0,
        nanos: 0,
    };

    /// `seconds` since 1970-01-01T00:00:00Z, negative before it, and `nanos` after that second,
    /// 0 to 999,999,999. [`Error::Field`] outside of those ranges.
    pub fn new(seconds: i64, nanos: i32) -> Result<Self, Error> {
        if !(Self::FIRST_SECOND..=Self::LAST_SECOND).contains(&seconds) {
            let rule = "from -62135596800 (year 1) to 253402300799 (year 9999)";
            return Err(Error::field("timestamp.seconds", seconds, rule));
        }
        if !(0..Self::NANOS_PER_SECOND).contains(&nanos) {
            return Err(Error::field(
                "timestamp.nanos",
                nanos,
                "from 0 to 999999999",
            ));
        }
        Ok(Timestamp { seconds, nanos })
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`seconds`](Self::seconds).
    pub fn nanos(self) -> i32 {
        self.nanos
    }

    /// How far apart two moments are, whichever is the later.
    pub fn distance(self, other: Timestamp) -> Duration {
        let (earlier, later) = if self < other {
            (self, other)
        } else {
            (other, self)
        };
        // Neither sum nor difference can overflow: the seconds span 10,000 years.
        let whole = Duration::from_secs(later.seconds.abs_diff(earlier.seconds));
        let nanos =
            |moment: Timestamp| Duration::from_nanos(u64::from(moment.nanos.unsigned_abs()));
        whole + nanos(later) - nanos(earlier)
    }
}

/// The block that a message is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockId {
    hash: [u8; 32],
    part_set_total: u32,
    part_set_hash: [u8; 32],
}

impl BlockId {
    /// A complete block id: two hashes of 32 bytes and the number of parts, at least 1. [`Error::Field`]
    /// else; nil is expressed by having no `BlockId`.
    pub fn new(hash: &[u8], part_set_total: u32, part_set_hash: &[u8]) -> Result<Self, Error> {
        if part_set_total == 0 {
            return Err(Error::field(
                "block_id.part_set_total",
                part_set_total,
                "at least 1",
            ));
        }
        Ok(BlockId {
            hash: hash_of("block_id.hash", hash)?,
            part_set_total,
            part_set_hash: hash_of("block_id.part_set_hash", part_set_hash)?,
        })
    }

    /// The block's hash.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The number of parts, at least 1.
    pub fn part_set_total(&self) -> u32 {
        self.part_set_total
    }

    /// The Merkle root of the parts.
    pub fn part_set_hash(&self) -> &[u8; 32] {
        &self.part_set_hash
    }
}

fn hash_of(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| {
        Error::field(
            field,
            format_args!("{} bytes long", bytes.len()),
            "32 bytes long",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_field<T>(result: Result<T, Error>) -> Option<&'static str> {
        match result {
            Err(Error::Field { field, .. }) => Some(field),
            _ => None,
        }
    }

    #[test]
    fn a_chain_id_is_1_to_50_printable_bytes() {
        let fifty = "x".repeat(50);
        for good in ["a", "cosmoshub-4", "test chain/\"1\"", "кошка", &fifty] {
            assert_eq!(ChainId::new(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(51);
        let too_long_in_bytes = "ж".repeat(26);
        for bad in [
            "",
            "a\n",
            "\0",
            "a\u{7f}",
            "a\u{202e}b",
            "a\u{200b}",
            &too_long,
            &too_long_in_bytes,
        ] {
            assert_eq!(
                refused_field(ChainId::new(bad)),
                Some("chain_id"),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn an_error_shows_hostile_text_escaped_and_cut() {
        let error = ChainId::new(&"\u{1b}[31m\n".repeat(100_000))
            .unwrap_err()
            .to_string();
        assert!(
            error.len() < 400 && !error.contains('\n') && !error.contains('\u{1b}'),
            "{error}"
        );
        assert!(error.contains("(600000 bytes)"), "{error}");
    }

    #[test]
    fn a_timestamp_out_of_range_is_refused_by_name() {
        let seconds = Some("timestamp.seconds");
        assert_eq!(refused_field(Timestamp::new(-62_135_596_801, 0)), seconds);
        assert_eq!(refused_field(Timestamp::new(253_402_300_800, 0)), seconds);
        let nanos = Some("timestamp.nanos");
        assert_eq!(refused_field(Timestamp::new(0, -1)), nanos);
        assert_eq!(refused_field(Timestamp::new(0, 1_000_000_000)), nanos);
    }

    #[test]
    fn a_block_id_of_a_wrong_length_is_refused_by_name() {
        assert_eq!(
            refused_field(BlockId::new(&[1; 31], 1, &[1; 32])),
            Some("block_id.hash")
        );
        assert_eq!(
            refused_field(BlockId::new(&[], 1, &[1; 32])),
            Some("block_id.hash")
        );
        let part_set_hash = Some("block_id.part_set_hash");
        assert_eq!(
            refused_field(BlockId::new(&[1; 32], 1, &[1; 33])),
            part_set_hash
        );
        let part_set_total = Some("block_id.part_set_total");
        assert_eq!(
            refused_field(BlockId::new(&[1; 32], 0, &[1; 32])),
            part_set_total
        );
        let error = BlockId::new(&[1; 20], 1, &[1; 32]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "block_id.hash is 20 bytes long; it must be 32 bytes long"
        );
    }

    #[test]
    fn the_distance_of_two_moments_counts_nanoseconds_both_ways() {
        let early = Timestamp::new(-1, 999_999_999).unwrap();
        let late = Timestamp::new(1, 1).unwrap();
        assert_eq!(early.distance(late), Duration::new(1, 2));
        assert_eq!(late.distance(early), Duration::new(1, 2));
        let first = Timestamp::new(-62_135_596_800, 0).unwrap();
        let last = Timestamp::new(253_402_300_799, 999_999_999).unwrap();
        assert_eq!(
            first.distance(last),
            Duration::new(315_537_897_599, 999_999_999)
        );
    }
}
