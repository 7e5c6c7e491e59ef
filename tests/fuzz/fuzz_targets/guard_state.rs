//! What the journal yields to the guard: a snapshot, then entries, each after its length in two bytes. The
//! marks that are accepted come back the same from a snapshot of them.

#![no_main]

use hsm_journal::State as _;
use hsm_proto::v1::{PinnedKey, Snapshot};
use hsmd::guard::State;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (taken, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(taken)
}

/// The keys and their marks in a snapshot, in one order. Signatures are left out: they forbid nothing.
fn marks(snapshot: &[u8]) -> Vec<PinnedKey> {
    let mut keys = Snapshot::decode(snapshot).unwrap().keys;
    for mark in keys.iter_mut().flat_map(|key| &mut key.marks) {
        mark.signature.clear();
        mark.extension_signature.clear();
    }
    keys.sort_by_key(|key| key.encode_to_vec());
    keys
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    let Some(Ok(mut state)) = take(&mut bytes).map(State::restore) else {
        return;
    };
    let mut index = 0;
    while let Some(leaf) = take(&mut bytes) {
        if state.apply(index, leaf).is_err() {
            return;
        }
        index += 1;
    }
    let snapshot = state.snapshot();
    let again = State::restore(&snapshot).unwrap().snapshot();
    assert_eq!(marks(&again), marks(&snapshot));
});
