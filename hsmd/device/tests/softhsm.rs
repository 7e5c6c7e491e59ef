//! The PKCS#11 backend against a real module: SoftHSM2 with tokens in a directory of their own.
//!
//! Where SoftHSM2 is missing the tests say so and pass, unless `CI` is set.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use hsm_device::pkcs11::Settings;
use hsm_device::{Algorithm, Device, Error, KeyLocator, State, Worker, WorkerOptions};
use tokio::time::Instant;

const PIN: &str = "135790";
const CURVES: [Algorithm; 3] = [Algorithm::Ed25519, Algorithm::Secp256k1, Algorithm::P256];

/// How many tokens there are to take: one for each test.
const TOKENS: usize = 8;

/// The module, with a directory for this process's tokens. It reads its environment, and finds its tokens, only once,
/// so all tests share it, and all tokens are made before it is loaded.
struct SoftHsm {
    module: PathBuf,
    context: Pkcs11,
    directory: PathBuf,
    free: Mutex<Vec<String>>,
}

static SOFTHSM: LazyLock<Option<SoftHsm>> = LazyLock::new(|| {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ];
    let module = places
        .iter()
        .map(PathBuf::from)
        .find(|place| place.exists());
    let Some(module) = module else {
        assert!(
            std::env::var_os("CI").is_none(),
            "SoftHSM2 is missing; apt-get install softhsm2"
        );
        return None;
    };
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("softhsm");
    let _ = std::fs::remove_dir_all(&directory);
    let tokens = directory.join("tokens");
    std::fs::create_dir_all(&tokens).unwrap();
    let configuration = directory.join("softhsm2.conf");
    std::fs::write(
        &configuration,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .unwrap();
    set_variable("SOFTHSM2_CONF", &configuration);
    let labels: Vec<String> = (1..=TOKENS)
        .map(|number| format!("token-{number}"))
        .collect();
    for label in &labels {
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                label,
                "--so-pin",
                "24680",
                "--pin",
                PIN,
            ])
            .output()
            .expect("softhsm2-util, of the same package");
        assert!(made.status.success(), "{made:?}");
    }
    let context = Pkcs11::new(&module).unwrap();
    context
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    Some(SoftHsm {
        module,
        context,
        directory,
        free: Mutex::new(labels),
    })
});

/// Sets a variable for the module, which reads it with getenv when it is initialised.
#[allow(unsafe_code)]
fn set_variable(variable: &str, value: &Path) {
    // SAFETY: called once, under the lock of SOFTHSM, before any C code that reads the environment is loaded. What Rust
    // code of other tests reads of it, it reads under the standard library's own lock.
    unsafe { std::env::set_var(variable, value) };
}

/// A fresh token, with its PIN in a file; `None`, after saying so, where SoftHSM2 is missing.
fn token() -> Option<Fixture> {
    let Some(softhsm) = &*SOFTHSM else {
        println!("skipped: needs softhsm2");
        return None;
    };
    let label = softhsm
        .free
        .lock()
        .unwrap()
        .pop()
        .expect("a token for each test: raise TOKENS");
    let pin_file = softhsm.directory.join(format!("{label}.pin"));
    write_secret(&pin_file, PIN);
    let settings = Settings {
        module: softhsm.module.clone(),
        token: label,
        pin_file,
    };
    Some(Fixture { settings })
}

