//! RSA wrap keys, and keys in forms that come from outside. Both ways with OpenSSL: `tests/vendor/wrap_rsa.py`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::device::algorithm::Algorithm;
use crate::device::private_key::PrivateKey;
use crate::device::private_key::wrapped::Ed25519Form;

const GENERATE_WRAP_KEY: u8 = 0x5b;
const PUT_PUBLIC_WRAP_KEY: u8 = 0x73;
const EXPORT_KEY: u8 = 0x74;
const IMPORT_KEY: u8 = 0x75;
const EXPORT_OBJECT: u8 = 0x76;
const IMPORT_OBJECT: u8 = 0x77;

const RSA_2048: u8 = 9;
const AES256: u8 = 52;
const OAEP_SHA256: u8 = 26;
const MGF1_SHA256: u8 = 33;

/// A device with RSA wrap key 9 and its public half under the same identifier, and P-256 key 7. Made once:
/// RSA keys take time.
fn wrapping_device() -> Device {
    static READY: LazyLock<String> = LazyLock::new(|| {
        let mut device = device();
        let mut session = admin(&mut device);
        let mut run = |command, data: &[u8]| {
            let answer = session.send(&mut device, START, command, data);
            answer.unwrap().unwrap()
        };
        let wrap_key = [properties(9, 1, u64::MAX, RSA_2048), vec![0xff; 8]].concat();
        run(GENERATE_WRAP_KEY, &wrap_key);
        let public = run(0x54, &[0, 9, 4]);
        assert_eq!((public[0], public.len()), (RSA_2048, 257));
        run(PUT_PUBLIC_WRAP_KEY, &[&wrap_key[..], &public[1..]].concat());
        assert_eq!(run(0x54, &[0, 9, 9]), public);
        run(0x46, &properties(7, 1, u64::MAX, 12));
        json(&device)
    });
    Device::restore(serde_json::from_str(&READY).unwrap(), (2, 4, 1), START).unwrap()
}

/// The digest of an empty label.
fn label_digest() -> Vec<u8> {
    use sha2::Digest as _;
    Sha256::digest(b"").to_vec()
}

/// What both exports of key 7 under wrap key 9 begin with, and the digest of the label.
fn export_of_7() -> Vec<u8> {
    let head = [0, 9, 3, 0, 7, AES256, OAEP_SHA256, MGF1_SHA256];
    [&head[..], &label_digest()].concat()
}

/// What both imports with wrap key 9 begin with; for a key alone, the properties of P-256 key 8.
fn import_of(command: u8, sealed: &[u8]) -> Vec<u8> {
    let properties = match command {
        IMPORT_KEY => [vec![3], properties(8, 1, 0, 12)].concat(),
        _ => vec![],
    };
    let hashes = [OAEP_SHA256, MGF1_SHA256];
    [&[0, 9][..], &properties, &hashes, sealed, &label_digest()].concat()
}

#[test]
fn a_key_leaves_under_the_public_half_and_comes_back_under_the_private_one() {
    let mut device = wrapping_device();
    let mut session = admin(&mut device);
    let mut run = |command, data: &[u8]| session.send(&mut device, START, command, data).unwrap();
    let public = run(0x54, &[0, 7]).unwrap();
    let object = run(EXPORT_OBJECT, &export_of_7()).unwrap();
    let key = run(EXPORT_KEY, &export_of_7()).unwrap();
    let back = run(IMPORT_KEY, &import_of(IMPORT_KEY, &key));
    assert_eq!(back, Ok(vec![3, 0, 8]));
    assert_eq!(run(0x54, &[0, 8]), Ok(public.clone()));
    run(0x58, &[0, 7, 3]).unwrap();
    let back = run(IMPORT_OBJECT, &import_of(IMPORT_OBJECT, &object));
    assert_eq!(back, Ok(vec![3, 0, 7]));
    assert_eq!(run(0x54, &[0, 7]), Ok(public));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_nobody_wrapped_changes_nothing(
        sealed in prop_oneof![vec(any::<u8>(), 0..80), vec(any::<u8>(), 256..400)],
        raw in vec(any::<u8>(), 0..120),
    ) {
        let mut device = wrapping_device();
        let mut session = admin(&mut device);
        let before = json(&device);
        for command in [IMPORT_OBJECT, IMPORT_KEY] {
            for data in [import_of(command, &sealed), [&[0, 9], &raw[..]].concat()] {
                let answer = session.send(&mut device, START, command, &data).unwrap();
                prop_assert!(answer.is_err());
            }
        }
        prop_assert_eq!(json(&device), before);
    }

    #[test]
    fn a_truncated_or_changed_wrap_changes_nothing(
        command in prop_oneof![Just((EXPORT_OBJECT, IMPORT_OBJECT)), Just((EXPORT_KEY, IMPORT_KEY))],
        position in any::<prop::sample::Index>(),
        change in 1_u8..,
        cut in any::<bool>(),
    ) {
        let mut device = wrapping_device();
        let mut session = admin(&mut device);
        let (export, import) = command;
        let mut sealed = session.send(&mut device, START, export, &export_of_7()).unwrap().unwrap();
        session.send(&mut device, START, 0x58, &[0, 7, 3]).unwrap().unwrap();
        let position = position.index(sealed.len());
        if cut {
            sealed.truncate(position);
        } else {
            sealed[position] ^= change;
        }
        let before = json(&device);
        let answer = session.send(&mut device, START, import, &import_of(import, &sealed)).unwrap();
        prop_assert!(answer.is_err());
        prop_assert_eq!(json(&device), before);
    }

    /// PKCS#8 and the bodies of wrapped objects: a changed byte gives a key or an error, never a panic.
    #[test]
    fn keys_from_outside_are_keys_or_errors(
        algorithm in prop_oneof![
            Just(Algorithm::Ed25519),
            Just(Algorithm::EcP224),
            Just(Algorithm::EcP521),
            Just(Algorithm::EcBp512),
            Just(Algorithm::Rsa2048),
        ],
        as_algorithm in prop_oneof![Just(None), (1_u8..56).prop_map(Some)],
        position in any::<prop::sample::Index>(),
        change in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| {
            PrivateKey::generate(Algorithm::Rsa2048).unwrap().export().to_vec()
        });
        let key = match algorithm {
            Algorithm::Rsa2048 => PrivateKey::import(algorithm, &RSA).unwrap(),
            _ => PrivateKey::generate(algorithm).unwrap(),
        };
        let (pkcs8, wrapped) = (key.to_pkcs8(algorithm).unwrap(), key.to_wrapped(Ed25519Form::Seed).unwrap());
        for (form, pkcs8) in [(pkcs8, true), (wrapped, false)] {
            let read = |algorithm, bytes: &[u8]| match pkcs8 {
                true => PrivateKey::from_pkcs8(algorithm, bytes),
                false => PrivateKey::from_wrapped(algorithm, bytes),
            };
            let same = read(algorithm, &form).map(|key| key.public_key());
            prop_assert_eq!(same, Ok(key.public_key()));
            let mut changed = form.to_vec();
            changed[position.index(form.len())] ^= change;
            let other = as_algorithm.and_then(|byte| Algorithm::from_byte(byte).ok());
            let _ = read(other.unwrap_or(algorithm), &changed);
            prop_assert!(read(algorithm, &form[..cut.index(form.len())]).is_err());
        }
    }
}
