//! Objects that leave under AES-CCM wrap keys and come back, and what is refused on the way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::device::aes_ccm;

const EXPORT: u8 = 0x4a;
const IMPORT: u8 = 0x4b;
const PUT_WRAP_KEY: u8 = 0x4c;
const GENERATE_WRAP_KEY: u8 = 0x5b;
const UNWRAP_DATA: u8 = 0x69;

const EXPORT_WRAPPED: u64 = 1 << 0x0c;
const IMPORT_WRAPPED: u64 = 1 << 0x0d;
const EXPORTABLE: u64 = 1 << 0x10;

const AES128_CCM: u8 = 29;
const WRAP_KEY: [u8; 16] = [7; 16];
const WRAP_ID: u16 = 9;

fn put_wrap_key(device: &mut Device, domains: u16, capabilities: u64, delegated: u64) {
    let data = [
        &properties(WRAP_ID, domains, capabilities, AES128_CCM)[..],
        &delegated.to_be_bytes(),
        &WRAP_KEY,
    ]
    .concat();
    admin(device)
        .send(device, START, PUT_WRAP_KEY, &data)
        .unwrap()
        .unwrap();
}

/// Wrap key, type and identifier, as EXPORT WRAPPED has them.
fn export_of(kind: u8, id: u8) -> [u8; 5] {
    let [high, low] = WRAP_ID.to_be_bytes();
    [high, low, kind, 0, id]
}

fn import_of(sealed: &[u8]) -> Vec<u8> {
    [&WRAP_ID.to_be_bytes()[..], sealed].concat()
}

fn generate_ed25519(device: &mut Device, domains: u16, capabilities: u64) -> Vec<u8> {
    let key = properties(7, domains, capabilities, ED25519);
    let mut session = admin(device);
    session.send(device, START, 0x46, &key).unwrap().unwrap();
    let public = session.send(device, START, 0x54, &[0, 7]).unwrap();
    public.unwrap()
}

#[test]
fn a_key_comes_back_on_another_device_as_it_left() {
    let (mut first, mut second) = (device(), device());
    let everything = SIGN_EDDSA_CAPABILITY | EXPORTABLE;
    for device in [&mut first, &mut second] {
        put_wrap_key(device, 1, EXPORT_WRAPPED | IMPORT_WRAPPED, everything);
    }
    let public = generate_ed25519(&mut first, 1, everything);
    let signed = |device: &mut Device| {
        let message = [0, 7, b'x'];
        admin(device).send(device, START, 0x6a, &message).unwrap()
    };
    let before = signed(&mut first);
    for with_seed in [&[][..], &[0], &[1]] {
        let command = [&export_of(3, 7)[..], with_seed].concat();
        let sealed = admin(&mut first)
            .send(&mut first, START, EXPORT, &command)
            .unwrap()
            .unwrap();
        let mut session = admin(&mut second);
        let mut send = |command, data: &[u8]| session.send(&mut second, START, command, data);
        assert_eq!(
            send(IMPORT, &import_of(&sealed)).unwrap(),
            Ok(vec![3, 0, 7])
        );
        assert_eq!(send(0x54, &[0, 7]).unwrap(), Ok(public.clone()));
        let information = send(0x4e, &[0, 7, 3]).unwrap().unwrap();
        assert_eq!(information[17], 0x11, "generated, imported under wrap");
        assert_eq!(signed(&mut second), before);

        // A key without its seed is in the state as well.
        let state = serde_json::from_str(&json(&second)).unwrap();
        let mut again = Device::restore(state, (2, 4, 1), START).unwrap();
        assert_eq!(signed(&mut again), before);
        session
            .send(&mut second, START, 0x58, &[0, 7, 3])
            .unwrap()
            .unwrap();
    }
}

