//! Frames: the checksummed unit of writing. `README.md` gives their layout.

use sha2::{Digest, Sha256};

use crate::tree::{Hash, leaf_hash};

/// Frames begin on multiples of this many bytes: the unit that every drive writes whole, so that
/// writing a frame never touches a sector of an earlier one.
pub(crate) const SECTOR: u64 = 512;

/// Bytes before the payload: the fields, and the digest over fields and payload.
pub(crate) const PREFIX: usize = FIELDS + 32;
pub(crate) const FIELDS: usize = 80;

pub(crate) const MAGIC: [u8; 6] = *b"HSMJNL";
pub(crate) const VERSION: u8 = 2;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot = 1,
    Entries = 2,
}

/// The fields of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Random, one a segment: a leaf cannot imitate a frame, because its author cannot know it.
    pub(crate) salt: u64,
    /// Place in the segment; the snapshot is 0.
    pub(crate) sequence: u64,
    /// Index of the first leaf; in a snapshot the size of the tree.
    pub(crate) first: u64,
    /// Bytes of payload.
    pub(crate) length: u64,
    /// Digest of the frame before; in a snapshot, of the last frame that counts in the segment before.
    pub(crate) previous: Hash,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIELDS);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8]);
        for number in [
            self.segment,
            self.salt,
            self.sequence,
            self.first,
            self.length,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.previous);
        bytes
    }

    /// Reads the fields and the digest; `None` if these bytes do not begin a frame of this version.
    pub(crate) fn decode(prefix: &[u8; PREFIX]) -> Option<(Self, Hash)> {
        let (magic, rest) = prefix.split_first_chunk::<6>()?;
        let ([version, kind], rest) = rest.split_first_chunk::<2>()?;
        let kind = match kind {
            1 => Kind::Snapshot,
            2 => Kind::Entries,
            _ => return None,
        };
        if *magic != MAGIC || *version != VERSION {
            return None;
        }
        let (segment, rest) = number(rest)?;
        let (salt, rest) = number(rest)?;
        let (sequence, rest) = number(rest)?;
        let (first, rest) = number(rest)?;
        let (length, rest) = number(rest)?;
        let (previous, digest) = rest.split_first_chunk::<32>()?;
        let header = Self {
            kind,
            segment,
            salt,
            sequence,
            first,
            length,
            previous: *previous,
        };
        Some((header, digest.try_into().ok()?))
    }
}

/// A big-endian number and what follows it.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// Bytes that a frame with this much payload takes up in the file.
pub(crate) fn size(payload: usize) -> u64 {
    (PREFIX as u64 + payload as u64).next_multiple_of(SECTOR)
}

/// The frame's bytes, padded with zeros to whole sectors, and its digest, which covers `covered`: of a
/// snapshot the payload, of entries the hashes of their leaves.
pub(crate) fn encode(header: &Header, payload: &[u8], covered: &[u8]) -> (Vec<u8>, Hash) {
    let fields = header.encode();
    let digest = digest(&fields, covered);
    let padding = size(payload.len()) - (PREFIX + payload.len()) as u64;
    let mut bytes = Vec::with_capacity(PREFIX + payload.len() + padding as usize);
    bytes.extend_from_slice(&fields);
    bytes.extend_from_slice(&digest);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len() + padding as usize, 0);
    (bytes, digest)
}

/// SHA-256 over the fields and what else is covered.
pub(crate) fn digest(fields: &[u8], covered: &[u8]) -> Hash {
    Sha256::new()
        .chain_update(fields)
        .chain_update(covered)
        .finalize()
        .into()
}

/// The payload of an entries frame: each leaf after its length in two bytes, big-endian, as in a C2SP
/// tlog-tiles entry bundle.
pub(crate) fn encode_leaves(leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(payload_size(leaves));
    for leaf in leaves {
        // Nothing longer than MAX_LEAF is ever queued.
        payload.extend_from_slice(&(leaf.len() as u16).to_be_bytes());
        payload.extend_from_slice(leaf);
    }
    payload
}

/// The frame of leaves.
pub(crate) struct Entries {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Hash,
    /// Of the leaves, in order.
    pub(crate) hashes: Vec<Hash>,
}

/// The frame of these leaves.
pub(crate) fn encode_entries(header: &Header, leaves: &[Vec<u8>]) -> Entries {
    let payload = encode_leaves(leaves);
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let header = Header {
        length: payload.len() as u64,
        ..header.clone()
    };
    let (bytes, digest) = encode(&header, &payload, hashes.as_flattened());
    Entries {
        bytes,
        digest,
        hashes,
    }
}

/// Bytes that these leaves take up in a payload.
pub(crate) fn payload_size(leaves: &[Vec<u8>]) -> usize {
    leaves.iter().map(|leaf| 2 + leaf.len()).sum()
}

/// The leaves of a payload; `None` if it does not end with a whole leaf.
pub(crate) fn decode_leaves(mut payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut leaves = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = payload.split_first_chunk::<2>()?;
        let (leaf, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        leaves.push(leaf.to_vec());
        payload = rest;
    }
    Some(leaves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_has_the_documented_bytes() {
        let header = Header {
            kind: Kind::Entries,
            segment: 3,
            salt: 0x0102_0304_0506_0708,
            sequence: 4,
            first: 5,
            length: 4,
            previous: [0xab; 32],
        };
        let Entries { bytes, digest, .. } = encode_entries(&header, &[b"hi".to_vec()]);
        let fields = [
            "48534d4a4e4c0202",
            "0000000000000003",
            "0102030405060708",
            "0000000000000004",
            "0000000000000005",
            "0000000000000004",
        ]
        .concat()
            + &"ab".repeat(32);
        assert_eq!(hex::encode(&bytes[..80]), fields);
        assert_eq!(bytes[80..112], digest);
        assert_eq!(bytes[112..116], *b"\x00\x02hi");
        assert_eq!(bytes[116..], [0; 512 - 116]);
        let leaf: Hash = Sha256::digest(b"\x00hi").into();
        let by_hand: Hash = Sha256::digest([&bytes[..80], &leaf].concat()).into();
        assert_eq!(digest, by_hand);
        let (snapshot, digest) = encode(&header, b"state", b"state");
        let by_hand: Hash = Sha256::digest([&snapshot[..80], b"state"].concat()).into();
        assert_eq!(digest, by_hand);
    }

    proptest! {
        #[test]
        fn headers_and_leaves_read_back_as_written(
            numbers in any::<[u64; 5]>(),
            previous in any::<Hash>(),
            snapshot in any::<bool>(),
            leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let [segment, salt, sequence, first, length] = numbers;
            let kind = if snapshot { Kind::Snapshot } else { Kind::Entries };
            let header = Header { kind, segment, salt, sequence, first, length, previous };
            let payload = encode_leaves(&leaves);
            let (bytes, digest) = encode(&header, &payload, &payload);
            prop_assert_eq!(bytes.len() as u64, size(payload.len()));
            let prefix: [u8; PREFIX] = bytes[..PREFIX].try_into().unwrap();
            prop_assert_eq!(Header::decode(&prefix), Some((header, digest)));
            prop_assert_eq!(decode_leaves(&payload), Some(leaves));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<[u8; PREFIX]>(), payload in any::<Vec<u8>>()) {
            let _ = Header::decode(&bytes);
            if let Some(leaves) = decode_leaves(&payload) {
                prop_assert_eq!(encode_leaves(&leaves), payload);
            }
        }
    }
}
