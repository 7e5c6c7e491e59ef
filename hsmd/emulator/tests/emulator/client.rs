//! The yubihsm crate drives the emulator as it would the device.

use std::time::Duration;

use ed25519_dalek::Verifier as _;
use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use yubihsm::asymmetric::Algorithm;
use yubihsm::client::ErrorKind;
use yubihsm::object::{Filter, Label, Type};
use yubihsm::{Capability, Client, Domain, audit, authentication, command, opaque};
use yubihsm_emulator::{EMULATOR_MARK, EMULATOR_SERIALS, Emulator, Settings};

use crate::{ManualClock, admin, any_port, connector, open, start};

fn generate(client: &Client, id: u16, capabilities: Capability, algorithm: Algorithm) {
    let label = Label::from_bytes(b"a key").unwrap();
    let made = client.generate_asymmetric_key(id, label, Domain::DOM1, capabilities, algorithm);
    assert_eq!(made.unwrap(), id);
}

#[test]
fn ed25519_signatures_verify() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    let public = client.get_public_key(7).unwrap();
    let public =
        ed25519_dalek::VerifyingKey::from_bytes(public.as_ref().try_into().unwrap()).unwrap();
    for message in [vec![], vec![1; 130], vec![2; 2019]] {
        let signature = client.sign_ed25519(7, message.as_slice()).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
        public.verify(&message, &signature).unwrap();
    }
}

#[test]
fn secp256k1_signatures_verify_and_are_as_often_high_as_low() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_ECDSA, Algorithm::EcK256);
    let public = client.get_public_key(7).unwrap();
    let point = [&[4][..], public.as_ref()].concat();
    let public = k256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    let digest = [3; 32];
    let mut high = 0;
    for _ in 0..40 {
        let der = client.sign_ecdsa_prehash_raw(7, &digest[..]).unwrap();
        let signature = k256::ecdsa::Signature::from_der(&der).unwrap();
        high += usize::from(signature.normalize_s() != signature);
        public
            .verify_prehash(&digest, &signature.normalize_s())
            .unwrap();
    }
    // 40 throws of a coin that all fall on one side: once in 2^39 runs.
    assert!((1..40).contains(&high), "{high} of 40 are high");
}

#[test]
fn p256_signatures_verify_over_digests_of_every_length() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_ECDSA, Algorithm::EcP256);
    let public = client.get_public_key(7).unwrap();
    let point = [&[4][..], public.as_ref()].concat();
    let public = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    for length in [20, 32, 48, 64] {
        let digest: Vec<u8> = (1..=length).collect();
        let der = client.sign_ecdsa_prehash_raw(7, digest.as_slice()).unwrap();
        let signature = p256::ecdsa::Signature::from_der(&der).unwrap();
        // FIPS 186-5, 6.4.1: the leftmost 256 bits; a shorter digest is a smaller number.
        let mut number = [0; 32];
        let used = digest.len().min(32);
        number[32 - used..].copy_from_slice(&digest[..used]);
        public.verify_prehash(&number, &signature).unwrap();
    }
}

#[test]
fn an_imported_key_is_the_key_that_was_imported() {
    let emulator = start();
    let client = admin(&emulator);
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let (label, domain) = (Label::default(), Domain::DOM1);
    let capability = Capability::SIGN_EDDSA;
    client
        .put_asymmetric_key(7, label, domain, capability, Algorithm::Ed25519, [9; 32])
        .unwrap();
    assert_eq!(
        client.get_public_key(7).unwrap().as_ref(),
        key.verifying_key().as_bytes()
    );
}

