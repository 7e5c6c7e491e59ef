//! Faults on demand, as a client sees them.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ed25519_dalek::Verifier as _;
use yubihsm::asymmetric::Algorithm;
use yubihsm::client::ErrorKind;
use yubihsm::object::{Label, Type};
use yubihsm::{Capability, Client, Domain};
use yubihsm_emulator::{Emulator, ErrorCode, Fault, Latency, Settings};

use crate::{admin, any_port, start};

fn signer(emulator: &Emulator) -> Client {
    let client = admin(emulator);
    let capability = Capability::SIGN_EDDSA;
    client
        .generate_asymmetric_key(
            7,
            Label::default(),
            Domain::DOM1,
            capability,
            Algorithm::Ed25519,
        )
        .unwrap();
    client
}

fn sign(client: &Client) -> Result<(), yubihsm::client::Error> {
    client.sign_ed25519(7, &b"vote"[..]).map(drop)
}

#[test]
fn a_disconnecting_device_recovers() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::Disconnect);
    sign(&client).unwrap_err();
    emulator.clear_faults();
    sign(&admin(&emulator)).unwrap();
}

#[test]
fn a_hanging_device_answers_once_it_is_let_go() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::Hang);
    let (done, signed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| done.send(sign(&client)).unwrap());
        let waited = signed.recv_timeout(Duration::from_millis(200));
        assert_eq!(waited.unwrap_err(), mpsc::RecvTimeoutError::Timeout);
        emulator.clear_faults();
        signed.recv().unwrap().unwrap();
    });
}

#[test]
fn lost_sessions_are_lost_once() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::LoseSessions);
    sign(&client).unwrap_err();
    sign(&admin(&emulator)).unwrap();
}

#[test]
fn a_power_cut_takes_the_sessions_and_leaves_what_was_stored() {
    let emulator = start();
    let client = signer(&emulator);
    let boots = || {
        let entries = admin(&emulator).get_log_entries().unwrap().entries;
        entries.iter().filter(|entry| entry.cmd as u8 == 0).count()
    };
    let before = boots();
    emulator.inject(Fault::CutPower);
    sign(&client).unwrap_err();
    sign(&client).unwrap_err();
    sign(&admin(&emulator)).unwrap();
    assert_eq!(boots(), before + 1);
}

#[test]
fn a_chosen_error_reaches_the_caller_and_nothing_is_done() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::Refuse(ErrorCode::StorageFailed));
    let refused = client.delete_object(7, Type::AsymmetricKey).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::DeviceError, "{refused}");
    emulator.clear_faults();
    sign(&client).unwrap();
}

#[test]
fn a_lost_answer_does_not_undo_the_command() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::LoseAnswers);
    client.delete_object(7, Type::AsymmetricKey).unwrap_err();
    emulator.clear_faults();
    admin(&emulator).get_public_key(7).unwrap_err();
}

#[test]
fn a_corrupted_answer_does_not_authenticate() {
    let emulator = start();
    let client = signer(&emulator);
    emulator.inject(Fault::CorruptAnswers);
    sign(&client).unwrap_err();
}

#[test]
fn a_spoiled_signature_arrives_and_does_not_verify() {
    let emulator = start();
    let client = signer(&emulator);
    let public = client.get_public_key(7).unwrap();
    let public =
        ed25519_dalek::VerifyingKey::from_bytes(public.as_ref().try_into().unwrap()).unwrap();
    emulator.inject(Fault::SpoilSignatures);
    let signature = client.sign_ed25519(7, &b"vote"[..]).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    public.verify(b"vote", &signature).unwrap_err();
}

#[test]
fn with_the_vendors_latency_a_signature_takes_as_long_as_on_the_device() {
    let settings = Settings {
        latency: Latency::Vendor,
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, any_port()).unwrap();
    let client = signer(&emulator);
    let started = Instant::now();
    sign(&client).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(105));
}
