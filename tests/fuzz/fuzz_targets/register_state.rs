//! A snapshot and an entry of hsm-enroll's register: what is taken comes back the same from a snapshot.

#![no_main]

use hsm_enroll::register::State;
use hsm_journal::State as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (snapshot, leaf) = input;
    let Ok(mut state) = State::restore(snapshot) else {
        return;
    };
    let _ = state.apply(1, leaf);
    let again = State::restore(&state.snapshot()).unwrap();
    assert_eq!(again, state);
});