fn write_secret(path: &Path, secret: &str) {
    std::fs::write(path, secret).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

struct Fixture {
    settings: Settings,
}

impl Fixture {
    fn open(&self) -> Result<Box<dyn Device>, Error> {
        self.settings.clone().opener().open()
    }

    /// Generates a key pair as an operator would, with a tool of their own.
    fn generate(&self, label: &str, id: &[u8], algorithm: Algorithm) {
        let module = &SOFTHSM.as_ref().unwrap().context;
        let slots = module.get_slots_with_initialized_token().unwrap();
        let wanted = |slot: &cryptoki::slot::Slot| {
            module
                .get_token_info(*slot)
                .is_ok_and(|t| t.label() == self.settings.token)
        };
        let slot = slots.into_iter().find(wanted).unwrap();
        let session = module.open_rw_session(slot).unwrap();
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(()) => {}
            Err(error) => assert!(error.to_string().contains("already"), "{error}"),
        }
        let (mechanism, kind, parameters) = match algorithm {
            Algorithm::Ed25519 => (
                Mechanism::EccEdwardsKeyPairGen,
                KeyType::EC_EDWARDS,
                vec![6, 3, 0x2b, 0x65, 0x70],
            ),
            Algorithm::Secp256k1 => (
                Mechanism::EccKeyPairGen,
                KeyType::EC,
                vec![6, 5, 0x2b, 0x81, 4, 0, 0x0a],
            ),
            Algorithm::P256 => (
                Mechanism::EccKeyPairGen,
                KeyType::EC,
                vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            ),
        };
        let label = Attribute::Label(label.as_bytes().to_vec());
        let id = Attribute::Id(id.to_vec());
        let public = [
            Attribute::Token(true),
            Attribute::KeyType(kind),
            Attribute::EcParams(parameters),
            Attribute::Verify(true),
            label.clone(),
            id.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Sign(true),
            label,
            id,
        ];
        session
            .generate_key_pair(&mechanism, &public, &private)
            .unwrap();
    }
}

fn labelled(label: &str, algorithm: Algorithm) -> KeyLocator {
    KeyLocator {
        label: Some(label.into()),
        id: None,
        algorithm,
    }
}

#[test]
fn both_algorithms_sign_what_verifies_and_secp256k1_always_with_a_low_s() {
    let Some(token) = token() else { return };
    for (id, algorithm) in CURVES.into_iter().enumerate() {
        token.generate("validator", &[id as u8], algorithm);
    }
    let mut device = token.open().unwrap();
    for algorithm in CURVES {
        let locator = labelled("validator", algorithm);
        let public = device.public_key(&locator).unwrap();
        assert_eq!(public.algorithm(), algorithm);
        // SoftHSM2 returns a high s for every other signature; verify() refuses those.
        for round in 0..64_u8 {
            let message = vec![round; usize::from(round) * 100];
            let signature = device.sign(&locator, &message).unwrap();
            public.verify(&message, &signature).unwrap();
        }
    }
    let info = device.info().unwrap();
    assert!(info.model.contains("SoftHSM"), "{info:?}");
    assert_eq!(info.serial.len(), 16);
    device.keep_alive().unwrap();
}

#[test]
fn a_key_is_found_by_label_by_id_and_by_both() {
    let Some(token) = token() else { return };
    token.generate("one", &[1], Algorithm::Ed25519);
    token.generate("two", &[2], Algorithm::Ed25519);
    let mut device = token.open().unwrap();
    let locator = |label: Option<&str>, id: Option<u8>| KeyLocator {
        label: label.map(str::to_owned),
        id: id.map(|id| vec![id]),
        algorithm: Algorithm::Ed25519,
    };
    let one = device.public_key(&locator(Some("one"), None)).unwrap();
    let two = device.public_key(&locator(None, Some(2))).unwrap();
    assert_ne!(one, two);
    assert_eq!(
        device.public_key(&locator(Some("one"), Some(1))).unwrap(),
        one
    );
    let mismatched = device.public_key(&locator(Some("one"), Some(2)));
    assert_eq!(
        mismatched,
        Err(Error::KeyNotFound(locator(Some("one"), Some(2))))
    );
    let nothing = device.public_key(&locator(None, None));
    assert!(matches!(nothing, Err(Error::InvalidLocator { .. })));
}

