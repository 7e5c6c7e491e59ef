//! What older firmware does not know.

use super::super::scp03::host::plain;
use super::*;

const RSA_2048: u8 = 9;
const P224: u8 = 47;
const P224_DIGEST_LIMIT: usize = 28;

/// The commands that came later than the first firmware.
const NEWER: [(Firmware, &[u8]); 3] = [
    ((2, 1, 0), &[0x6c]),
    ((2, 3, 0), &[0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72]),
    ((2, 4, 0), &[0x73, 0x74, 0x75, 0x76, 0x77]),
];

/// The last version of each line.
const LINES: [Firmware; 5] = [(2, 0, 9), (2, 1, 9), (2, 2, 9), (2, 3, 9), (2, 4, 9)];

#[test]
fn commands_that_are_newer_than_the_firmware_are_no_commands() {
    for firmware in LINES {
        let mut device = manufactured(firmware);
        let mut session = admin(&mut device);
        for (since, commands) in NEWER {
            for command in commands {
                let answer = session.send(&mut device, START, *command, b"").unwrap();
                let refused = answer == code(ErrorCode::InvalidCommand);
                assert_eq!(refused, firmware < since, "{firmware:?} {command:#04x}");
            }
        }
        let public_key = plain(&mut device, START, &[0x0a, 0, 0]);
        assert_eq!(public_key.is_ok(), firmware >= (2, 3, 0), "{firmware:?}");
    }
}

#[test]
fn each_line_lists_the_algorithms_that_it_has_and_takes_no_others() {
    for (firmware, last) in LINES.into_iter().zip([47, 47, 48, 54, 55]) {
        let mut device = manufactured(firmware);
        let information = plain(&mut device, START, &[0x06, 0, 0]).unwrap();
        assert_eq!(
            information[9..],
            (1..=last).collect::<Vec<u8>>(),
            "{firmware:?}"
        );
        let mut session = admin(&mut device);
        let mut put = |command, algorithm, key: &[u8]| {
            let mut data = properties(0, 1, 0, algorithm);
            if command != 0x42 {
                data.extend([0; 8]);
            }
            data.extend(key);
            session.send(&mut device, START, command, &data).unwrap()
        };
        let point = [
            hex::decode("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
                .unwrap(),
            hex::decode("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
                .unwrap(),
        ]
        .concat();
        let known = put(0x44, 49, &point);
        assert_eq!(known.is_ok(), firmware >= (2, 3, 0), "{firmware:?}");
        if firmware < (2, 3, 0) {
            assert_eq!(known, code(ErrorCode::InvalidData));
        }
        if firmware < (2, 4, 0) {
            let rsa_wrap = put(0x4c, RSA_2048, &[0xff; 256]);
            assert_eq!(rsa_wrap, code(ErrorCode::InvalidData), "{firmware:?}");
        }
    }
}

#[test]
fn object_types_of_newer_firmware_are_no_types() {
    for (kind, since) in [(8, (2, 3, 0)), (9, (2, 4, 0))] {
        for firmware in LINES {
            let mut device = manufactured(firmware);
            let mut session = admin(&mut device);
            for command in [0x4e, 0x58] {
                let answer = session.send(&mut device, START, command, &[0, 7, kind]);
                let expected = if firmware < since {
                    ErrorCode::InvalidData
                } else {
                    ErrorCode::ObjectNotFound
                };
                assert_eq!(answer.unwrap(), code(expected), "{firmware:?} {kind}");
            }
        }
    }
}

#[test]
fn up_to_2_3_0_a_new_device_records_nearly_every_command_and_then_none() {
    let recorded = |firmware| {
        let mut device = manufactured(firmware);
        let mut session = admin(&mut device);
        for (command, data) in [(0x01, &b"echo"[..]), (0x41, b""), (0x06, b"")] {
            session
                .send(&mut device, START, command, data)
                .unwrap()
                .unwrap();
        }
        let log = session
            .send(&mut device, START, 0x4d, b"")
            .unwrap()
            .unwrap();
        let commands = log[5..].as_chunks::<32>().0.iter().map(|entry| entry[2]);
        let options = session.send(&mut device, START, 0x50, &[3]).unwrap();
        let switches = options.unwrap().as_chunks::<2>().0.to_vec();
        (commands.collect::<Vec<_>>(), switches)
    };
    let (commands, switches) = recorded((2, 3, 0));
    assert_eq!(commands, [0xff, 0x00, 0x03, 0x04, 0x41]);
    assert!(switches.contains(&[0x6d, 1]) && switches.contains(&[0x01, 0]));
    assert!(switches.iter().all(|[command, _]| *command < 0x73));
    let (commands, switches) = recorded((2, 3, 1));
    assert_eq!(commands, [0xff, 0x00]);
    assert!(switches.iter().all(|[_, value]| *value == 0));
    let (_, switches) = recorded((2, 2, 0));
    assert!(switches.iter().all(|[command, _]| *command != 0x6d));
}

#[test]
fn newer_commands_and_algorithms_are_not_in_the_options() {
    let mut device = manufactured((2, 3, 2));
    let mut session = admin(&mut device);
    for (option, code_of_2_4) in [(3, 0x73), (4, 55)] {
        let value = [option, 0, 2, code_of_2_4, 1];
        let refused = session.send(&mut device, START, 0x4f, &value).unwrap();
        assert_eq!(refused, code(ErrorCode::InvalidData));
    }
    let algorithms = session
        .send(&mut device, START, 0x50, &[4])
        .unwrap()
        .unwrap();
    assert_eq!(algorithms.len(), 2 * 54);
}

#[test]
fn before_2_1_the_host_cuts_a_digest_that_is_longer_than_the_curve() {
    for firmware in [(2, 0, 9), (2, 1, 0)] {
        let mut device = manufactured(firmware);
        let mut session = admin(&mut device);
        let key = properties(5, 1, 1 << 7, P224);
        session
            .send(&mut device, START, 0x46, &key)
            .unwrap()
            .unwrap();
        let mut sign = |length| {
            let data = [vec![0, 5], vec![7; length]].concat();
            session.send(&mut device, START, 0x56, &data).unwrap()
        };
        assert!(sign(P224_DIGEST_LIMIT).is_ok(), "{firmware:?}");
        assert_eq!(sign(32).is_ok(), firmware >= (2, 1, 0), "{firmware:?}");
    }
}

#[test]
fn a_wrap_key_without_the_capability_for_data_is_refused_in_the_words_of_its_firmware() {
    for (firmware, expected) in [
        ((2, 4, 1), ErrorCode::InvalidData),
        ((2, 5, 0), ErrorCode::InsufficientPermissions),
    ] {
        let mut device = manufactured(firmware);
        let mut session = admin(&mut device);
        let key = [properties(5, 1, 0, 29), vec![0; 8], vec![1; 16]].concat();
        session
            .send(&mut device, START, 0x4c, &key)
            .unwrap()
            .unwrap();
        let refused = session.send(&mut device, START, 0x68, &[0, 5, 1]).unwrap();
        assert_eq!(refused, code(expected), "{firmware:?}");
    }
}
