//! Sessions on whose keys both sides agree with P-256 keys.

use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};

use super::*;
use crate::device::key_agreement::{agree, derive, new_key};
use crate::device::scp03::{Channel, cmac};

const KEY: u8 = 49;
const CHANGE_AUTHENTICATION_KEY: u64 = 1 << 0x2e;

/// What the host keeps of one attempt to create a session.
struct Attempt {
    host: Host,
    receipt: [u8; 16],
    expected_receipt: [u8; 16],
}

fn coordinates(key: &PublicKey) -> Vec<u8> {
    key.to_sec1_point(false).as_bytes()[1..].to_vec()
}

fn put_key(device: &mut Device, id: u16, key: &PublicKey) -> Result<Vec<u8>, u8> {
    let data = [
        properties(id, 1, CHANGE_AUTHENTICATION_KEY, KEY),
        vec![0; 8],
        coordinates(key),
    ]
    .concat();
    admin(device).send(device, START, 0x44, &data).unwrap()
}

fn device_key(device: &mut Device) -> PublicKey {
    let answer = plain(device, START, &[0x0a, 0, 0]).unwrap();
    assert_eq!(answer[0], KEY);
    PublicKey::from_sec1_bytes(&[&[4], &answer[1..]].concat()).unwrap()
}

fn create(device: &mut Device, id: u16, secret: &SecretKey, pinned: &PublicKey) -> Attempt {
    let ephemeral = new_key().unwrap();
    let point = ephemeral.public_key().to_sec1_point(false);
    let data = [&id.to_be_bytes()[..], point.as_bytes()].concat();
    let frame = [&frame::header(0x03, data.len())[..], &data].concat();
    let answer = plain(device, START, &frame).unwrap();
    assert_eq!(answer.len(), 1 + 65 + 16);
    let (theirs, receipt) = answer[1..].split_at(65);

    let shared = agree(&ephemeral, &PublicKey::from_sec1_bytes(theirs).unwrap());
    let (receipt_key, keys) = derive(&[shared, agree(secret, pinned)]);
    let receipt = receipt.try_into().unwrap();
    Attempt {
        host: Host::agreed(Channel::new(keys, receipt), answer[0]),
        receipt,
        expected_receipt: cmac(&receipt_key, &[theirs, point.as_bytes()]),
    }
}

#[test]
fn a_session_opens_with_a_key_pair_and_needs_no_authentication() {
    let mut device = device();
    let secret = new_key().unwrap();
    put_key(&mut device, 2, &secret.public_key()).unwrap();
    let pinned = device_key(&mut device);
    let Attempt {
        mut host,
        receipt,
        expected_receipt,
    } = create(&mut device, 2, &secret, &pinned);
    assert_eq!(receipt, expected_receipt);
    let authenticate = host.authenticated(0x04, &[0; 8]);
    assert_eq!(
        plain(&mut device, START, &authenticate),
        code(ErrorCode::InvalidSession),
        "there is nothing to authenticate"
    );

    let Attempt { mut host, .. } = create(&mut device, 2, &secret, &pinned);
    for text in [&b"one"[..], b"two"] {
        let echoed = host.send(&mut device, START, 0x01, text).unwrap();
        assert_eq!(echoed.unwrap(), text);
    }
    let random = host.send(&mut device, START, 0x51, &[0, 8]).unwrap();
    assert_eq!(random, code(ErrorCode::InsufficientPermissions));
}

#[test]
fn the_wrong_private_key_opens_nothing() {
    let mut device = device();
    put_key(&mut device, 2, &new_key().unwrap().public_key()).unwrap();
    let pinned = device_key(&mut device);
    let mut attempt = create(&mut device, 2, &new_key().unwrap(), &pinned);
    assert_ne!(attempt.receipt, attempt.expected_receipt);
    let first = attempt.host.send(&mut device, START, 0x01, b"");
    assert_eq!(first, Err(ErrorCode::AuthenticationFailed.byte()));
    let second = attempt.host.send(&mut device, START, 0x01, b"");
    assert_eq!(second, Err(ErrorCode::InvalidSession.byte()));
}

