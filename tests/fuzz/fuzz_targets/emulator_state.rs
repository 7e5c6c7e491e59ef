//! The state in a state file of the emulated YubiHSM2: what is taken comes back the same, and the device works.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use yubihsm_emulator::device::{DEFAULT_KEY_ID, Device, Firmware, State};

const FIRMWARE: Firmware = (2, 4, 1);
/// GET LOG ENTRIES, LIST OBJECTS, GET STORAGE INFO, GET OPTION of both lists, all without an effect.
const LOOKS: [&[u8]; 5] = [
    &[0x4d, 0, 0],
    &[0x48, 0, 0],
    &[0x41, 0, 0],
    &[0x50, 0, 1, 3],
    &[0x50, 0, 1, 4],
];

fuzz_target!(|input: &[u8]| {
    let Ok(state) = serde_json::from_slice::<State>(input) else {
        return;
    };
    let Some(mut device) = Device::restore(state, FIRMWARE, Duration::ZERO) else {
        return;
    };
    let taken = serde_json::to_value(device.state()).unwrap();
    let again: State = serde_json::from_value(taken.clone()).unwrap();
    let again = Device::restore(again, FIRMWARE, Duration::ZERO).unwrap();
    let mut expected = serde_json::to_value(again.state()).unwrap();
    let mut taken = taken;
    // Each start is an entry of the log.
    taken["audit"].take();
    expected["audit"].take();
    assert_eq!(taken, expected);
    for frame in LOOKS {
        if let Some(answer) = device.handle_unsealed(Duration::ZERO, DEFAULT_KEY_ID, frame) {
            assert!((3..=device.buffer_length()).contains(&answer.len()));
        }
    }
});
