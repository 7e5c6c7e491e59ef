//! What the journal yields to the guard: a snapshot, then entries, each after its length in two bytes. What is
//! accepted comes back the same from a snapshot of it.

#![no_main]

use hsm_journal::State as _;
use hsmd::guard::State;
use libfuzzer_sys::fuzz_target;

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (taken, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(taken)
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
    let again = State::restore(&snapshot).map(|state| state.snapshot());
    assert_eq!(again, Ok(snapshot));
});
