//! Capabilities, delegated capabilities and domains.

use super::*;

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