#[test]
fn a_key_that_is_missing_ambiguous_or_of_another_kind_is_each_refused_by_name() {
    let Some(token) = token() else { return };
    token.generate("twice", &[1], Algorithm::Ed25519);
    token.generate("twice", &[2], Algorithm::Ed25519);
    token.generate("curve", &[3], Algorithm::Secp256k1);
    let mut device = token.open().unwrap();
    let missing = device
        .sign(&labelled("missing", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(matches!(missing, Error::KeyNotFound(_)), "{missing}");
    assert!(missing.to_string().contains("\"missing\""), "{missing}");
    let ambiguous = device
        .sign(&labelled("twice", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(
        matches!(ambiguous, Error::KeyAmbiguous { count: 2, .. }),
        "{ambiguous}"
    );
    let wrong = device
        .sign(&labelled("curve", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(matches!(wrong, Error::WrongAlgorithm { .. }), "{wrong}");
    assert!(wrong.to_string().contains("secp256k1"), "{wrong}");
    // None of them costs the session.
    device
        .sign(&labelled("curve", Algorithm::Secp256k1), b"m")
        .unwrap();
}

#[test]
fn a_wrong_pin_is_offered_once_and_a_corrected_file_heals() {
    let Some(token) = token() else { return };
    let file = token.settings.pin_file.clone();
    write_secret(&file, "wrong-pin");
    let opener = token.settings.clone().opener();
    let refusal = |error: Error| match error {
        Error::PinRejected { cause, .. } => cause,
        other => panic!("{other}"),
    };
    assert!(refusal(opener.open().err().unwrap()).contains("PinIncorrect"));
    assert!(refusal(opener.open().err().unwrap()).contains("not tried again"));
    write_secret(&file, PIN);
    opener.open().unwrap();
}

#[test]
fn a_pin_file_that_others_can_read_is_refused() {
    let Some(token) = token() else { return };
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&token.settings.pin_file, open).unwrap();
    let error = token.open().err().unwrap();
    assert!(
        matches!(error, Error::PinFile { .. }) && error.to_string().contains("chmod"),
        "{error}"
    );
}

#[test]
fn a_missing_token_is_refused_with_those_that_are_there() {
    let Some(mut token) = token() else { return };
    let present = std::mem::replace(&mut token.settings.token, "other".to_owned());
    let error = token.open().err().unwrap();
    assert!(matches!(error, Error::Token { .. }), "{error}");
    assert!(
        error.to_string().contains(&present) && error.to_string().contains("other"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_module_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    for module in [PathBuf::from("/nonexistent/module.so"), text] {
        let settings = Settings {
            module: module.clone(),
            token: "any".to_owned(),
            pin_file: directory.path().join("pin"),
        };
        let error = settings.opener().open().err().unwrap();
        assert!(matches!(error, Error::Module { .. }), "{error}");
        assert!(
            error.to_string().contains(module.to_str().unwrap()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn two_workers_share_a_module_and_a_token() {
    let Some(token) = token() else { return };
    token.generate("validator", &[1], Algorithm::Secp256k1);
    let deadline = Instant::now() + Duration::from_secs(30);
    let locator = labelled("validator", Algorithm::Secp256k1);
    let start = |name: &str| {
        Worker::start(
            name,
            token.settings.clone().opener(),
            WorkerOptions::default(),
        )
        .unwrap()
    };
    let (one, two) = (start("one"), start("two"));
    let public = one.public_key(locator.clone(), deadline).await.unwrap();
    for round in 0..20_u8 {
        let (a, b) = tokio::join!(
            one.sign(locator.clone(), vec![round; 100], deadline),
            two.sign(locator.clone(), vec![round; 200], deadline),
        );
        public.verify(&[round; 100], &a.unwrap()).unwrap();
        public.verify(&[round; 200], &b.unwrap()).unwrap();
    }
    // One session that goes away takes nothing from the other.
    one.stop();
    let signature = two.sign(locator, vec![9], deadline).await.unwrap();
    public.verify(&[9], &signature).unwrap();
    assert_eq!(two.status().state, State::Ready);
}