#[test]
fn export_wants_capabilities_domains_and_identifiers() {
    let all = SIGN_EDDSA_CAPABILITY | EXPORTABLE;
    let denied = ErrorCode::InsufficientPermissions;
    struct Case {
        name: &'static str,
        session: (u16, u64),
        wrap_key: (u16, u64, u64),
        object: (u16, u64),
        command: Vec<u8>,
        expected: Option<ErrorCode>,
    }
    let good = || Case {
        name: "all is right",
        session: (1, EXPORT_WRAPPED),
        wrap_key: (1, EXPORT_WRAPPED, all),
        object: (1, all),
        command: export_of(3, 7).to_vec(),
        expected: None,
    };
    #[rustfmt::skip]
    let cases = [
        good(),
        Case { name: "session lacks the capability", session: (1, IMPORT_WRAPPED), expected: Some(denied), ..good() },
        Case { name: "wrap key lacks it", wrap_key: (1, IMPORT_WRAPPED, all), expected: Some(denied), ..good() },
        Case { name: "object is not exportable", object: (1, SIGN_EDDSA_CAPABILITY), expected: Some(denied), ..good() },
        Case { name: "wrap key does not carry it", wrap_key: (1, EXPORT_WRAPPED, EXPORTABLE), expected: Some(denied), ..good() },
        Case { name: "wrap key elsewhere", wrap_key: (2, EXPORT_WRAPPED, all), expected: Some(ErrorCode::ObjectNotFound), ..good() },
        Case { name: "object elsewhere", object: (2, all), expected: Some(ErrorCode::ObjectNotFound), ..good() },
        Case { name: "no such object", command: export_of(3, 8).to_vec(), expected: Some(ErrorCode::ObjectNotFound), ..good() },
        Case { name: "another type", command: export_of(4, 7).to_vec(), expected: Some(ErrorCode::ObjectNotFound), ..good() },
        Case { name: "no type", command: export_of(0, 7).to_vec(), expected: Some(ErrorCode::InvalidData), ..good() },
        Case { name: "no such wrap key", command: vec![0, 8, 3, 0, 7], expected: Some(ErrorCode::ObjectNotFound), ..good() },
        Case { name: "no form", command: [&export_of(3, 7)[..], &[2]].concat(), expected: Some(ErrorCode::InvalidData), ..good() },
        Case { name: "too short", command: export_of(3, 7)[..4].to_vec(), expected: Some(ErrorCode::WrongLength), ..good() },
        Case { name: "too long", command: [&export_of(3, 7)[..], &[1, 1]].concat(), expected: Some(ErrorCode::WrongLength), ..good() },
    ];
    for case in cases {
        let mut device = device();
        let (domains, capabilities, delegated) = case.wrap_key;
        put_wrap_key(&mut device, domains, capabilities, delegated);
        generate_ed25519(&mut device, case.object.0, case.object.1);
        let mut session = session_with(&mut device, case.session.0, case.session.1, 0);
        let answer = session.send(&mut device, START, EXPORT, &case.command);
        let expected = case.expected.map(ErrorCode::byte);
        assert_eq!(answer.unwrap().err(), expected, "{}", case.name);
    }
}

#[test]
fn import_wants_capabilities_and_domains_and_changes_nothing_without_them() {
    let all = SIGN_EDDSA_CAPABILITY | EXPORTABLE;
    let mut source = device();
    put_wrap_key(&mut source, 1, EXPORT_WRAPPED, all);
    generate_ed25519(&mut source, 1, all);
    let sealed = admin(&mut source)
        .send(&mut source, START, EXPORT, &export_of(3, 7))
        .unwrap()
        .unwrap();
    let denied = Some(ErrorCode::InsufficientPermissions);
    let not_found = Some(ErrorCode::ObjectNotFound);
    let cases = [
        ("right", 1, IMPORT_WRAPPED, 1, IMPORT_WRAPPED, all, None),
        ("session", 1, EXPORT_WRAPPED, 1, IMPORT_WRAPPED, all, denied),
        (
            "wrap key",
            1,
            IMPORT_WRAPPED,
            1,
            EXPORT_WRAPPED,
            all,
            denied,
        ),
        (
            "delegated",
            1,
            IMPORT_WRAPPED,
            1,
            IMPORT_WRAPPED,
            EXPORTABLE,
            denied,
        ),
        (
            "its domain",
            2,
            IMPORT_WRAPPED,
            2,
            IMPORT_WRAPPED,
            all,
            denied,
        ),
        (
            "the key's domain",
            1,
            IMPORT_WRAPPED,
            2,
            IMPORT_WRAPPED,
            all,
            not_found,
        ),
    ];
    for (name, domains, capabilities, key_domains, key_capabilities, delegated, expected) in cases {
        let mut device = device();
        put_wrap_key(&mut device, key_domains, key_capabilities, delegated);
        let mut session = session_with(&mut device, domains, capabilities, 0);
        let before = json(&device);
        let answer = session
            .send(&mut device, START, IMPORT, &import_of(&sealed))
            .unwrap();
        assert_eq!(answer.err(), expected.map(ErrorCode::byte), "{name}");
        assert_eq!(json(&device) == before, expected.is_some(), "{name}");
    }
}

