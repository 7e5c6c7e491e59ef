//! Attestation certificates, and what is refused. Their chains: `tests/vendor/attestation.py`.

use std::process::Command;

use super::*;

const ATTEST: u8 = 0x64;
const ATTESTS: u64 = 1 << 0x22;
const EC_P256: u8 = 12;
const EC_K256: u8 = 15;
const RSA_2048: u8 = 9;

/// One command in a session of its own.
fn run(device: &mut Device, command: u8, data: &[u8]) -> Result<Vec<u8>, u8> {
    let mut session = admin(device);
    let answer = session.send(device, START, command, data).unwrap();
    session.send(device, START, 0x40, b"").unwrap().unwrap();
    answer
}

/// Attested key and attesting key, as the command has them.
fn attest(device: &mut Device, id: u8, by: u8) -> Result<Vec<u8>, u8> {
    run(device, ATTEST, &[0, id, 0, by])
}

fn generate(device: &mut Device, id: u16, capabilities: u64, algorithm: u8) {
    run(device, 0x46, &properties(id, 1, capabilities, algorithm)).unwrap();
}

fn put_certificate(device: &mut Device, id: u16, certificate: &[u8]) {
    let data = [&properties(id, 1, 0, 31)[..], certificate].concat();
    run(device, 0x42, &data).unwrap();
}

/// Whether `openssl` says that `issuer` signed `certificate`; both in DER.
fn is_chain(certificate: &[u8], issuer: &[u8]) -> Option<bool> {
    let folder = tempfile::tempdir().unwrap();
    let pem = |name: &str, der: &[u8]| {
        let (from, to) = (folder.path().join("der"), folder.path().join(name));
        std::fs::write(&from, der).unwrap();
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-inform", "DER", "-in"]).arg(from);
        let status = convert.arg("-out").arg(&to).status();
        status.ok().map(|status| {
            assert!(status.success(), "{name} is a certificate");
            to
        })
    };
    let Some(root) = pem("root", issuer) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "needs the openssl command"
        );
        println!("skipped: needs the openssl command");
        return None;
    };
    let leaf = pem("leaf", certificate).unwrap();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-CAfile"]).arg(root).arg(leaf);
    Some(verify.output().unwrap().status.success())
}

#[test]
fn the_factory_key_attests_and_no_other_factory_does() {
    let (mut device, other) = (device(), {
        let serial = *EMULATOR_SERIALS.end();
        Device::manufacture(serial, (2, 4, 1), START).unwrap()
    });
    for (id, algorithm) in [(7, EC_P256), (8, EC_K256), (9, RSA_2048)] {
        generate(&mut device, id, 0, algorithm);
        let certificate = attest(&mut device, u8::try_from(id).unwrap(), 0).unwrap();
        let verified = is_chain(&certificate, &device.identity.certificate);
        assert_ne!(verified, Some(false), "{algorithm}");
        let verified = is_chain(&certificate, &other.identity.certificate);
        assert_ne!(verified, Some(true), "{algorithm}");
    }
}

#[test]
fn a_key_of_ones_own_attests_with_the_certificate_beside_it() {
    let mut device = device();
    generate(&mut device, 7, 0, EC_P256);
    generate(&mut device, 8, ATTESTS, EC_P256);
    let not_found = code(ErrorCode::ObjectNotFound);
    assert_eq!(attest(&mut device, 7, 8), not_found);
    // What the factory says of the key is a certificate as well.
    let certificate = attest(&mut device, 8, 0).unwrap();
    put_certificate(&mut device, 8, &certificate);
    let attestation = attest(&mut device, 7, 8).unwrap();
    let name = b"YubiHSM Attestation id 0x0008";
    assert!(attestation.windows(name.len()).any(|part| part == name));
}

#[test]
fn attestation_refuses_what_it_cannot_do() {
    let mut device = device();
    generate(&mut device, 7, 0, EC_P256);
    generate(&mut device, 8, 0, EC_P256);
    generate(&mut device, 9, ATTESTS, EC_P256);
    generate(&mut device, 10, ATTESTS, ED25519);
    let certificate = device.identity.certificate.clone();
    for id in [8, 10] {
        put_certificate(&mut device, id, &certificate);
    }
    put_certificate(&mut device, 9, &certificate[..certificate.len() - 1]);
    for (attested, by, expected) in [
        (10, 0, ErrorCode::InvalidData),
        (11, 0, ErrorCode::ObjectNotFound),
        (0, 0, ErrorCode::ObjectNotFound),
        (7, 11, ErrorCode::ObjectNotFound),
        (7, 7, ErrorCode::InsufficientPermissions),
        (7, 8, ErrorCode::InsufficientPermissions),
        (7, 9, ErrorCode::InvalidData),
        (7, 10, ErrorCode::InvalidData),
    ] {
        let refused = attest(&mut device, attested, by);
        assert_eq!(refused, code(expected), "{attested} by {by}");
    }
    let mut session = session_with(&mut device, 1, !ATTESTS, 0);
    let refused = session.send(&mut device, START, ATTEST, &[0, 7, 0, 0]);
    assert_eq!(refused.unwrap(), code(ErrorCode::InsufficientPermissions));
}

#[test]
fn an_imported_key_is_attested_as_such() {
    let mut device = device();
    let imported = [properties(7, 1, 0, EC_P256), vec![1; 32]].concat();
    run(&mut device, 0x45, &imported).unwrap();
    generate(&mut device, 8, 0, EC_P256);
    // OID 1.3.6.1.4.1.41482.4.3, then the octets of a bit string with the origin.
    let extension = |origin| {
        let oid = [0x06, 0x0a, 0x2b, 6, 1, 4, 1, 0x82, 0xc4, 0x0a, 0x04, 0x03];
        [&oid[..], &[0x04, 4, 0x03, 2, 0, origin]].concat()
    };
    for (id, origin) in [(7, 2), (8, 1)] {
        let certificate = attest(&mut device, id, 0).unwrap();
        let extension = extension(origin);
        let found = certificate
            .windows(extension.len())
            .any(|part| part == extension);
        assert!(found, "{id}");
    }
}
