//! An officer of the tests' own, who signs policies.

use std::path::Path;
use std::process::Command;

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::daemon::allow_root;

/// What makes a command of hsmd, over the configuration that is meant.
pub type Hsmd<'a> = &'a dyn Fn(&[&str]) -> Command;

/// `hsmd state init`, with the one officer.
///
/// # Panics
///
/// If it fails.
pub fn create_state(directory: &Path, hsmd: Hsmd<'_>) {
    let list = directory.join("officer.pub");
    let public = officer().public_key().to_openssh().expect("a public key");
    std::fs::write(&list, format!("tests {public}\n")).expect("the list of officers");
    let list = list.to_str().expect("a UTF-8 path");
    let init = ["state", "init", "--officers", list, "--threshold", "1"];
    succeed(hsmd(&init).args(allow_root()));
}

/// The draft as officers are to sign it.
///
/// # Panics
///
/// If `hsmd policy sign-request` fails.
#[must_use]
pub fn request(directory: &Path, draft: &str, hsmd: Hsmd<'_>) -> String {
    let file = directory.join("policy.toml");
    std::fs::write(&file, draft).expect("the draft");
    let file = file.to_str().expect("a UTF-8 path");
    succeed(&mut hsmd(&["policy", "sign-request", file]))
}

/// Has the officer sign the draft, and loads it.
///
/// # Panics
///
/// If a command fails.
pub fn load(directory: &Path, draft: &str, hsmd: Hsmd<'_>) {
    let document = request(directory, draft, hsmd);
    let file = directory.join("policy-to-load.toml");
    let signature = directory.join("policy-to-load.toml.sig");
    std::fs::write(&signature, sign("policy@hsmd", document.as_bytes())).expect("a signature");
    std::fs::write(&file, document).expect("the document");
    let mut load = hsmd(&["policy", "load"]);
    load.arg("--document").arg(file);
    load.arg("--signature").arg(signature).args(allow_root());
    succeed(&mut load);
}

/// The officer's signature, as `ssh-keygen -Y sign` would make it.
///
/// # Panics
///
/// Never, save for a fault of the library.
#[must_use]
pub fn sign(namespace: &str, document: &[u8]) -> String {
    officer()
        .sign(namespace, HashAlg::Sha512, document)
        .and_then(|signature| signature.to_pem(LineEnding::LF))
        .expect("a signature")
}

fn officer() -> PrivateKey {
    let pair = Ed25519Keypair::from_seed(&[11; 32]);
    PrivateKey::new(KeypairData::Ed25519(pair), "").expect("a key")
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("hsmd runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).expect("text")
}
