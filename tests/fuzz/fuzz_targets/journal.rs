//! A journal's files: whatever stands in them, reading and opening end with entries or an error. After damage
//! to a real journal only entries come out that went in, in their places.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use hsm_journal::{Journal, Options, State, is_snapshot_leaf};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A head that knows of no segment, so that all that stands in the segments is looked at.
const HEAD: &str = "hsm-journal head v1\nsegment 0\nsha256 svJzgBOFoshJJUV6wVcWmthfHWiTBDEfT4sEWXhjSiU=\n";

#[derive(Arbitrary, Debug)]
enum Input {
    /// A segment of any bytes.
    Raw(Vec<u8>),
    /// A real journal, some of whose bytes are changed, cut off or added.
    Damaged {
        first_segment: bool,
        changes: Vec<(u16, u8)>,
        length: Option<u16>,
        added: Vec<u8>,
    },
    /// A segment whose digests are right, although nobody wrote it.
    Forged(Forged),
}

#[derive(Arbitrary, Debug)]
struct Forged {
    number: u64,
    salt: u64,
    size: u64,
    length: u64,
    previous: [u8; 32],
    cut: [u64; 3],
    owner: Vec<u8>,
    frames: Vec<Payload>,
    after: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Leaves(Vec<Vec<u8>>),
    Raw(Vec<u8>),
}

/// The owner's state: all entries.
#[derive(Debug, Default)]
struct Leaves(Vec<Vec<u8>>);

impl State for Leaves {
    fn restore(snapshot: &[u8]) -> Result<Self, String> {
        decode_leaves(snapshot)
            .map(Self)
            .ok_or_else(|| "the snapshot ends in a leaf".to_owned())
    }

    fn apply(&mut self, _: u64, leaf: &[u8]) -> Result<(), String> {
        self.0.push(leaf.to_vec());
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        encode_leaves(&self.0)
    }
}

fn encode_leaves(leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for leaf in leaves {
        let leaf = leaf.get(..65_535).unwrap_or(leaf);
        bytes.extend_from_slice(&(leaf.len() as u16).to_be_bytes());
        bytes.extend_from_slice(leaf);
    }
    bytes
}

fn decode_leaves(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut leaves = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (leaf, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        leaves.push(leaf.to_vec());
        bytes = rest;
    }
    Some(leaves)
}

/// Two segments of a real journal, and the owner's entries in them.
struct Real {
    segments: [Vec<u8>; 2],
    leaves: Vec<Vec<u8>>,
}

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

fn open(directory: &Path) -> Result<(Journal, Leaves), hsm_journal::Error> {
    let opened = hsm_journal::open::<Leaves>(directory, options())?;
    Ok((opened.journal, opened.state))
}

fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let leaves: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 40 * usize::from(n)]).collect();
        hsm_journal::create(directory.path(), &[], &leaves[0]).unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for leaf in &leaves[1..] {
            let ticket = journal.append(leaf.clone()).unwrap();
            runtime.block_on(journal.durable(ticket)).unwrap();
        }
        journal.close().unwrap();
        let segments =
            [1, 2].map(|number| fs::read(segment_path(directory.path(), number)).unwrap());
        assert_eq!(read(directory.path()), leaves);
        Real { segments, leaves }
    })
}

fn segment_path(directory: &Path, number: u64) -> std::path::PathBuf {
    directory.join(format!("segment-{number:010}.log"))
}

