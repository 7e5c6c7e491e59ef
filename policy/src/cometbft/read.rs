//! From sign bytes back to the message: for state that other signers kept.

use super::{BlockId, ChainId, Height, Message, Proposal, Round, Timestamp, Vote, VoteType};

/// SignedMsgType of a proposal.
const PROPOSAL_TYPE: u64 = 32;

impl Message {
    /// The message that these canonical bytes, with their length prefix, were made for. `None` where they
    /// are not exactly what [`Message::sign_bytes`] makes of a vote or a proposal.
    #[must_use]
    pub fn from_sign_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        if rest.len() != length {
            return None;
        }
        let message = read(rest)?;
        // Whatever a lenient reader passed over is found here.
        (message.sign_bytes() == bytes).then_some(message)
    }
}

/// Whether anybody could take these bytes for a canonical vote, proposal or vote extension of any line of CometBFT,
/// with or without the length prefix that is signed with them. It is lenient: what only resembles one is one.
#[must_use]
pub fn resembles_a_message(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let length = varint(&mut rest).and_then(|length| usize::try_from(length).ok());
    let prefixed = length == Some(rest.len());
    resembles(bytes) || prefixed && resembles(rest)
}

fn resembles(bytes: &[u8]) -> bool {
    let Some(fields) = Fields::read(bytes) else {
        return false;
    };
    let numbers = |known: std::ops::RangeInclusive<u64>| {
        let mut numbers = fields.0.iter().map(|(number, _)| *number);
        numbers.all(|number| known.contains(&number))
    };
    let position = fields.fixed(2).is_some() && fields.fixed(3).is_some();
    let kind = matches!(fields.get(1), Some(Value::Varint(1 | 2 | PROPOSAL_TYPE)));
    let vote = kind && numbers(1..=7);
    let chain = matches!(fields.get(4), Some(Value::Bytes(_)));
    let extension = fields.bytes(1).is_some() && chain && numbers(1..=4);
    position && (vote || extension)
}

fn read(bytes: &[u8]) -> Option<Message> {
    let fields = Fields::read(bytes)?;
    let kind = fields.varint(1)?;
    let height = Height::new(fields.fixed(2)?).ok()?;
    let round = Round::new(i32::try_from(fields.fixed(3)?).ok()?).ok()?;
    if kind == PROPOSAL_TYPE {
        let pol_round = i32::try_from(fields.varint(4)?.cast_signed()).ok()?;
        let block = block_id(fields.bytes(5)?)?;
        let (time, chain) = (timestamp(fields.bytes(6)?)?, chain_id(fields.bytes(7)?)?);
        let proposal = Proposal::new(chain, height, round, pol_round, block, time);
        return proposal.ok().map(Message::from);
    }
    let vote_type = VoteType::try_from(i32::try_from(kind).ok()?).ok()?;
    let block = match fields.bytes(4)? {
        [] => None,
        id => Some(block_id(id)?),
    };
    let (time, chain) = (timestamp(fields.bytes(5)?)?, chain_id(fields.bytes(6)?)?);
    let vote = Vote::new(chain, vote_type, height, round, block, time, None);
    vote.ok().map(Message::from)
}

fn block_id(bytes: &[u8]) -> Option<BlockId> {
    let id = Fields::read(bytes)?;
    let parts = Fields::read(id.bytes(2)?)?;
    let total = u32::try_from(parts.varint(1)?).ok()?;
    BlockId::new(id.bytes(1)?, total, parts.bytes(2)?).ok()
}

fn timestamp(bytes: &[u8]) -> Option<Timestamp> {
    let fields = Fields::read(bytes)?;
    let nanos = i32::try_from(fields.varint(2)?.cast_signed()).ok()?;
    Timestamp::new(fields.varint(1)?.cast_signed(), nanos).ok()
}

fn chain_id(bytes: &[u8]) -> Option<ChainId> {
    ChainId::new(std::str::from_utf8(bytes).ok()?).ok()
}

/// The fields of a protobuf message, as they stand in it; one that is left out reads as zero or empty.
struct Fields<'a>(Vec<(u64, Value<'a>)>);

