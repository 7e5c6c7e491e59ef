//! The device's rules, through frames; no HTTP.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::scp03::host::{Host, plain, static_keys};
use super::*;

const START: Duration = Duration::ZERO;
const PASSWORD: &[u8] = b"test";
const ED25519: u8 = 46;
const SIGN_EDDSA_CAPABILITY: u64 = 1 << 8;

fn device() -> Device {
    Device::manufacture(*EMULATOR_SERIALS.start(), (2, 4, 1), START).unwrap()
}

fn admin(device: &mut Device) -> Host {
    Host::open(device, START, DEFAULT_KEY_ID, DEFAULT_PASSWORD).unwrap()
}

/// Identifier, label, domains, capabilities and algorithm, as every command that makes an object has them.
fn properties(id: u16, domains: u16, capabilities: u64, algorithm: u8) -> Vec<u8> {
    let (id, domains) = (id.to_be_bytes(), domains.to_be_bytes());
    [
        &id[..],
        &[b'x'; 40],
        &domains,
        &capabilities.to_be_bytes(),
        &[algorithm],
    ]
    .concat()
}

/// A further authentication key, and a session opened with it.
fn session_with(device: &mut Device, domains: u16, capabilities: u64, delegated: u64) -> Host {
    let mut data = properties(100, domains, capabilities, 38);
    data.extend(delegated.to_be_bytes());
    data.extend(static_keys(PASSWORD));
    admin(device)
        .send(device, START, 0x44, &data)
        .unwrap()
        .unwrap();
    Host::open(device, START, 100, PASSWORD).unwrap()
}

fn code(error: ErrorCode) -> Result<Vec<u8>, u8> {
    Err(error.byte())
}

#[test]
fn the_seventeenth_session_is_refused_until_one_expires() {
    let mut device = device();
    let mut sessions: Vec<Host> = (0..16).map(|_| admin(&mut device)).collect();
    let full = Some(ErrorCode::SessionsFull.byte());
    assert_eq!(
        Host::create(&mut device, START, 1, DEFAULT_PASSWORD).err(),
        full
    );

    let later = START + SESSION_IDLE_LIMIT;
    assert_eq!(
        sessions[0]
            .send(&mut device, later, 0x01, b"still here")
            .unwrap()
            .unwrap(),
        b"still here"
    );
    let too_late = later + Duration::from_millis(1);
    let gone = sessions[1].send(&mut device, too_late, 0x01, b"");
    assert_eq!(gone.unwrap_err(), ErrorCode::InvalidSession.byte());
    Host::create(&mut device, too_late, 1, DEFAULT_PASSWORD).unwrap();
}

#[test]
fn a_closed_session_is_gone() {
    let mut device = device();
    let mut session = admin(&mut device);
    session
        .send(&mut device, START, 0x40, b"")
        .unwrap()
        .unwrap();
    let refused = session.send(&mut device, START, 0x01, b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidSession.byte());
}

#[test]
fn a_wrong_password_is_refused_and_ends_the_session() {
    let mut device = device();
    let refused = Host::open(&mut device, START, 1, b"wrong").err();
    assert_eq!(refused, Some(ErrorCode::AuthenticationFailed.byte()));
    for _ in 0..16 {
        admin(&mut device);
    }
}

#[test]
fn an_unknown_authentication_key_is_not_found() {
    let mut device = device();
    let refused = Host::open(&mut device, START, 9, PASSWORD).err();
    assert_eq!(refused, Some(ErrorCode::ObjectNotFound.byte()));
}

#[test]
fn a_message_in_a_session_that_is_not_authenticated_is_refused() {
    let mut device = device();
    let mut session = Host::create(&mut device, START, 1, DEFAULT_PASSWORD).unwrap();
    let refused = session.send(&mut device, START, 0x01, b"");
    assert_eq!(refused.unwrap_err(), ErrorCode::InvalidSession.byte());
}