impl Forged {
    fn bytes(&self) -> Vec<u8> {
        let mut snapshot = self.length.to_be_bytes().to_vec();
        snapshot.extend([7; 32].repeat(self.size.count_ones() as usize));
        snapshot.extend_from_slice(&self.owner);
        let mut bytes = Vec::new();
        let mut previous = self.seal(&mut bytes, 1, 0, self.size, self.previous, &snapshot);
        let mut first = self.size;
        let opening = [Payload::Leaves(vec![self.snapshot_leaf(&snapshot)])];
        for (place, payload) in opening.iter().chain(&self.frames).enumerate() {
            let (payload, leaves) = match payload {
                Payload::Leaves(leaves) => (encode_leaves(leaves), leaves.len()),
                Payload::Raw(bytes) => (
                    bytes.clone(),
                    decode_leaves(bytes).map_or(1, |leaves| leaves.len()),
                ),
            };
            previous = self.seal(&mut bytes, 2, place as u64 + 1, first, previous, &payload);
            first = first.wrapping_add(leaves as u64);
        }
        bytes.extend_from_slice(&self.after);
        bytes
    }

    fn snapshot_leaf(&self, snapshot: &[u8]) -> Vec<u8> {
        let mut leaf = b"hsm-journal snapshot v1\n".to_vec();
        for number in [
            self.number,
            self.size,
            self.cut[0],
            self.cut[1],
            self.cut[2],
        ] {
            leaf.extend_from_slice(&number.to_be_bytes());
        }
        leaf.extend_from_slice(&Sha256::digest(snapshot));
        leaf
    }

    /// Adds a frame with a right digest, which it returns.
    fn seal(
        &self,
        bytes: &mut Vec<u8>,
        kind: u8,
        sequence: u64,
        first: u64,
        previous: [u8; 32],
        payload: &[u8],
    ) -> [u8; 32] {
        let mut fields = b"HSMJNL\x01".to_vec();
        fields.push(kind);
        for number in [
            self.number,
            self.salt,
            sequence,
            first,
            payload.len() as u64,
        ] {
            fields.extend_from_slice(&number.to_be_bytes());
        }
        fields.extend_from_slice(&previous);
        let covered = match kind {
            2 => decode_leaves(payload).unwrap_or_default(),
            _ => Vec::new(),
        };
        let covered = covered
            .iter()
            .flat_map(|leaf| Sha256::new().chain_update([0]).chain_update(leaf).finalize());
        let covered: Vec<u8> = match kind {
            2 => covered.collect(),
            _ => payload.to_vec(),
        };
        let digest: [u8; 32] = Sha256::new()
            .chain_update(&fields)
            .chain_update(covered)
            .finalize()
            .into();
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(&digest);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        digest
    }
}

/// The owner's entries that can be read, up to the first error.
fn read(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(reader) = hsm_journal::read(directory) else {
        return Vec::new();
    };
    let leaves = reader.map_while(Result::ok).map(|entry| entry.leaf);
    leaves.filter(|leaf| !is_snapshot_leaf(leaf)).collect()
}

fuzz_target!(|input: Input| {
    // In memory: what a disk does is not looked at here.
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let directory = directory.path();
    fs::write(directory.join("head"), HEAD).unwrap();
    let original = match input {
        Input::Raw(bytes) => {
            fs::write(segment_path(directory, 1), bytes).unwrap();
            None
        }
        Input::Forged(forged) => {
            fs::write(segment_path(directory, forged.number), forged.bytes()).unwrap();
            None
        }
        Input::Damaged {
            first_segment,
            changes,
            length,
            added,
        } => {
            let real = real();
            let mut segments = real.segments.clone();
            let segment = &mut segments[usize::from(!first_segment)];
            for (place, byte) in changes {
                let place = usize::from(place) % segment.len();
                segment[place] = byte;
            }
            if let Some(length) = length {
                segment.truncate(length.into());
            }
            segment.extend_from_slice(&added);
            for (number, bytes) in (1..).zip(segments) {
                fs::write(segment_path(directory, number), bytes).unwrap();
            }
            Some(&real.leaves)
        }
    };
    let read = read(directory);
    let opened = open(directory).ok().map(|(journal, state)| {
        let _ = journal.close();
        state.0
    });
    if let Some(original) = original {
        assert!(original.starts_with(&read), "read {read:?}");
        assert!(opened.is_none_or(|opened| original.starts_with(&opened)));
    }
});
