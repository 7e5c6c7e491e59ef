//! What the real `ssh-keygen -Y sign` makes, and what officers could get wrong with it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use hsm_policy::officers::{
    Authorised, Context, Document, Error, Nonce, Officers, RecoverKey, SetOfficers, Statement as _,
};

const DEPLOYMENT: [u8; 16] = [7; 16];
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;

/// Whether there is an ssh-keygen that signs; where env CI is set there has to be one.
fn there_is_an_ssh_keygen() -> bool {
    let found = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "needs ssh-keygen");
        println!("skipped: needs ssh-keygen");
    }
    found
}

fn ssh_keygen(arguments: &[&str]) {
    let output = Command::new("ssh-keygen").args(arguments).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ssh-keygen {arguments:?}: {err}");
}

/// A new key; its line of allowed_signers.
fn officer(directory: &Path, name: &str, kind: &str) -> String {
    let file = directory.join(name);
    ssh_keygen(&[
        "-q",
        "-t",
        kind,
        "-N",
        "",
        "-C",
        name,
        "-f",
        file.to_str().unwrap(),
    ]);
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    format!("{name} {public}")
}

fn sign(directory: &Path, name: &str, namespace: &str, document: &str) -> String {
    let file = directory.join("document.toml");
    std::fs::write(&file, document).unwrap();
    let signature = directory.join("document.toml.sig");
    let _ = std::fs::remove_file(&signature);
    let key = directory.join(name);
    ssh_keygen(&[
        "-q",
        "-Y",
        "sign",
        "-f",
        key.to_str().unwrap(),
        "-n",
        namespace,
        file.to_str().unwrap(),
    ]);
    std::fs::read_to_string(signature).unwrap()
}

fn document(deployment: [u8; 16]) -> String {
    let statement = RecoverKey {
        key: "hub".to_owned(),
        public_key: "00".repeat(32),
        chain_id: "hub-1".to_owned(),
        evidence_sha256: String::new(),
        evidence_height: 900,
        margin: 1000,
        old_device_is_off: "in the safe, without its power supply".to_owned(),
    };
    let expires = "2027-01-16T08:00:00Z".parse().unwrap();
    let document = Document::new(&deployment, Nonce([3; 16]), expires, statement);
    document.to_text().unwrap()
}

fn authorise(
    officers: &Officers,
    document: &str,
    signatures: &[String],
    used: &BTreeMap<Nonce, i64>,
) -> Result<Authorised<RecoverKey>, Error> {
    let context = Context {
        deployment_id: &DEPLOYMENT,
        now: NOW,
        used,
    };
    officers.authorise(document.as_bytes(), signatures, &context)
}

#[test]
fn two_of_three_officers_are_enough_and_nothing_less_is() {
    if !there_is_an_ssh_keygen() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let lines = [
        officer(directory, "ada", "ed25519"),
        officer(directory, "bob", "ecdsa"),
        officer(directory, "cleo", "ed25519"),
    ];
    let mallory = officer(directory, "mallory", "ed25519");
    let officers = Officers::parse(&lines.concat(), 2).unwrap();
    let unused = BTreeMap::new();
    let namespace = RecoverKey::namespace();
    let text = document(DEPLOYMENT);
    let by = |name| sign(directory, name, &namespace, &text);
    let (ada, bob) = (by("ada"), by("bob"));
    let refused = |document: &str, signatures: &[&String]| {
        let signatures: Vec<String> = signatures.iter().copied().cloned().collect();
        authorise(&officers, document, &signatures, &unused).unwrap_err()
    };

    let both = [ada.clone(), bob.clone()];
    let good = authorise(&officers, &text, &both, &unused).unwrap();
    assert_eq!(good.signers(), ["ada", "bob"]);
    assert_eq!(good.statement().margin, 1000);

    let used = BTreeMap::from([(good.nonce(), good.expires())]);
    let again = authorise(&officers, &text, &both, &used).unwrap_err();
    assert!(matches!(again, Error::Replayed { .. }), "{again}");

    let few = refused(&text, &[&ada]);
    assert!(
        matches!(
            few,
            Error::TooFew {
                signed: 1,
                threshold: 2,
                ..
            }
        ),
        "{few}"
    );
    let none = refused(&text, &[]);
    assert!(matches!(none, Error::TooFew { signed: 0, .. }), "{none}");
    let twice = refused(&text, &[&ada, &by("ada")]);
    assert!(matches!(twice, Error::Twice { .. }), "{twice}");
    let stranger = refused(&text, &[&ada, &by("mallory")]);
    assert!(
        matches!(stranger, Error::Stranger { number: 2, .. }),
        "{stranger}"
    );
    assert!(mallory.contains("mallory"));
    let changed = refused(&text.replace("1000", "1001"), &[&ada, &bob]);
    assert!(
        matches!(changed, Error::Forged { number: 1, .. }),
        "{changed}"
    );
    let blank = refused(&format!("{text}\n"), &[&ada, &bob]);
    assert!(matches!(blank, Error::Forged { .. }), "{blank}");
    let four = refused(&text, &[&ada, &bob, &ada, &bob]);
    assert!(matches!(four, Error::TooMany { .. }), "{four}");

    let elsewhere = document([8; 16]);
    let theirs = [
        sign(directory, "ada", &namespace, &elsewhere),
        sign(directory, "bob", &namespace, &elsewhere),
    ];
    let other = refused(&elsewhere, &[&theirs[0], &theirs[1]]);
    assert!(matches!(other, Error::Deployment { .. }), "{other}");

    let wrong = sign(directory, "bob", &SetOfficers::namespace(), &text);
    let namespace = refused(&text, &[&ada, &wrong]);
    assert!(
        matches!(namespace, Error::Namespace { number: 2, .. }),
        "{namespace}"
    );

    let unknown = text.replace("[statement]\n", "[statement]\nalso = true\n");
    let field = refused(&unknown, &[&ada, &bob]);
    assert!(field.to_string().contains("unknown field"), "{field}");
}

#[test]
fn a_key_of_a_kind_that_is_not_accepted_is_no_officers() {
    if !there_is_an_ssh_keygen() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let line = officer(directory.path(), "rob", "rsa");
    let refused = Officers::parse(&line, 1).unwrap_err().to_string();
    assert!(refused.contains("accepted are ssh-ed25519"), "{refused}");
}