#[test]
fn a_repeated_message_is_refused_and_ends_the_session() {
    let mut device = device();
    let mut session = admin(&mut device);
    let frame = session.authenticated(0x05, &[0; 16]);
    // Not a padded plaintext, but the code is right.
    let failed = code(ErrorCode::AuthenticationFailed);
    assert_eq!(plain(&mut device, START, &frame), failed);
    assert_eq!(
        plain(&mut device, START, &frame),
        code(ErrorCode::InvalidSession)
    );
}

#[test]
fn frames_of_the_wrong_length_are_refused() {
    let mut device = device();
    let mut session = admin(&mut device);
    let wrong = code(ErrorCode::WrongLength);
    for frame in [
        &[][..],
        &[1],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0, 0, 0],
        &[5, 0, 1, 0],
        &[3, 0, 2, 0, 1],
    ] {
        assert_eq!(plain(&mut device, START, frame), wrong, "{frame:?}");
    }
    let longest = device.buffer_length() - 1;
    let echo = |length: usize| [&frame::header(1, length - 3)[..], &vec![0; length - 3]].concat();
    assert!(plain(&mut device, START, &echo(longest)).is_ok());
    assert_eq!(plain(&mut device, START, &echo(longest + 1)), wrong);

    for plaintext in [
        &[][..],
        &[1],
        &[1, 0, 5, 0],
        &[0x54, 0, 1, 0],
        &[0x54, 0, 3, 0, 1, 0],
    ] {
        let answer = session.send_raw(&mut device, START, plaintext).unwrap();
        assert_eq!(answer, wrong, "{plaintext:?}");
    }
}

#[test]
fn unknown_and_misplaced_commands_are_invalid() {
    let mut device = device();
    let mut session = admin(&mut device);
    let invalid = code(ErrorCode::InvalidCommand);
    for command in [0x00, 0x07, 0x0a, 0x48, 0x6a, 0xff] {
        assert_eq!(
            plain(&mut device, START, &[command, 0, 0]),
            invalid,
            "outside: {command:#x}"
        );
    }
    for command in [0x00, 0x03, 0x04, 0x05, 0x47, 0x77, 0xff] {
        let answer = session.send(&mut device, START, command, b"").unwrap();
        assert_eq!(answer, invalid, "inside: {command:#x}");
    }
}

#[test]
fn every_command_wants_its_capability() {
    let mut device = device();
    admin(&mut device)
        .send(
            &mut device,
            START,
            0x46,
            &properties(5, 0xffff, u64::MAX, ED25519),
        )
        .unwrap()
        .unwrap();
    let mut session = session_with(&mut device, 0xffff, 0, u64::MAX);
    let with_keys = [properties(6, 1, 0, 38), vec![0; 40]].concat();
    let cases: &[(u8, Vec<u8>)] = &[
        (0x08, vec![]),
        (0x42, [properties(6, 1, 0, 30), vec![1]].concat()),
        (0x43, vec![0, 0]),
        (0x44, with_keys),
        (0x45, [properties(6, 1, 0, ED25519), vec![1; 32]].concat()),
        (0x46, properties(6, 1, 0, ED25519)),
        (0x4d, vec![]),
        (0x4f, vec![1, 0, 1, 0]),
        (0x50, vec![1]),
        (0x51, vec![0, 8]),
        (0x56, [vec![0, 5], vec![0; 32]].concat()),
        (0x58, vec![0, 5, 3]),
        (0x67, vec![0, 1]),
        (0x6a, vec![0, 5, 1]),
        (0x6c, [vec![0, 100, 38], vec![0; 32]].concat()),
    ];
    for (command, data) in cases {
        let answer = session.send(&mut device, START, *command, data).unwrap();
        assert_eq!(
            answer,
            code(ErrorCode::InsufficientPermissions),
            "{command:#x}"
        );
    }
    // These want none.
    for (command, data) in [
        (0x01, &[][..]),
        (0x41, &[]),
        (0x48, &[]),
        (0x4e, &[0, 5, 3]),
        (0x54, &[0, 5]),
    ] {
        assert!(
            session
                .send(&mut device, START, command, data)
                .unwrap()
                .is_ok(),
            "{command:#x}"
        );
    }
}

