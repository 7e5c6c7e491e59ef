//! Commands of an authenticated session of the emulated YubiHSM2: each is answered with one frame, and one that is
//! refused changes no object.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use yubihsm_emulator::EMULATOR_SERIALS;
use yubihsm_emulator::device::{DEFAULT_KEY_ID, Device, Firmware, State};

const FIRMWARE: Firmware = (2, 4, 1);

/// A new device's state: making one derives a key from a password, which takes as long as a hundred commands.
static NEW: LazyLock<String> = LazyLock::new(|| {
    let device = Device::manufacture(*EMULATOR_SERIALS.start(), FIRMWARE, Duration::ZERO).unwrap();
    serde_json::to_string(&device.state()).unwrap()
});

/// Commands that take too long to try many of them: RSA keys are made in seconds, a reset derives a key.
fn is_slow(frame: &[u8]) -> bool {
    const RESET: u8 = 0x08;
    const GENERATE: [u8; 2] = [0x46, 0x5b];
    const RSA: [u8; 3] = [9, 10, 11];
    /// Behind the header: identifier, label, domains, capabilities.
    const ALGORITHM: usize = 3 + 2 + 40 + 2 + 8;
    frame[0] == RESET
        || (GENERATE.contains(&frame[0]) && frame.get(ALGORITHM).is_some_and(|a| RSA.contains(a)))
}

/// The next frame and what follows it, cut short where the input ends.
fn next(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, high, low], _) = input.split_first_chunk::<3>()?;
    let length = 3 + usize::from(u16::from_be_bytes([high, low]));
    Some(input.split_at(length.min(input.len())))
}

fn objects(device: &Device) -> serde_json::Value {
    serde_json::to_value(device.state()).unwrap()["objects"].take()
}

fuzz_target!(|input: &[u8]| {
    let state: State = serde_json::from_str(&NEW).unwrap();
    let mut device = Device::restore(state, FIRMWARE, Duration::ZERO).unwrap();
    let mut rest = input;
    while let Some((frame, behind)) = next(rest) {
        rest = behind;
        if is_slow(frame) {
            continue;
        }
        let (before, revision) = (objects(&device), device.revision());
        let Some(answer) = device.handle_unsealed(Duration::ZERO, DEFAULT_KEY_ID, frame) else {
            // The session's key was deleted.
            return;
        };
        assert!((3..=device.buffer_length()).contains(&answer.len()));
        let refused = answer[0] == 0x7f;
        if refused && device.revision() != revision {
            assert_eq!(objects(&device), before, "refused: {frame:02x?}");
        }
    }
});
