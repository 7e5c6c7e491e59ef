//! Signatures that no `ssh-keygen` makes here: of security keys, whose wire format is put together by hand
//! (OpenSSH `PROTOCOL.u2f`, `PROTOCOL.sshsig`), and documents that nobody may accept. What `ssh-keygen`
//! makes is in `tests/officers.rs`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256, Sha512};

use super::*;

const DEPLOYMENT: [u8; 16] = [7; 16];
const NOW: i64 = 1_800_000_000;

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A security key as it would answer, touched or not.
struct SecurityKey(Curve);

enum Curve {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl SecurityKey {
    fn kind(&self) -> &'static str {
        match self.0 {
            Curve::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Curve::P256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn public(&self) -> Vec<u8> {
        let mut blob = string(self.kind().as_bytes());
        match &self.0 {
            Curve::Ed25519(key) => blob.extend(string(key.verifying_key().as_bytes())),
            Curve::P256(key) => {
                blob.extend(string(b"nistp256"));
                let point = key.verifying_key().to_sec1_point(false);
                blob.extend(string(point.as_bytes()));
            }
        }
        blob.extend(string(b"ssh:"));
        blob
    }

    fn line(&self, name: &str) -> String {
        format!("{name} {} {}", self.kind(), STANDARD.encode(self.public()))
    }

    fn sign(&self, namespace: &str, document: &[u8], flags: u8) -> String {
        let mut signed = b"SSHSIG".to_vec();
        let hash = Sha512::digest(document);
        for part in [namespace.as_bytes(), b"", b"sha512", &hash] {
            signed.extend(string(part));
        }
        let mut asked = Sha256::digest(b"ssh:").to_vec();
        asked.push(flags);
        asked.extend(9u32.to_be_bytes());
        asked.extend(Sha256::digest(&signed));
        let mut signature = string(self.kind().as_bytes());
        match &self.0 {
            Curve::Ed25519(key) => signature.extend(string(&key.sign(&asked).to_bytes())),
            Curve::P256(key) => {
                let made: p256::ecdsa::Signature = key.sign(&asked);
                let (r, s) = made.split_bytes();
                let mpint = |bytes: &[u8]| string(&[&[0], bytes].concat());
                // A leading zero keeps the numbers positive; OpenSSH leaves it out where it can.
                let number = |bytes: &[u8]| match bytes.first() {
                    Some(first) if *first >= 0x80 => mpint(bytes),
                    _ => string(bytes),
                };
                signature.extend(string(&[number(&r), number(&s)].concat()));
            }
        }
        signature.push(flags);
        signature.extend(9u32.to_be_bytes());

        let mut whole = b"SSHSIG".to_vec();
        whole.extend(1u32.to_be_bytes());
        whole.extend(string(&self.public()));
        for part in [namespace.as_bytes(), b"", b"sha512", &signature] {
            whole.extend(string(part));
        }
        let text = STANDARD.encode(whole);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(70)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
            lines.join("\n")
        )
    }
}

fn ed25519(seed: u8) -> SecurityKey {
    SecurityKey(Curve::Ed25519(ed25519_dalek::SigningKey::from_bytes(
        &[seed; 32],
    )))
}

fn p256(seed: u8) -> SecurityKey {
    SecurityKey(Curve::P256(
        p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap(),
    ))
}

fn statement() -> SetOfficers {
    SetOfficers {
        threshold: 1,
        officers: vec![ed25519(9).line("new")],
    }
}

fn document() -> String {
    let expires = "2027-01-15T08:00:01Z".parse().unwrap();
    Document::new(&DEPLOYMENT, Nonce([3; 16]), expires, statement())
        .to_text()
        .unwrap()
}

fn authorise(
    officers: &Officers,
    document: &str,
    signatures: &[String],
    now: i64,
) -> Result<Authorised<SetOfficers>, Error> {
    let context = Context {
        deployment_id: &DEPLOYMENT,
        now,
        used: &BTreeMap::new(),
    };
    officers.authorise(document.as_bytes(), signatures, &context)
}

#[test]
fn touched_security_keys_of_both_curves_sign() {
    let (a, b) = (ed25519(1), p256(2));
    let list = format!(
        "{}\n# the second\n{} her comment\n",
        a.line("a"),
        b.line("b")
    );
    let officers = Officers::parse(&list, 2).unwrap();
    let namespace = SetOfficers::namespace();
    let document = document();
    let signatures = [&a, &b].map(|key| key.sign(&namespace, document.as_bytes(), 1));
    let good = authorise(&officers, &document, &signatures, NOW).unwrap();
    assert_eq!(good.signers(), ["a", "b"]);
    assert_eq!(good.statement(), &statement());
    assert_eq!(good.expires(), NOW + 1);

    let untouched = [
        a.sign(&namespace, document.as_bytes(), 1),
        b.sign(&namespace, document.as_bytes(), 0),
    ];
    assert!(matches!(
        authorise(&officers, &document, &untouched, NOW),
        Err(Error::Untouched { number: 2, .. })
    ));
}

#[test]
fn a_document_counts_until_it_expires_and_for_no_longer() {
    let key = ed25519(1);
    let officers = Officers::parse(&key.line("a"), 1).unwrap();
    let document = document();
    let signatures = [key.sign(&SetOfficers::namespace(), document.as_bytes(), 1)];
    assert!(authorise(&officers, &document, &signatures, NOW).is_ok());
    let late = authorise(&officers, &document, &signatures, NOW + 1);
    assert!(matches!(late, Err(Error::Expired { .. })));
    let early = authorise(&officers, &document, &signatures, NOW - 40 * 86_400);
    assert!(matches!(early, Err(Error::TooFarAhead { .. })));
}

#[test]
fn a_document_says_nothing_but_what_its_kind_knows() {
    let good = document();
    assert!(Document::<SetOfficers>::parse(good.as_bytes()).is_ok());
    for (bad, word) in [
        (
            good.replace("nonce =", "note = \"x\"\nnonce ="),
            "unknown field",
        ),
        (format!("{good}more = 1\n"), "unknown field"),
        (good.replace("threshold = 1\n", ""), "missing field"),
        (good.replace("03", "0X"), "nonce"),
        (good.replace("08:00:01Z", "08:00:01+02:00"), "UTC"),
        (good.replace("T08:00:01Z", ""), "UTC"),
        (good.replace("set-officers", "recover-key"), "recover-key"),
        ("\u{0}".to_owned(), "refused"),
        (" ".repeat(MAX_DOCUMENT + 1), "bytes long"),
    ] {
        let error = Document::<SetOfficers>::parse(bad.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn officers_have_names_and_keys_of_their_own() {
    let (a, b) = (ed25519(1), ed25519(2));
    let two = |first: String, second: String| Officers::parse(&format!("{first}\n{second}\n"), 1);
    assert!(two(a.line("a"), b.line("b")).is_ok());
    let same_name = two(a.line("a"), b.line("a")).unwrap_err();
    assert!(matches!(same_name, Error::Officer { .. }), "{same_name}");
    let same_key = two(a.line("a"), a.line("b")).unwrap_err();
    assert!(matches!(same_key, Error::Officer { .. }), "{same_key}");
    assert!(matches!(
        Officers::parse("# nobody\n", 1),
        Err(Error::Count(0))
    ));
    for threshold in [0, 2, usize::MAX] {
        let refused = Officers::parse(&a.line("a"), threshold);
        assert!(matches!(refused, Err(Error::Threshold { .. })));
    }
    for line in [
        "a",
        "a ssh-ed25519",
        "a ssh-ed25519 AAAA",
        "a namespaces=\"x\" ssh-ed25519 AAAA",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "p\u{e4}ul ssh-ed25519 AAAA",
    ] {
        assert!(
            matches!(Officers::parse(line, 1), Err(Error::Officer { .. })),
            "{line}"
        );
    }
}

#[test]
fn a_set_of_officers_comes_back_as_it_was_from_what_the_journal_keeps() {
    let list = format!("{}\n{}\n", ed25519(1).line("a"), p256(2).line("b"));
    let officers = Officers::parse(&list, 2).unwrap();
    assert_eq!(SetOfficers::from(&officers).officers().unwrap(), officers);
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_a_document_or_a_signature_by_chance(bytes: Vec<u8>, text: String) {
        let key = ed25519(1);
        let officers = Officers::parse(&key.line("a"), 1).unwrap();
        let context = Context { deployment_id: &DEPLOYMENT, now: NOW, used: &BTreeMap::new() };
        let given = officers.authorise::<SetOfficers>(&bytes, std::slice::from_ref(&text), &context);
        proptest::prop_assert!(given.is_err());
        let given = authorise(&officers, &document(), std::slice::from_ref(&text), NOW);
        proptest::prop_assert!(given.is_err());
        proptest::prop_assert!(Officers::parse(&text, 1).is_err());
    }

    #[test]
    fn any_changed_byte_of_a_signature_or_a_document_is_found(at: proptest::sample::Index, bit in 0..7u32) {
        let key = ed25519(1);
        let officers = Officers::parse(&key.line("a"), 1).unwrap();
        let document = document();
        let signature = key.sign(&SetOfficers::namespace(), document.as_bytes(), 1);
        let mut changed = document.clone().into_bytes();
        let place = at.index(changed.len());
        changed[place] ^= 1 << bit;
        let context = Context { deployment_id: &DEPLOYMENT, now: NOW, used: &BTreeMap::new() };
        let given = officers.authorise::<SetOfficers>(&changed, &[signature], &context);
        proptest::prop_assert!(given.is_err());
    }
}