#[test]
fn a_session_gives_only_what_was_delegated_to_it() {
    let mut device = device();
    let generate = 1 << 4;
    let mut session = session_with(&mut device, 0b11, generate, SIGN_EDDSA_CAPABILITY);
    let denied = code(ErrorCode::InsufficientPermissions);
    let cases = [
        (0b01, SIGN_EDDSA_CAPABILITY, Ok(vec![0, 7])),
        (0b01, SIGN_EDDSA_CAPABILITY | 1, denied.clone()),
        (0b100, SIGN_EDDSA_CAPABILITY, denied),
        (0, SIGN_EDDSA_CAPABILITY, code(ErrorCode::InvalidData)),
    ];
    for (domains, capabilities, expected) in cases {
        let data = properties(7, domains, capabilities, ED25519);
        let answer = session.send(&mut device, START, 0x46, &data).unwrap();
        assert_eq!(
            answer, expected,
            "domains {domains:#b}, capabilities {capabilities:#x}"
        );
    }
}

#[test]
fn objects_of_other_domains_do_not_exist() {
    let mut device = device();
    let key = properties(7, 0b10, u64::MAX, ED25519);
    admin(&mut device)
        .send(&mut device, START, 0x46, &key)
        .unwrap()
        .unwrap();
    let mut session = session_with(&mut device, 0b01, u64::MAX, u64::MAX);
    for (command, data) in [
        (0x4e, &[0, 7, 3][..]),
        (0x54, &[0, 7]),
        (0x58, &[0, 7, 3]),
        (0x6a, &[0, 7, 1]),
    ] {
        let answer = session.send(&mut device, START, command, data).unwrap();
        assert_eq!(answer, code(ErrorCode::ObjectNotFound), "{command:#x}");
    }
    let of_type_asymmetric = session.send(&mut device, START, 0x48, &[2, 3]).unwrap();
    assert_eq!(of_type_asymmetric, Ok(vec![]));
}

#[test]
fn a_key_without_the_capability_does_not_sign() {
    let mut device = device();
    let mut session = admin(&mut device);
    session
        .send(&mut device, START, 0x46, &properties(7, 1, 0, ED25519))
        .unwrap()
        .unwrap();
    let answer = session.send(&mut device, START, 0x6a, &[0, 7, 1]).unwrap();
    assert_eq!(answer, code(ErrorCode::InsufficientPermissions));
}

#[test]
fn objects_are_not_overwritten_and_sequences_count_what_was_there() {
    let mut device = device();
    let mut session = admin(&mut device);
    let key = properties(7, 1, 0, ED25519);
    for sequence in 0..300_u16 {
        session
            .send(&mut device, START, 0x46, &key)
            .unwrap()
            .unwrap();
        let again = session.send(&mut device, START, 0x46, &key).unwrap();
        assert_eq!(again, code(ErrorCode::ObjectExists));
        let listed = session
            .send(&mut device, START, 0x48, &[1, 0, 7])
            .unwrap()
            .unwrap();
        assert_eq!(listed, [0, 7, 3, sequence.to_be_bytes()[1]]);
        session
            .send(&mut device, START, 0x58, &[0, 7, 3])
            .unwrap()
            .unwrap();
    }
}

#[test]
fn reserved_identifiers_are_refused_and_zero_lets_the_device_choose() {
    let mut device = device();
    let mut session = admin(&mut device);
    let reserved = session
        .send(&mut device, START, 0x46, &properties(0xffff, 1, 0, ED25519))
        .unwrap();
    assert_eq!(reserved, code(ErrorCode::InvalidId));
    let chosen = session
        .send(&mut device, START, 0x46, &properties(0, 1, 0, ED25519))
        .unwrap()
        .unwrap();
    assert!(![[0, 0], [0xff, 0xff]].contains(&[chosen[0], chosen[1]]));
}