enum Value<'a> {
    Varint(u64),
    Fixed(i64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let value = match tag & 7 {
                0 => Value::Varint(varint(&mut rest)?),
                1 => {
                    let (bytes, after) = rest.split_first_chunk::<8>()?;
                    rest = after;
                    Value::Fixed(i64::from_le_bytes(*bytes))
                }
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let (bytes, after) = rest.split_at_checked(length)?;
                    rest = after;
                    Value::Bytes(bytes)
                }
                _ => return None,
            };
            fields.push((tag >> 3, value));
        }
        Some(Self(fields))
    }

    fn get(&self, number: u64) -> Option<&Value<'a>> {
        let found = self.0.iter().find(|(found, _)| *found == number);
        found.map(|(_, value)| value)
    }

    fn varint(&self, number: u64) -> Option<u64> {
        match self.get(number) {
            None => Some(0),
            Some(Value::Varint(value)) => Some(*value),
            Some(_) => None,
        }
    }

    fn fixed(&self, number: u64) -> Option<i64> {
        match self.get(number) {
            None => Some(0),
            Some(Value::Fixed(value)) => Some(*value),
            Some(_) => None,
        }
    }

    fn bytes(&self, number: u64) -> Option<&'a [u8]> {
        match self.get(number) {
            None => Some(&[]),
            Some(Value::Bytes(value)) => Some(value),
            Some(_) => None,
        }
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        value |= bits
            .checked_shl(shift)
            .filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let numbers = (1..=i64::MAX, 0..=i32::MAX, 0..3, 1..=u32::MAX);
        let rest = (
            any::<[u8; 32]>(),
            any::<bool>(),
            -62_135_596_800..253_402_300_800i64,
            0..1_000_000_000,
        );
        (numbers, rest).prop_map(
            |((height, round, step, total), (hash, nil, seconds, nanos))| {
                let chain = ChainId::new("chain-1").unwrap();
                let (height, at) = (Height::new(height).unwrap(), Round::new(round).unwrap());
                let time = Timestamp::new(seconds, nanos).unwrap();
                let block = BlockId::new(&hash, total, &hash).unwrap();
                let vote = |kind| {
                    let block = (!nil).then(|| block.clone());
                    Vote::new(chain.clone(), kind, height, at, block, time, None)
                        .unwrap()
                        .into()
                };
                match step {
                    0 => {
                        let pol_round = if nil { -1 } else { round / 2 - 1 };
                        Proposal::new(chain, height, at, pol_round, block, time)
                            .unwrap()
                            .into()
                    }
                    1 => vote(VoteType::Prevote),
                    _ => vote(VoteType::Precommit),
                }
            },
        )
    }

    #[test]
    fn extensions_resemble_a_message_and_what_people_sign_does_not() {
        let block = BlockId::new(&[1; 32], 1, &[1; 32]).unwrap();
        for extension in [&b""[..], b"extension"] {
            let vote = Vote::new(
                ChainId::new("chain-1").unwrap(),
                VoteType::Precommit,
                Height::new(7).unwrap(),
                Round::new(0).unwrap(),
                Some(block.clone()),
                Timestamp::new(0, 0).unwrap(),
                Some(extension.to_vec()),
            );
            let bytes = Message::from(vote.unwrap()).extension_sign_bytes().unwrap();
            assert!(resembles_a_message(&bytes) && resembles_a_message(&bytes[1..]));
        }
        for payload in [
            &b""[..],
            b"release 1.2.3",
            b"{\"version\": 3}",
            b"-----BEGIN PGP MESSAGE-----",
            &[0x30, 0x82, 0x01, 0x0a],
            &[0; 64],
        ] {
            assert!(!resembles_a_message(payload), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn every_message_is_read_back_from_its_sign_bytes(message in any_message()) {
            prop_assert_eq!(Message::from_sign_bytes(&message.sign_bytes()), Some(message));
        }

        #[test]
        fn every_message_resembles_one_with_its_length_and_without(message in any_message()) {
            let mut bytes = vec![message.sign_bytes()];
            bytes.extend(message.extension_sign_bytes());
            for bytes in bytes {
                prop_assert!(resembles_a_message(&bytes));
                let mut rest = bytes.as_slice();
                varint(&mut rest);
                prop_assert!(resembles_a_message(rest));
            }
        }

        #[test]
        fn what_is_read_is_what_was_written(message in any_message(), at: prop::sample::Index, byte: u8) {
            let mut bytes = message.sign_bytes();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Some(read) = Message::from_sign_bytes(&bytes) {
                prop_assert_eq!(read.sign_bytes(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            if let Some(read) = Message::from_sign_bytes(&bytes) {
                prop_assert_eq!(read.sign_bytes(), bytes);
            }
        }
    }
}
