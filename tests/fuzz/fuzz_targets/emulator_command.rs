//! Frames sent to the emulated YubiHSM2: each is answered with one frame that fits its buffer.

#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use yubihsm_emulator::EMULATOR_SERIALS;
use yubihsm_emulator::device::Device;

thread_local! {
    static DEVICE: RefCell<Device> = RefCell::new(
        Device::manufacture(*EMULATOR_SERIALS.start(), (2, 4, 1), Duration::ZERO).unwrap(),
    );
}

fuzz_target!(|commands: Vec<(u8, Vec<u8>)>| {
    DEVICE.with_borrow_mut(|device| {
        let mut now = Duration::ZERO;
        device.power_cycle(now);
        for (seconds, command) in commands {
            now += Duration::from_secs(seconds.into());
            let answer = device.handle(now, &command);
            assert!((3..=device.buffer_length()).contains(&answer.frame.len()));
        }
    });
});