#[test]
fn the_store_ends_at_256_objects() {
    let mut device = device();
    let mut session = admin(&mut device);
    let opaque = |id| [properties(id, 1, 0, 30), vec![0]].concat();
    for id in 1..256 {
        session
            .send(&mut device, START, 0x42, &opaque(id))
            .unwrap()
            .unwrap();
    }
    let full = session
        .send(&mut device, START, 0x42, &opaque(256))
        .unwrap();
    assert_eq!(full, code(ErrorCode::StorageFailed));
    let storage = session
        .send(&mut device, START, 0x41, b"")
        .unwrap()
        .unwrap();
    assert_eq!(storage[..4], [1, 0, 0, 0]);
}

#[test]
fn the_store_ends_at_126_kilobytes() {
    let mut device = device();
    let mut session = admin(&mut device);
    // 16 pages each; the authentication key takes one page, so that 63 fit and 15 pages are left.
    let opaque = |id, pages| [properties(id, 1, 0, 30), vec![0; pages * PAGE_LENGTH]].concat();
    for id in 1..=63 {
        session
            .send(&mut device, START, 0x42, &opaque(id, 16))
            .unwrap()
            .unwrap();
    }
    let full = session
        .send(&mut device, START, 0x42, &opaque(64, 16))
        .unwrap();
    assert_eq!(full, code(ErrorCode::StorageFailed));
    session
        .send(&mut device, START, 0x42, &opaque(64, 15))
        .unwrap()
        .unwrap();
    let storage = session
        .send(&mut device, START, 0x41, b"")
        .unwrap()
        .unwrap();
    assert_eq!(storage[4..], [4, 0, 0, 0, 0, 126]);
}

#[test]
fn eddsa_messages_end_at_2019_bytes() {
    let mut device = device();
    let mut session = admin(&mut device);
    let key = properties(7, 1, SIGN_EDDSA_CAPABILITY, ED25519);
    session
        .send(&mut device, START, 0x46, &key)
        .unwrap()
        .unwrap();
    let message = |length| [vec![0, 7], vec![1; length]].concat();
    let longest = session
        .send(&mut device, START, 0x6a, &message(EDDSA_MESSAGE_LIMIT))
        .unwrap();
    assert_eq!(longest.unwrap().len(), 64);
    let longer = session
        .send(&mut device, START, 0x6a, &message(EDDSA_MESSAGE_LIMIT + 1))
        .unwrap();
    assert_eq!(longer, code(ErrorCode::WrongLength));
}

#[test]
fn a_changed_authentication_key_opens_the_next_session() {
    let mut device = device();
    let mut session = admin(&mut device);
    let changed = [&[0, 1, 38][..], &static_keys(PASSWORD)].concat();
    assert_eq!(
        session.send(&mut device, START, 0x6c, &changed).unwrap(),
        Ok(vec![0, 1])
    );
    assert!(Host::open(&mut device, START, 1, DEFAULT_PASSWORD).is_err());
    Host::open(&mut device, START, 1, PASSWORD).unwrap();
    let another = [&[0, 2, 38][..], &static_keys(PASSWORD)].concat();
    let refused = session.send(&mut device, START, 0x6c, &another).unwrap();
    assert_eq!(refused, code(ErrorCode::InvalidId));
}