#[test]
fn objects_are_listed_by_every_filter() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    generate(&client, 8, Capability::SIGN_ECDSA, Algorithm::EcP256);
    let ids = |filters: &[Filter]| -> Vec<u16> {
        client
            .list_objects(filters)
            .unwrap()
            .iter()
            .map(|entry| entry.object_id)
            .collect()
    };
    assert_eq!(ids(&[]), [1, 7, 8]);
    assert_eq!(ids(&[Filter::Id(7)]), [7]);
    assert_eq!(ids(&[Filter::Type(Type::AsymmetricKey)]), [7, 8]);
    assert!(ids(&[Filter::Type(Type::WrapKey)]).is_empty());
    assert_eq!(ids(&[Filter::Domains(Domain::DOM2)]), [1]);
    assert_eq!(
        ids(&[Filter::Label(Label::from_bytes(b"a key").unwrap())]),
        [7, 8]
    );
    let algorithm = yubihsm::Algorithm::Asymmetric(Algorithm::Ed25519);
    assert_eq!(ids(&[Filter::Algorithm(algorithm)]), [7]);
    let either = Capability::SIGN_EDDSA | Capability::SIGN_ECDSA;
    let keys = Filter::Type(Type::AsymmetricKey);
    assert_eq!(ids(&[Filter::Capabilities(either), keys]), [7, 8]);
}

#[test]
fn an_objects_information_is_what_it_was_made_with() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    let info = client.get_object_info(7, Type::AsymmetricKey).unwrap();
    assert_eq!(info.object_id, 7);
    assert_eq!(info.capabilities, Capability::SIGN_EDDSA);
    assert_eq!(info.domains, Domain::DOM1);
    assert_eq!(info.label.to_string(), "a key");
    assert_eq!(info.sequence, 0);
    assert_eq!(info.origin, yubihsm::object::Origin::Generated);
    assert_eq!(info.delegated_capabilities, Capability::empty());
}

#[test]
fn a_deleted_object_is_gone() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    client.delete_object(7, Type::AsymmetricKey).unwrap();
    client.get_public_key(7).unwrap_err();
    assert_eq!(client.list_objects(&[]).unwrap().len(), 1);
}

#[test]
fn reset_leaves_the_default_key_alone() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    client.reset_device().unwrap();
    let client = admin(&emulator);
    assert_eq!(client.list_objects(&[]).unwrap().len(), 1);
}

#[test]
fn a_session_without_the_capability_cannot_sign_or_delete() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    let algorithm = authentication::Algorithm::YubicoAes;
    let key = authentication::Key::derive_from_password(b"reader");
    let none = Capability::empty();
    client
        .put_authentication_key(
            2,
            Label::default(),
            Domain::DOM1,
            none,
            none,
            algorithm,
            key,
        )
        .unwrap();
    let reader = open(&emulator, 2, b"reader").unwrap();
    reader.get_public_key(7).unwrap();
    for refused in [
        reader.sign_ed25519(7, &b"x"[..]).map(drop),
        reader.delete_object(7, Type::AsymmetricKey),
    ] {
        assert_eq!(*refused.unwrap_err().kind(), ErrorKind::DeviceError);
    }
    client.sign_ed25519(7, &b"x"[..]).unwrap();
}

#[test]
fn a_wrong_password_does_not_open_a_session() {
    let emulator = start();
    let refused = open(&emulator, 1, b"wrong").map(drop).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::AuthenticationError);
}

#[test]
fn the_device_says_emulator_wherever_it_says_who_it_is() {
    let emulator = start();
    let client = admin(&emulator);
    let info = client.device_info().unwrap();
    let serial: u32 = info.serial_number.to_string().parse().unwrap();
    assert!(EMULATOR_SERIALS.contains(&serial));
    assert_eq!(
        (info.major_version, info.minor_version, info.build_version),
        (2, 4, 1)
    );
    // The crate leaves out what it does not know.
    for algorithm in [
        Algorithm::Ed25519,
        Algorithm::EcK256,
        Algorithm::EcBp512,
        Algorithm::Rsa4096,
    ] {
        let algorithm = yubihsm::Algorithm::Asymmetric(algorithm);
        assert!(info.algorithms.contains(&algorithm), "{algorithm:?}");
    }
    let certificate = client.get_opaque(0).unwrap();
    assert!(
        certificate
            .windows(8)
            .any(|part| part == EMULATOR_MARK.as_bytes())
    );
}

