//! What keys do, with known answers; what they refuse.

use super::*;

const ALL: u64 = u64::MAX;

/// Imports an object with every capability.
fn put(device: &mut Device, session: &mut Host, command: u8, id: u16, algorithm: u8, key: &[u8]) {
    let data = [&properties(id, 1, ALL, algorithm)[..], key].concat();
    session
        .send(device, START, command, &data)
        .unwrap()
        .unwrap();
}

#[test]
fn hmac_has_the_answers_of_rfc_4231() {
    let mut device = device();
    let mut session = admin(&mut device);
    // Test case 2.
    let expected = [
        (
            20,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            21,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
    ];
    for (algorithm, tag) in expected {
        let id = u16::from(algorithm);
        put(&mut device, &mut session, 0x52, id, algorithm, b"Jefe");
        let message = b"what do ya want for nothing?";
        let mut sign = |command, parts: &[&[u8]]| {
            let data = [&id.to_be_bytes()[..], &parts.concat()].concat();
            session.send(&mut device, START, command, &data).unwrap()
        };
        let tag = hex::decode(tag).unwrap();
        assert_eq!(sign(0x53, &[message]), Ok(tag.clone()));
        assert_eq!(sign(0x5c, &[&tag, message]), Ok(vec![1]));
        assert_eq!(sign(0x5c, &[&tag, b"other"]), Ok(vec![0]));
        assert_eq!(sign(0x5c, &[&tag[1..]]), code(ErrorCode::WrongLength));
    }
}

#[test]
fn aes_has_the_answers_of_sp_800_38a() {
    let mut device = device();
    let mut session = admin(&mut device);
    let hex = |text| hex::decode(text).unwrap();
    let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
    put(&mut device, &mut session, 0x6d, 7, 50, &key);
    let vector: Vec<u8> = (0..16).collect();
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let ecb = hex("3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf");
    let cbc = hex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
    for (command, vector, input, output) in [
        (0x70, &[][..], &plain, &ecb),
        (0x6f, &[], &ecb, &plain),
        (0x72, &vector, &plain, &cbc),
        (0x71, &vector, &cbc, &plain),
    ] {
        let data = [&[0, 7], vector, input].concat();
        let answer = session.send(&mut device, START, command, &data).unwrap();
        assert_eq!(answer.as_ref(), Ok(output), "{command:#x}");
        for wrong in [vector.len(), vector.len() + 15, vector.len() + 17] {
            let data = [vec![0, 7], vec![0; wrong]].concat();
            let answer = session.send(&mut device, START, command, &data).unwrap();
            assert_eq!(
                answer,
                code(ErrorCode::WrongLength),
                "{command:#x}, {wrong}"
            );
        }
    }
}

#[test]
fn one_time_passwords_have_the_counters_of_the_vendors_vectors() {
    let mut device = device();
    let mut session = admin(&mut device);
    for (id, algorithm, length) in [(1, 37, 16), (2, 39, 24), (3, 40, 32)] {
        let key = [vec![1, 2, 3, 4], vec![9; length]].concat();
        put(&mut device, &mut session, 0x65, id, algorithm, &key);
    }
    let mut send = |command, parts: &[&[u8]]| {
        session
            .send(&mut device, START, command, &parts.concat())
            .unwrap()
    };
    let secret: Vec<u8> = (0..16).chain(1..7).collect();
    // The vector "iikkijbdknrrdhfdrjltvgrbkkjblcbh", without modified hexadecimal.
    let otp = hex::decode("779978129bcc2642c8adf5c19981a016").unwrap();
    let first = send(0x61, &[&[0, 1], &secret]).unwrap();
    let second = send(0x63, &[&[0, 1, 0, 2], &first]).unwrap();
    let third = send(0x63, &[&[0, 2, 0, 3], &second]).unwrap();
    for (id, aead) in [(1, &first), (2, &second), (3, &third)] {
        assert_eq!(aead.len(), 36);
        let counters = send(0x60, &[&[0, id], aead, &otp]);
        assert_eq!(counters, Ok(vec![0xff, 0x0f, 1, 1, 1, 0]));
    }
    let wrong_otp = send(0x60, &[&[0, 1], &first, &[0; 16]]);
    assert_eq!(wrong_otp, code(ErrorCode::InvalidOtp));
    let wrong_key = send(0x60, &[&[0, 2], &first, &otp]);
    assert_eq!(wrong_key, code(ErrorCode::InvalidData));
    let unknown_key = send(0x63, &[&[0, 1, 0, 9], &first]);
    assert_eq!(unknown_key, code(ErrorCode::ObjectNotFound));
}

/// Every command that uses a key, the number of its capability, a key for it and data of the right length.
fn uses() -> Vec<(u8, u32, u8, Vec<u8>)> {
    const RSA: u8 = 9;
    const P256: u8 = 12;
    let aead = vec![0; 36];
    vec![
        (0x47, 0x05, RSA, vec![0; 32]),
        (0x55, 0x06, RSA, [vec![33, 0, 32], vec![0; 32]].concat()),
        (0x49, 0x09, RSA, vec![0; 256]),
        (0x59, 0x0a, RSA, [vec![33], vec![0; 256 + 32]].concat()),
        (0x5d, 0x19, RSA, [vec![0, 1, 2], vec![0; 260]].concat()),
        (0x56, 0x07, P256, vec![0; 32]),
        (0x57, 0x0b, P256, vec![4; 65]),
        (0x6a, 0x08, ED25519, vec![0; 32]),
        (0x53, 0x16, 20, vec![0; 32]),
        (0x5c, 0x17, 20, vec![0; 32]),
        (0x70, 0x33, 50, vec![0; 16]),
        (0x6f, 0x32, 50, vec![0; 16]),
        (0x72, 0x35, 50, vec![0; 32]),
        (0x71, 0x34, 50, vec![0; 32]),
        (0x61, 0x1e, 37, vec![0; 22]),
        (0x62, 0x1f, 37, vec![]),
        (0x63, 0x20, 37, [vec![0, 7], aead.clone()].concat()),
        (0x60, 0x1d, 37, [aead, vec![0; 16]].concat()),
    ]
}

/// The commands that generate a key of this algorithm, and what they want beside it.
fn generation(algorithm: u8) -> (u8, &'static [u8]) {
    match algorithm {
        20 => (0x5a, &[]),
        37 => (0x66, &[0; 4]),
        50 => (0x6e, &[]),
        _ => (0x46, &[]),
    }
}

#[test]
fn a_key_does_nothing_that_it_or_the_session_has_no_capability_for() {
    for (command, bit, algorithm, data) in uses() {
        let mut device = device();
        let mut session = admin(&mut device);
        let without = !(1 << bit);
        let (generate, given) = generation(algorithm);
        for (id, capabilities) in [(7, without), (8, ALL)] {
            let data = [&properties(id, 1, capabilities, algorithm), given].concat();
            session
                .send(&mut device, START, generate, &data)
                .unwrap()
                .unwrap();
        }
        let with_key = |id: u8| [&[0, id][..], &data].concat();
        let refused = code(ErrorCode::InsufficientPermissions);
        let answer = session
            .send(&mut device, START, command, &with_key(7))
            .unwrap();
        assert_eq!(answer, refused, "{command:#x}: the key lacks it");
        let answer = session
            .send(&mut device, START, command, &with_key(8))
            .unwrap();
        assert_ne!(answer, refused, "{command:#x}: both have it");
        let missing = session
            .send(&mut device, START, command, &with_key(9))
            .unwrap();
        assert_eq!(missing, code(ErrorCode::ObjectNotFound), "{command:#x}");
        let mut session = session_with(&mut device, 1, without, 0);
        let answer = session
            .send(&mut device, START, command, &with_key(8))
            .unwrap();
        assert_eq!(answer, refused, "{command:#x}: the session lacks it");
    }
}

#[test]
fn an_algorithm_that_is_switched_off_makes_and_does_nothing_until_a_reset() {
    // The algorithm that is switched off, what is to be made, and what it is to do.
    let cases = [
        (12, 12, None),
        (2, 9, Some((0x47, vec![0; 32]))),
        (6, 9, Some((0x55, [vec![33, 0, 32], vec![0; 32]].concat()))),
        (33, 9, Some((0x55, [vec![33, 0, 32], vec![0; 32]].concat()))),
        (48, 9, Some((0x49, vec![0; 256]))),
        (26, 9, Some((0x59, [vec![33], vec![0; 256 + 32]].concat()))),
        (43, 12, Some((0x56, vec![0; 32]))),
        (24, 12, Some((0x57, vec![4; 65]))),
        (53, 50, Some((0x70, vec![0; 16]))),
        (54, 50, Some((0x71, vec![0; 32]))),
    ];
    for (off, algorithm, operation) in cases {
        let mut device = device();
        let mut session = admin(&mut device);
        session
            .send(&mut device, START, 0x4f, &[4, 0, 2, off, 0])
            .unwrap()
            .unwrap();
        // It outlives a power cycle.
        let mut device = Device::restore(
            serde_json::from_str(&json(&device)).unwrap(),
            (2, 4, 1),
            START,
        )
        .unwrap();
        let mut session = admin(&mut device);
        let disabled = code(ErrorCode::AlgorithmDisabled);
        let (generate, given) = generation(algorithm);
        let key = [&properties(7, 1, ALL, algorithm), given].concat();
        let made = session.send(&mut device, START, generate, &key).unwrap();
        if let Some((command, data)) = operation {
            made.unwrap();
            let data = [&[0, 7][..], &data].concat();
            let answer = session.send(&mut device, START, command, &data).unwrap();
            assert_eq!(answer, disabled, "{off}");
            let again = session.send(&mut device, START, 0x4f, &[4, 0, 2, off, 1]);
            assert_eq!(again.unwrap(), code(ErrorCode::InvalidData), "has a key");
        } else {
            assert_eq!(made, disabled, "{off}");
        }
        session
            .send(&mut device, START, 0x08, b"")
            .unwrap()
            .unwrap();
        let mut session = admin(&mut device);
        let pairs = session.send(&mut device, START, 0x50, &[4]).unwrap();
        let all_on: Vec<u8> = (1..=55).flat_map(|algorithm| [algorithm, 1]).collect();
        assert_eq!(pairs, Ok(all_on));
    }
}

#[test]
fn the_log_names_both_keys_of_a_command_that_uses_two() {
    let mut device = device();
    let mut session = admin(&mut device);
    session
        .send(&mut device, START, 0x4f, &[3, 0, 4, 0x63, 1, 0x53, 1])
        .unwrap()
        .unwrap();
    let rewrap = [vec![0, 7, 0, 8], vec![0; 36]].concat();
    for (command, data, keys) in [
        (0x63, rewrap, [0, 7, 0, 8]),
        (0x53, vec![0, 9, 1, 2, 3], [0, 9, 0xff, 0xff]),
    ] {
        session
            .send(&mut device, START, command, &data)
            .unwrap()
            .unwrap_err();
        let log = session
            .send(&mut device, START, 0x4d, b"")
            .unwrap()
            .unwrap();
        let last = log[5..].as_chunks::<32>().0.last().unwrap();
        assert_eq!((last[2], &last[7..11]), (command, &keys[..]));
    }
}