#[test]
fn reset_brings_the_factory_state_back_and_keeps_the_certificate() {
    let mut device = device();
    let mut session = admin(&mut device);
    let certificate = session.send(&mut device, START, 0x43, &[0, 0]).unwrap();
    session
        .send(&mut device, START, 0x46, &properties(7, 1, 0, ED25519))
        .unwrap()
        .unwrap();
    session
        .send(&mut device, START, 0x08, b"")
        .unwrap()
        .unwrap();
    let gone = session.send(&mut device, START, 0x01, b"");
    assert_eq!(gone.unwrap_err(), ErrorCode::InvalidSession.byte());

    let mut session = admin(&mut device);
    assert_eq!(
        session.send(&mut device, START, 0x48, b"").unwrap(),
        Ok(vec![0, 1, 2, 0])
    );
    assert_eq!(
        session.send(&mut device, START, 0x43, &[0, 0]).unwrap(),
        certificate
    );
    assert!(
        certificate
            .unwrap()
            .windows(8)
            .any(|part| part == EMULATOR_MARK.as_bytes())
    );
}

#[test]
fn a_full_log_under_force_audit_stops_what_it_should_record() {
    let mut device = device();
    let mut session = admin(&mut device);
    let set = |session: &mut Host, device: &mut Device, data: &[u8]| {
        session.send(device, START, 0x4f, data).unwrap().unwrap();
    };
    set(
        &mut session,
        &mut device,
        &[3, 0, 6, 0x01, 1, 0x03, 1, 0x04, 1],
    );
    set(&mut session, &mut device, &[1, 0, 1, 1]);
    for _ in 2..LOG_LIMIT {
        session
            .send(&mut device, START, 0x01, b"")
            .unwrap()
            .unwrap();
    }
    let refused = session.send(&mut device, START, 0x01, b"").unwrap();
    assert_eq!(refused, code(ErrorCode::LogFull));
    let mut second = admin(&mut device);

    let log = session
        .send(&mut device, START, 0x4d, b"")
        .unwrap()
        .unwrap();
    assert_eq!(
        log[..5],
        [0, 0, 0, 2, 62],
        "both commands of the second session are only counted"
    );
    let entries = log[5..].as_chunks::<32>().0;
    for pair in entries.windows(2) {
        let [before, after] = pair else { panic!() };
        use sha2::Digest as _;
        let digest = Sha256::new()
            .chain_update(&after[..16])
            .chain_update(&before[16..])
            .finalize();
        assert_eq!(after[16..], digest[..16]);
    }
    let last = entries.last().unwrap();
    second
        .send(&mut device, START, 0x67, &last[..2])
        .unwrap()
        .unwrap();
    session
        .send(&mut device, START, 0x01, b"")
        .unwrap()
        .unwrap();
}

#[test]
fn a_state_comes_back_as_it_was() {
    let mut device = device();
    let mut session = admin(&mut device);
    for (id, algorithm) in [(7, 12), (8, 15), (9, ED25519)] {
        session
            .send(&mut device, START, 0x46, &properties(id, 1, 0, algorithm))
            .unwrap()
            .unwrap();
    }
    session
        .send(&mut device, START, 0x58, &[0, 9, 3])
        .unwrap()
        .unwrap();
    let list = session.send(&mut device, START, 0x48, b"").unwrap();
    let key = session.send(&mut device, START, 0x54, &[0, 8]).unwrap();

    let json = serde_json::to_string(&device.state()).unwrap();
    let mut again =
        Device::restore(serde_json::from_str(&json).unwrap(), (2, 4, 1), START).unwrap();
    let mut session = admin(&mut again);
    assert_eq!(session.send(&mut again, START, 0x48, b"").unwrap(), list);
    assert_eq!(session.send(&mut again, START, 0x54, &[0, 8]).unwrap(), key);
    session
        .send(&mut again, START, 0x46, &properties(9, 1, 0, ED25519))
        .unwrap()
        .unwrap();
    let listed = session.send(&mut again, START, 0x48, &[1, 0, 9]).unwrap();
    assert_eq!(listed, Ok(vec![0, 9, 3, 1]), "the sequence goes on");
}

fn json(device: &Device) -> String {
    serde_json::to_string(&device.state()).unwrap()
}

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
