//! CometBFT's canonical encoding: what a signature covers (`types/canonical.go` and
//! `proto/tendermint/types/canonical.proto`, the same from 0.34 to 1.0).

use super::{BlockId, Timestamp};

/// SignedMsgType of a proposal.
const PROPOSAL_TYPE: u64 = 32;

/// CanonicalVote, in raw integers.
pub(super) struct CanonicalVote<'a> {
    pub(super) vote_type: u64,
    pub(super) height: i64,
    pub(super) round: i64,
    pub(super) block_id: Option<&'a BlockId>,
    pub(super) timestamp: Timestamp,
    pub(super) chain_id: &'a str,
}

impl CanonicalVote<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = Fields::default()
            .varint(1, self.vote_type)
            .sfixed64(2, self.height)
            .sfixed64(3, self.round);
        match self.block_id {
            Some(id) => fields.message(4, block_id(id)),
            None => fields,
        }
        .message(5, timestamp(self.timestamp))
        .bytes(6, self.chain_id.as_bytes())
        .length_prefixed()
    }
}

/// CanonicalProposal, in raw integers.
pub(super) struct CanonicalProposal<'a> {
    pub(super) height: i64,
    pub(super) round: i64,
    pub(super) pol_round: i64,
    pub(super) block_id: &'a BlockId,
    pub(super) timestamp: Timestamp,
    pub(super) chain_id: &'a str,
}

impl CanonicalProposal<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        Fields::default()
            .varint(1, PROPOSAL_TYPE)
            .sfixed64(2, self.height)
            .sfixed64(3, self.round)
            .varint(4, self.pol_round.cast_unsigned())
            .message(5, block_id(self.block_id))
            .message(6, timestamp(self.timestamp))
            .bytes(7, self.chain_id.as_bytes())
            .length_prefixed()
    }
}

/// CanonicalVoteExtension, in raw integers.
pub(super) struct CanonicalExtension<'a> {
    pub(super) extension: &'a [u8],
    pub(super) height: i64,
    pub(super) round: i64,
    pub(super) chain_id: &'a str,
}

impl CanonicalExtension<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        Fields::default()
            .bytes(1, self.extension)
            .sfixed64(2, self.height)
            .sfixed64(3, self.round)
            .bytes(4, self.chain_id.as_bytes())
            .length_prefixed()
    }
}

fn block_id(id: &BlockId) -> Fields {
    let part_set_header = Fields::default()
        .varint(1, id.part_set_total().into())
        .bytes(2, id.part_set_hash());
    Fields::default()
        .bytes(1, id.hash())
        .message(2, part_set_header)
}

fn timestamp(timestamp: Timestamp) -> Fields {
    Fields::default()
        .varint(1, timestamp.seconds().cast_unsigned())
        .varint(2, i64::from(timestamp.nanos()).cast_unsigned())
}

/// Protobuf fields in the order in which they are added. As proto3 wants it, a scalar that is zero or
/// empty is left out; a message never is.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn varint(self, number: u8, value: u64) -> Self {
        if value == 0 {
            return self;
        }
        let mut fields = self.tag(number, 0);
        put_varint(&mut fields.0, value);
        fields
    }

    fn sfixed64(self, number: u8, value: i64) -> Self {
        if value == 0 {
            return self;
        }
        let mut fields = self.tag(number, 1);
        fields.0.extend_from_slice(&value.to_le_bytes());
        fields
    }

    fn bytes(self, number: u8, value: &[u8]) -> Self {
        if value.is_empty() {
            self
        } else {
            self.delimited(number, value)
        }
    }

    fn message(self, number: u8, message: Fields) -> Self {
        self.delimited(number, &message.0)
    }

    fn delimited(self, number: u8, value: &[u8]) -> Self {
        let mut fields = self.tag(number, 2);
        put_varint(&mut fields.0, value.len() as u64);
        fields.0.extend_from_slice(value);
        fields
    }

    /// Field numbers up to 15 fit a tag of one byte, and no canonical message has a higher one.
    fn tag(mut self, number: u8, wire_type: u8) -> Self {
        debug_assert!((1..=15).contains(&number));
        self.0.push(number << 3 | wire_type);
        self
    }

    fn length_prefixed(self) -> Vec<u8> {
        const LONGEST_VARINT: usize = 10;
        let mut prefixed = Vec::with_capacity(LONGEST_VARINT + self.0.len());
        put_varint(&mut prefixed, self.0.len() as u64);
        prefixed.extend_from_slice(&self.0);
        prefixed
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
    }

    /// Some cases have values that no [`crate::cometbft::Vote`] can have, such as height 0.
    #[derive(Deserialize)]
    struct Case {
        name: String,
        chain_id: String,
        r#type: u64,
        height: i64,
        round: i64,
        timestamp: RawTimestamp,
        block_id: Option<()>,
        want: String,
    }

    #[derive(Deserialize)]
    struct RawTimestamp {
        seconds: i64,
        nanos: i32,
    }

    #[test]
    fn votes_encode_as_in_cometbfts_own_test_vectors() {
        let text = include_str!("../../../tests/vectors/cometbft/vote_sign_bytes.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        assert_eq!(vectors.cases.len(), 6);
        for case in vectors.cases {
            assert_eq!(case.block_id, None);
            let canonical = CanonicalVote {
                vote_type: case.r#type,
                height: case.height,
                round: case.round,
                block_id: None,
                timestamp: Timestamp::new(case.timestamp.seconds, case.timestamp.nanos).unwrap(),
                chain_id: &case.chain_id,
            };
            assert_eq!(hex::encode(canonical.encode()), case.want, "{}", case.name);
        }
    }

    #[test]
    fn a_timestamp_of_zero_is_an_empty_message_and_not_left_out() {
        let timestamp = Timestamp::new(0, 0).unwrap();
        let canonical = CanonicalVote {
            vote_type: 0,
            height: 0,
            round: 0,
            block_id: None,
            timestamp,
            chain_id: "",
        };
        assert_eq!(canonical.encode(), [2, 0x2a, 0]);
    }
}
