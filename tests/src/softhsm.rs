//! SoftHSM tokens, each in a directory of its own, so that tests share nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// The label of every token made here.
pub const TOKEN: &str = "validator";
/// The user's PIN of every token made here.
pub const PIN: &str = "123456";
/// The variable that tells SoftHSM where its configuration is.
pub const CONFIGURATION_VARIABLE: &str = "SOFTHSM2_CONF";

/// The file that [`CONFIGURATION_VARIABLE`] names for the token in `directory`.
#[must_use]
pub fn configuration(directory: &Path) -> PathBuf {
    directory.join("softhsm2.conf")
}

/// Makes an empty token below `directory`.
///
/// # Panics
///
/// If `softhsm2-util` fails.
pub fn create_token(directory: &Path) {
    let tokens = directory.join("tokens");
    std::fs::create_dir_all(&tokens).expect("the tokens' directory");
    let configuration = configuration(directory);
    std::fs::write(
        &configuration,
        format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            tokens.display()
        ),
    )
    .expect("SoftHSM's configuration");
    softhsm(
        directory,
        &[
            "--init-token",
            "--free",
            "--label",
            TOKEN,
            "--so-pin",
            "12345678",
            "--pin",
            PIN,
        ],
    );
}

/// Puts an Ed25519 key into the token under a label. The private key is the seed (RFC 8032).
///
/// # Panics
///
/// If `softhsm2-util` fails.
pub fn import_ed25519(directory: &Path, label: &str, number: u8, key: &SigningKey) {
    let file = directory.join(format!("{label}.pem"));
    std::fs::write(&file, pkcs8_pem(key)).expect("a key file");
    let id = format!("{number:02x}");
    let path = file.to_str().expect("a UTF-8 path");
    softhsm(
        directory,
        &[
            "--import", path, "--token", TOKEN, "--label", label, "--id", &id, "--pin", PIN,
        ],
    );
    std::fs::remove_file(&file).expect("the key file removed");
}

/// PKCS#8 (RFC 5958) of an Ed25519 private key, by RFC 8410.
fn pkcs8_pem(key: &SigningKey) -> String {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = [PREFIX.as_slice(), &key.to_bytes()].concat();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    )
}

fn softhsm(directory: &Path, arguments: &[&str]) {
    let output = Command::new("softhsm2-util")
        .args(arguments)
        .env(CONFIGURATION_VARIABLE, configuration(directory))
        .output()
        .expect("softhsm2-util runs");
    assert!(
        output.status.success(),
        "softhsm2-util {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