#[test]
fn seeds_are_exported_since_2_4() {
    let mut device = device();
    let all = SIGN_EDDSA_CAPABILITY | EXPORTABLE;
    put_wrap_key(&mut device, 1, EXPORT_WRAPPED, all);
    generate_ed25519(&mut device, 1, all);
    for (firmware, known) in [((2, 3, 2), false), ((2, 4, 0), true)] {
        let state = serde_json::from_str(&json(&device)).unwrap();
        let mut device = Device::restore(state, firmware, START).unwrap();
        let with_seed = [&export_of(3, 7)[..], &[1]].concat();
        let answer = admin(&mut device)
            .send(&mut device, START, EXPORT, &with_seed)
            .unwrap();
        assert_eq!(answer.is_ok(), known, "{firmware:?}");
    }
}

#[test]
fn wrap_keys_are_of_the_length_of_their_algorithm() {
    let mut device = device();
    let mut session = admin(&mut device);
    for (algorithm, length) in [(29, 16), (41, 24), (42, 32)] {
        let head = [properties(0, 1, 0, algorithm), vec![0; 8]].concat();
        for (given, expected) in [
            (length - 1, Some(ErrorCode::WrongLength)),
            (length, None),
            (length + 1, Some(ErrorCode::WrongLength)),
        ] {
            let data = [&head[..], &vec![1; given]].concat();
            let answer = session
                .send(&mut device, START, PUT_WRAP_KEY, &data)
                .unwrap();
            assert_eq!(
                answer.err(),
                expected.map(ErrorCode::byte),
                "{algorithm}: {given}"
            );
        }
        let made = session.send(&mut device, START, GENERATE_WRAP_KEY, &head);
        assert_eq!(made.unwrap().unwrap().len(), 2);
    }
    let other = [properties(0, 1, 0, ED25519), vec![0; 8], vec![1; 32]].concat();
    let refused = session.send(&mut device, START, PUT_WRAP_KEY, &other);
    assert_eq!(refused.unwrap(), code(ErrorCode::InvalidData));
}

/// A device with a wrap key that may carry everything, in a session that may do everything.
fn open_device() -> Device {
    let mut device = device();
    put_wrap_key(&mut device, 1, u64::MAX, u64::MAX);
    device
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_the_wrap_key_did_not_seal_changes_nothing(
        sealed in vec(any::<u8>(), 0..200),
        rsa in any::<bool>(),
    ) {
        let mut device = open_device();
        let mut session = admin(&mut device);
        let before = json(&device);
        let command = if rsa { 0x77 } else { IMPORT };
        for command in [command, UNWRAP_DATA] {
            let answer = session.send(&mut device, START, command, &import_of(&sealed)).unwrap();
            prop_assert!(answer.is_err());
        }
        prop_assert_eq!(json(&device), before);
    }

    /// Whatever stands under the wrap: an object that the device can keep, or no change.
    #[test]
    fn sealed_nonsense_is_an_object_or_changes_nothing(
        capabilities in any::<u64>(),
        domains in any::<u16>(),
        kind in 0_u8..10,
        algorithm in 0_u8..56,
        origin in 0_u8..0x13,
        body in vec(any::<u8>(), 0..140),
        length in prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)],
        wrap_algorithm in prop_oneof![9 => Just(AES128_CCM), 1 => any::<u8>()],
        cut in prop_oneof![9 => Just(usize::MAX), 1 => 0_usize..200],
    ) {
        let mut device = open_device();
        let length = length.unwrap_or(u16::try_from(body.len()).unwrap());
        let mut plaintext = [
            &[wrap_algorithm][..],
            &capabilities.to_be_bytes(),
            &[0, 5],
            &length.to_be_bytes(),
            &domains.to_be_bytes(),
            &[kind, algorithm, 3, origin],
            &[b'x'; 40],
            &body,
        ].concat();
        plaintext.truncate(cut);
        let sealed = aes_ccm::seal(&WRAP_KEY, &plaintext).unwrap();
        let mut session = admin(&mut device);
        let before = json(&device);
        let answer = session.send(&mut device, START, IMPORT, &import_of(&sealed)).unwrap();
        if answer.is_err() {
            prop_assert_eq!(json(&device), before);
        }
        let state = serde_json::from_str(&json(&device)).unwrap();
        prop_assert!(Device::restore(state, (2, 4, 1), START).is_some());
    }
}
