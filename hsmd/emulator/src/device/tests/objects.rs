//! What is stored, how much of it, and what is logged.

use super::*;

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
    while usize::from(device.audit.used()) < LOG_LIMIT {
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
