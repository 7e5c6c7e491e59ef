//! Whatever comes: an answer, and no change that was not authorised.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes from outside of a session: an answer, and no change.
    #[test]
    fn arbitrary_frames_change_nothing(
        frames in vec((any::<u8>(), vec(any::<u8>(), 0..80), any::<bool>()), 1..8),
    ) {
        let mut device = device();
        let _open = admin(&mut device);
        let before = json(&device);
        for (command, data, framed) in frames {
            let head = frame::header(command % 16, data.len());
            let bytes = if framed { [&head[..], &data].concat() } else { data };
            let _ = plain(&mut device, START, &bytes);
        }
        prop_assert_eq!(json(&device), before);
    }

    /// Whatever comes within a session that is allowed nothing: an answer, and no change.
    #[test]
    fn arbitrary_commands_without_capabilities_change_nothing(
        commands in vec((any::<u8>(), vec(any::<u8>(), 0..120)), 1..8),
        raw in vec(any::<u8>(), 0..40),
    ) {
        let mut device = device();
        let mut session = session_with(&mut device, 0xffff, 0, 0);
        let before = json(&device);
        let _ = session.send_raw(&mut device, START, &raw).unwrap();
        for (command, data) in commands {
            if session.send(&mut device, START, command, &data).is_err() {
                // CLOSE SESSION wants no capability.
                session = Host::open(&mut device, START, 100, PASSWORD).unwrap();
            }
        }
        prop_assert_eq!(json(&device), before);
    }

    /// Whatever comes within a session that is allowed everything: an answer, and a state that a device can
    /// be in.
    #[test]
    fn arbitrary_commands_leave_a_state_that_comes_back(
        commands in vec(
            (0x40_u8..0x70, any::<[u8; 2]>(), any::<u16>(), 0_usize..8, vec(any::<u8>(), 0..70)),
            1..16,
        ),
    ) {
        let algorithms = [12, 15, 30, 31, 38, ED25519, 9, 0];
        let mut device = device();
        let mut session = admin(&mut device);
        for (command, id, domains, algorithm, tail) in commands {
            let id = u16::from_be_bytes([0, id[1] % 4]);
            let mut data = properties(id, domains, u64::MAX, algorithms[algorithm]);
            data.extend(&tail);
            for data in [&data, &data[..2].to_vec(), &tail] {
                if session.send(&mut device, START, command, data).is_err() {
                    let Ok(next) = Host::open(&mut device, START, 1, DEFAULT_PASSWORD) else {
                        // The key of the session was deleted or changed.
                        return Ok(());
                    };
                    session = next;
                }
            }
        }
        let state = serde_json::from_str(&json(&device)).unwrap();
        prop_assert!(Device::restore(state, (2, 4, 1), START).is_some());
    }
}