#[test]
fn a_serial_number_that_could_be_real_is_refused() {
    let settings = Settings {
        serial: 7_550_000,
        ..Settings::default()
    };
    let refused = Emulator::start(settings, any_port()).unwrap_err();
    assert!(refused.to_string().contains("7550000"), "{refused}");
}

#[test]
fn opaque_objects_random_bytes_storage_echo_and_blink_work() {
    let emulator = start();
    let client = admin(&emulator);
    let (label, none) = (Label::default(), Capability::empty());
    client
        .put_opaque(
            3,
            label,
            Domain::DOM1,
            none,
            opaque::Algorithm::Data,
            &b"data"[..],
        )
        .unwrap();
    assert_eq!(client.get_opaque(3).unwrap(), b"data");
    assert_eq!(client.get_pseudo_random(64).unwrap().len(), 64);
    assert_ne!(
        client.get_pseudo_random(16).unwrap(),
        client.get_pseudo_random(16).unwrap()
    );
    let storage = client.get_storage_info().unwrap();
    assert_eq!((storage.total_records, storage.free_records), (256, 254));
    assert_eq!(
        (storage.total_pages, storage.free_pages, storage.page_size),
        (1024, 1022, 126)
    );
    assert_eq!(client.echo(&b"hello"[..]).unwrap(), b"hello");
    client.blink_device(1).unwrap();
}

#[test]
fn the_audit_log_records_what_it_is_told_to() {
    let emulator = start();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    client
        .set_command_audit_option(command::Code::SignEddsa, audit::AuditOption::On)
        .unwrap();
    client.sign_ed25519(7, &b"x"[..]).unwrap();
    let log = client.get_log_entries().unwrap();
    assert_eq!(log.entries.len(), usize::from(log.num_entries));
    let last = log.entries.last().unwrap();
    assert_eq!(
        (last.cmd, last.session_key, last.target_key),
        (command::Code::SignEddsa, 1, 7)
    );
    client.set_log_index(last.item).unwrap();
    assert_eq!(client.get_log_entries().unwrap().num_entries, 0);
    assert_eq!(
        client.get_force_audit_option().unwrap(),
        audit::AuditOption::Off
    );
}

#[test]
fn an_expired_session_is_refused_and_a_new_one_opens() {
    let time = ManualClock::default();
    let settings = Settings {
        clock: time.clock(),
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, any_port()).unwrap();
    let client = admin(&emulator);
    time.advance(Duration::from_millis(30_001));
    client.echo(&b"too late"[..]).unwrap_err();
    admin(&emulator).echo(&b"in time"[..]).unwrap();
}

#[test]
fn sixteen_clients_have_a_session_and_the_seventeenth_waits_for_one_to_expire() {
    let time = ManualClock::default();
    let settings = Settings {
        clock: time.clock(),
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, any_port()).unwrap();
    let credentials = yubihsm::Credentials::default();
    let open = || Client::open(connector(&emulator), credentials.clone(), false);
    let clients: Vec<Client> = (0..16).map(|_| open().unwrap()).collect();
    open().map(drop).unwrap_err();
    time.advance(Duration::from_millis(30_001));
    open().unwrap();
    drop(clients);
}

#[test]
fn a_signature_every_29_6_seconds_for_a_day_loses_nothing() {
    let time = ManualClock::default();
    let settings = Settings {
        clock: time.clock(),
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, any_port()).unwrap();
    let client = admin(&emulator);
    generate(&client, 7, Capability::SIGN_EDDSA, Algorithm::Ed25519);
    for _ in 0..24 * 3600 * 10 / 296 {
        time.advance(Duration::from_millis(29_600));
        client.sign_ed25519(7, &b"vote"[..]).unwrap();
    }
}
