//! The state file: what comes back, and what is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use yubihsm::asymmetric::Algorithm;
use yubihsm::object::{Label, Type};
use yubihsm::{Capability, Domain};
use yubihsm_emulator::state_file::Problem;
use yubihsm_emulator::{Emulator, Error, Settings};

use crate::{admin, any_port};

fn start(path: &Path) -> Result<Emulator, Error> {
    let settings = Settings {
        state_file: Some(path.to_owned()),
        ..Settings::default()
    };
    Emulator::start(settings, any_port())
}

fn problem(path: &Path) -> Problem {
    match start(path).unwrap_err() {
        Error::State { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

fn generate(emulator: &Emulator, id: u16) -> Vec<u8> {
    let client = admin(emulator);
    let capability = Capability::SIGN_EDDSA;
    client
        .generate_asymmetric_key(
            id,
            Label::default(),
            Domain::DOM1,
            capability,
            Algorithm::Ed25519,
        )
        .unwrap();
    client.get_public_key(id).unwrap().as_ref().to_vec()
}

#[test]
fn keys_sequences_and_the_certificate_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm");
    let emulator = start(&path).unwrap();
    let public = generate(&emulator, 7);
    generate(&emulator, 8);
    let client = admin(&emulator);
    client.delete_object(8, Type::AsymmetricKey).unwrap();
    let certificate = client.get_opaque(0).unwrap();
    drop(emulator);

    let emulator = start(&path).unwrap();
    let client = admin(&emulator);
    assert_eq!(client.get_public_key(7).unwrap().as_ref(), public);
    client.sign_ed25519(7, &b"x"[..]).unwrap();
    assert_eq!(client.get_opaque(0).unwrap(), certificate);
    generate(&emulator, 8);
    assert_eq!(
        client
            .get_object_info(8, Type::AsymmetricKey)
            .unwrap()
            .sequence,
        1
    );
}

#[test]
fn the_file_is_its_owners_alone_and_says_that_it_protects_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm");
    let _emulator = start(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().next().unwrap().contains("PROTECTS NOTHING"));
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm");
    drop(start(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    for damaged in [&b""[..], b"{}", &whole[..whole.len() / 2], &altered] {
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(problem(&path), Problem::Damaged(_)));
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    std::fs::write(&path, whole).unwrap();
    start(&path).unwrap();
}

#[test]
fn a_file_of_another_device_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm");
    let settings = Settings {
        serial: 4_200_000_007,
        state_file: Some(path.clone()),
        ..Settings::default()
    };
    drop(Emulator::start(settings, any_port()).unwrap());
    assert!(matches!(problem(&path), Problem::Serial(4_200_000_007)));
}

#[test]
fn a_file_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm");
    let _emulator = start(&path).unwrap();
    assert!(matches!(problem(&path), Problem::InUse));
}

#[test]
fn a_change_that_cannot_be_written_is_not_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("hsm");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let emulator = start(&path).unwrap();
    let client = admin(&emulator);
    std::fs::rename(path.parent().unwrap(), folder.path().join("moved")).unwrap();
    let capability = Capability::SIGN_EDDSA;
    client
        .generate_asymmetric_key(
            7,
            Label::default(),
            Domain::DOM1,
            capability,
            Algorithm::Ed25519,
        )
        .unwrap_err();
}