#[test]
fn another_device_gives_a_receipt_that_the_host_refuses() {
    let (mut device, secret) = (device(), new_key().unwrap());
    put_key(&mut device, 2, &secret.public_key()).unwrap();
    let another = new_key().unwrap().public_key();
    let attempt = create(&mut device, 2, &secret, &another);
    assert_ne!(attempt.receipt, attempt.expected_receipt);
}

#[test]
fn what_is_no_point_or_not_meant_for_the_key_is_refused() {
    let mut device = device();
    let secret = new_key().unwrap();
    put_key(&mut device, 2, &secret.public_key()).unwrap();
    let point = secret.public_key().to_sec1_point(false);
    let mut off_curve = point.as_bytes().to_vec();
    off_curve[64] ^= 1;
    let mut compressed = point.as_bytes().to_vec();
    compressed[0] = 2;
    let cases = [
        (2, off_curve, ErrorCode::InvalidData),
        (2, compressed, ErrorCode::InvalidData),
        (2, vec![0; 65], ErrorCode::InvalidData),
        (2, point.as_bytes()[..64].to_vec(), ErrorCode::WrongLength),
        (2, vec![7; 8], ErrorCode::SessionFailed),
        (1, point.as_bytes().to_vec(), ErrorCode::SessionFailed),
        (3, point.as_bytes().to_vec(), ErrorCode::ObjectNotFound),
    ];
    for (id, host, expected) in cases {
        let data = [&[0, id][..], &host].concat();
        let frame = [&frame::header(0x03, data.len())[..], &data].concat();
        assert_eq!(
            plain(&mut device, START, &frame),
            code(expected),
            "key {id}, {host:02x?}"
        );
    }

    let mut session = admin(&mut device);
    let head = [properties(5, 1, 0, KEY), vec![0; 8]].concat();
    let cases = [
        (vec![1; 64], ErrorCode::InvalidData),
        (point.as_bytes()[1..64].to_vec(), ErrorCode::WrongLength),
        (point.as_bytes().to_vec(), ErrorCode::WrongLength),
    ];
    for (public, expected) in cases {
        let data = [&head[..], &public].concat();
        let refused = session.send(&mut device, START, 0x44, &data).unwrap();
        assert_eq!(refused, code(expected), "{public:02x?}");
    }
}

#[test]
fn a_changed_public_key_opens_the_next_session() {
    let mut device = device();
    let (old, new) = (new_key().unwrap(), new_key().unwrap());
    put_key(&mut device, 2, &old.public_key()).unwrap();
    let pinned = device_key(&mut device);
    let mut host = create(&mut device, 2, &old, &pinned).host;
    let change = [&[0, 2, KEY][..], &coordinates(&new.public_key())].concat();
    let changed = host.send(&mut device, START, 0x6c, &change).unwrap();
    assert_eq!(changed, Ok(vec![0, 2]));
    let attempt = create(&mut device, 2, &new, &pinned);
    assert_eq!(attempt.receipt, attempt.expected_receipt);
    let to_password = [&[0, 2, 38][..], &static_keys(PASSWORD)].concat();
    let another_algorithm = host.send(&mut device, START, 0x6c, &to_password).unwrap();
    assert_eq!(another_algorithm, code(ErrorCode::InvalidData));
}

#[test]
fn the_device_key_outlives_a_power_cycle_and_no_reset() {
    let mut device = device();
    let before = device_key(&mut device);
    let state = serde_json::from_str(&json(&device)).unwrap();
    let mut again = Device::restore(state, (2, 4, 1), START).unwrap();
    assert_eq!(device_key(&mut again), before);
    admin(&mut again)
        .send(&mut again, START, 0x08, b"")
        .unwrap()
        .unwrap();
    assert_ne!(device_key(&mut again), before);
}
