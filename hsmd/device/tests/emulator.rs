//! The YubiHSM2 client against the emulator, over the connector's HTTP on loopback.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::yubihsm::audit::AuditOption;
use ::yubihsm::object::Label;
use ::yubihsm::{
    Capability, Client, Connector, Credentials, Domain, HttpConfig, asymmetric, command,
};
use hsm_device::mock::{Clock, Fault, Latency, Mock, Settings};
use hsm_device::{
    Algorithm, Backend, Error, KeyLocator, PublicKey, State, Worker, WorkerOptions, yubihsm,
};
use tokio::time::Instant;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Ed25519, Algorithm::Secp256k1, Algorithm::P256];

fn labelled(label: &str, algorithm: Algorithm) -> KeyLocator {
    KeyLocator {
        label: Some(label.into()),
        id: None,
        algorithm,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// An emulator with one Ed25519 key, and a worker on it.
struct Fixture {
    mock: Mock,
    worker: Worker,
    locator: KeyLocator,
    public: PublicKey,
}

impl Fixture {
    fn start(settings: Settings, options: WorkerOptions) -> Self {
        let mock = Mock::start(settings).unwrap();
        let public = mock.ensure_key("validator", Algorithm::Ed25519).unwrap();
        let worker = Worker::start("mock", mock.opener(), options).unwrap();
        Self {
            mock,
            worker,
            locator: labelled("validator", Algorithm::Ed25519),
            public,
        }
    }

    /// Signs and verifies; fails where the deadline is not kept.
    async fn sign(&self, message: &[u8], limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let signed = self
            .worker
            .sign(self.locator.clone(), message, begun + limit)
            .await;
        let late = Duration::from_millis(200);
        assert!(
            begun.elapsed() < limit + late,
            "answered after {:?}",
            begun.elapsed()
        );
        self.public.verify(message, &signed?)
    }

    /// Signs until it works, as a validator would with its next votes.
    async fn heal(&self) {
        let healed = async {
            while self.sign(b"again", Duration::from_secs(3)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let limit = Duration::from_secs(30);
        assert!(
            tokio::time::timeout(limit, healed).await.is_ok(),
            "{:?}",
            self.worker.status()
        );
        assert_eq!(self.worker.status().state, State::Ready);
    }
}

#[test]
fn both_algorithms_sign_what_verifies_and_secp256k1_always_with_a_low_s() {
    let mock = Mock::start(Settings::default()).unwrap();
    let mut device = mock.opener().open().unwrap();
    for algorithm in ALGORITHMS {
        let public = mock.ensure_key("validator", algorithm).unwrap();
        let locator = labelled("validator", algorithm);
        assert_eq!(device.public_key(&locator).unwrap(), public);
        for round in 0..32_u8 {
            let message = vec![round; usize::from(round) * 60];
            public
                .verify(&message, &device.sign(&locator, &message).unwrap())
                .unwrap();
        }
    }
    let longest = vec![7; Backend::Mock.message_limit(Algorithm::Ed25519).unwrap()];
    let locator = labelled("validator", Algorithm::Ed25519);
    let public = device.public_key(&locator).unwrap();
    public
        .verify(&longest, &device.sign(&locator, &longest).unwrap())
        .unwrap();
    let refused = device.sign(&locator, &[longest, vec![7]].concat());
    assert!(matches!(refused, Err(Error::MessageTooLong { .. })));
    device.keep_alive().unwrap();
    assert!(device.info().unwrap().model.contains("EMULATOR"));
}

/// Makes a key as an operator would, with a client of their own.
fn generate(mock: &Mock, id: u16, label: &str, capability: Capability) {
    let address = mock.address();
    let connector = Connector::http(&HttpConfig {
        addr: address.ip().to_string(),
        port: address.port(),
        ..HttpConfig::default()
    });
    let client = Client::open(connector, Credentials::default(), false).unwrap();
    let (label, ed25519) = (
        Label::from_bytes(label.as_bytes()).unwrap(),
        asymmetric::Algorithm::Ed25519,
    );
    client
        .generate_asymmetric_key(id, label, Domain::DOM1, capability, ed25519)
        .unwrap();
}

#[test]
fn a_key_is_found_by_label_by_id_and_by_both() {
    let mock = Mock::start(Settings::default()).unwrap();
    generate(&mock, 0x0102, "one", Capability::SIGN_EDDSA);
    generate(&mock, 0x0103, "two", Capability::SIGN_EDDSA);
    let mut device = mock.opener().open().unwrap();
    let locator = |label: Option<&str>, id: Option<[u8; 2]>| KeyLocator {
        label: label.map(str::to_owned),
        id: id.map(Vec::from),
        algorithm: Algorithm::Ed25519,
    };
    let one = device.public_key(&locator(Some("one"), None)).unwrap();
    let two = device.public_key(&locator(None, Some([1, 3]))).unwrap();
    assert_ne!(one, two);
    assert_eq!(
        device
            .public_key(&locator(Some("one"), Some([1, 2])))
            .unwrap(),
        one
    );
    let mismatched = device.public_key(&locator(Some("one"), Some([1, 3])));
    assert_eq!(
        mismatched,
        Err(Error::KeyNotFound(locator(Some("one"), Some([1, 3]))))
    );
}

#[test]
fn a_key_that_is_missing_ambiguous_of_another_kind_or_unable_is_each_refused_by_name() {
    let mock = Mock::start(Settings::default()).unwrap();
    generate(&mock, 1, "twice", Capability::SIGN_EDDSA);
    generate(&mock, 2, "twice", Capability::SIGN_EDDSA);
    generate(&mock, 3, "once", Capability::SIGN_EDDSA);
    generate(&mock, 4, "unable", Capability::SIGN_ECDSA);
    let mut device = mock.opener().open().unwrap();
    let missing = device
        .sign(&labelled("missing", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(matches!(missing, Error::KeyNotFound(_)), "{missing}");
    let ambiguous = device
        .sign(&labelled("twice", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(
        matches!(ambiguous, Error::KeyAmbiguous { count: 2, .. }),
        "{ambiguous}"
    );
    let wrong = device
        .sign(&labelled("once", Algorithm::Secp256k1), b"m")
        .unwrap_err();
    assert!(matches!(wrong, Error::WrongAlgorithm { .. }), "{wrong}");
    let unable = device
        .sign(&labelled("unable", Algorithm::Ed25519), b"m")
        .unwrap_err();
    assert!(matches!(unable, Error::Refused { .. }), "{unable}");
    assert!(unable.to_string().contains("SIGN_EDDSA"), "{unable}");
    // None of them costs the session.
    device
        .sign(&labelled("once", Algorithm::Ed25519), b"m")
        .unwrap();
}

#[test]
fn keys_outlive_the_emulator_in_its_state_file() {
    let directory = tempfile::tempdir().unwrap();
    let settings = || Settings {
        state_file: Some(directory.path().join("state")),
        ..Settings::default()
    };
    let first = Mock::start(settings()).unwrap();
    let public = first.ensure_key("validator", Algorithm::Secp256k1).unwrap();
    drop(first);
    let again = Mock::start(settings())
        .unwrap()
        .ensure_key("validator", Algorithm::Secp256k1);
    assert_eq!(again.unwrap(), public);
}

#[test]
fn the_backend_for_hardware_refuses_the_emulator_and_a_wrong_password() {
    let mock = Mock::start(Settings::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("password");
    let write = |password: &str| {
        std::fs::write(&password_file, password).unwrap();
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let settings = |port, authentication_key| yubihsm::Settings {
        connector: yubihsm::Connector::Http {
            host: "127.0.0.1".into(),
            port,
        },
        authentication_key,
        password_file: password_file.clone(),
    };
    write("not the password");
    let opener = settings(mock.address().port(), 1).opener();
    let rejected = opener.open().err().unwrap();
    assert!(matches!(rejected, Error::PinRejected { .. }), "{rejected}");
    write("password");
    let identity = opener.open().err().unwrap();
    assert!(matches!(identity, Error::Identity(_)), "{identity}");
    assert!(identity.to_string().contains("--mock"), "{identity}");
    let no_such_key = settings(mock.address().port(), 99)
        .opener()
        .open()
        .err()
        .unwrap();
    assert!(
        matches!(no_such_key, Error::PinRejected { .. }),
        "{no_such_key}"
    );
    let port = mock.address().port();
    drop(mock);
    let gone = settings(port, 1).opener().open().err().unwrap();
    assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
}

#[tokio::test]
async fn lost_sessions_cost_no_request() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    for round in 0..5_u8 {
        fixture.mock.inject(Fault::LoseSessions);
        fixture
            .sign(&[round], Duration::from_secs(3))
            .await
            .unwrap();
    }
    assert_eq!(fixture.worker.status().state, State::Ready);
}

#[tokio::test]
async fn every_fault_of_device_or_connection_is_a_typed_error_in_time_and_heals_without_a_restart()
{
    let options = WorkerOptions {
        hang: Duration::from_millis(300),
        ..WorkerOptions::default()
    };
    let fixture = Fixture::start(Settings::default(), options);
    fixture
        .sign(b"before", Duration::from_secs(3))
        .await
        .unwrap();
    for fault in [
        Fault::Disconnect,
        Fault::LoseAnswers,
        Fault::CorruptAnswers,
        Fault::SpoilSignatures,
        Fault::Hang,
    ] {
        fixture.mock.inject(fault);
        let error = fixture
            .sign(b"during", Duration::from_secs(1))
            .await
            .unwrap_err();
        match fault {
            Fault::SpoilSignatures => assert!(matches!(error, Error::BadSignature { .. })),
            Fault::Hang => assert!(matches!(error, Error::Hung { .. }), "{error}"),
            _ => assert!(error.is_retryable(), "{fault:?}: {error}"),
        }
        fixture.mock.clear_faults();
        fixture.heal().await;
    }
}

#[tokio::test]
async fn a_hung_device_never_holds_a_caller_past_its_deadline() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    fixture
        .sign(b"before", Duration::from_secs(3))
        .await
        .unwrap();
    fixture.mock.inject(Fault::Hang);
    let limit = Duration::from_millis(100);
    let error = fixture.sign(b"during", limit).await.unwrap_err();
    assert_eq!(
        error,
        Error::Timeout {
            device: "mock".into()
        }
    );
    fixture.mock.clear_faults();
    fixture.heal().await;
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let options = WorkerOptions {
        queue: 2,
        ..WorkerOptions::default()
    };
    let settings = Settings {
        latency: Latency::Vendor,
        ..Settings::default()
    };
    let fixture = Arc::new(Fixture::start(settings, options));
    fixture
        .worker
        .public_key(fixture.locator.clone(), soon())
        .await
        .unwrap();
    let requests: Vec<_> = (0..8_u8)
        .map(|round| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.sign(&[round], Duration::from_secs(5)).await })
        })
        .collect();
    let (mut signed, mut refused) = (0, 0);
    for request in requests {
        match request.await.unwrap() {
            Ok(()) => signed += 1,
            Err(Error::Overloaded { waiting: 2, .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // One runs and two wait; the device takes 105 ms for each, the requests come within a fraction of that.
    assert!(
        signed >= 2 && refused >= 4,
        "{signed} signed, {refused} refused"
    );
}

/// An emulator whose time passes when it is told to.
fn with_manual_clock() -> (Fixture, impl Fn(Duration)) {
    let elapsed = Arc::new(AtomicU64::new(0));
    let reading = Arc::clone(&elapsed);
    let settings = Settings {
        clock: Clock::new(move || Duration::from_millis(reading.load(Ordering::SeqCst))),
        ..Settings::default()
    };
    let pass = move |time: Duration| {
        let milliseconds = u64::try_from(time.as_millis()).unwrap();
        elapsed.fetch_add(milliseconds, Ordering::SeqCst);
    };
    let fixture = Fixture::start(settings, WorkerOptions::default());
    (fixture, pass)
}

#[tokio::test]
async fn signing_every_29_6_seconds_for_a_day_loses_nothing() {
    let (fixture, pass) = with_manual_clock();
    let (day, step) = (Duration::from_hours(24), Duration::from_millis(29_600));
    for round in 0..day.div_duration_f64(step).ceil() as u32 {
        pass(step);
        fixture
            .sign(&round.to_be_bytes(), Duration::from_secs(3))
            .await
            .unwrap();
    }
    let status = fixture.worker.status();
    assert_eq!((status.state, status.last_fault), (State::Ready, None));
}

#[tokio::test]
async fn sessions_that_expired_and_were_not_closed_never_use_the_device_up() {
    let (fixture, pass) = with_manual_clock();
    for round in 0..40_u8 {
        // Longer than a session lives, so that each one found here is lost; the device has 16.
        pass(Duration::from_secs(if round % 2 == 0 { 29 } else { 31 }));
        fixture
            .sign(&[round], Duration::from_secs(3))
            .await
            .unwrap();
    }
    assert_eq!(fixture.worker.status().state, State::Ready);
}

#[tokio::test]
async fn a_power_cut_costs_no_request() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    fixture
        .sign(b"before", Duration::from_secs(3))
        .await
        .unwrap();
    for round in 0..5_u8 {
        fixture.mock.inject(Fault::CutPower);
        fixture
            .sign(&[round], Duration::from_secs(3))
            .await
            .unwrap();
    }
    assert_eq!(fixture.worker.status().state, State::Ready);
}

#[tokio::test]
async fn an_idle_session_is_kept_alive_before_it_expires() {
    let options = WorkerOptions {
        keep_alive: Duration::from_millis(30),
        ..WorkerOptions::default()
    };
    let fixture = Fixture::start(Settings::default(), options);
    fixture
        .sign(b"before", Duration::from_secs(3))
        .await
        .unwrap();
    // Nobody asks for anything, and still the lost session is found and replaced.
    fixture.mock.inject(Fault::LoseSessions);
    let replaced = async {
        while fixture.worker.status().last_fault.is_none()
            || fixture.worker.status().state != State::Ready
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), replaced)
        .await
        .unwrap();
}

/// A client of the operator's own.
fn operator(mock: &Mock) -> Client {
    let address = mock.address();
    let connector = Connector::http(&HttpConfig {
        addr: address.ip().to_string(),
        port: address.port(),
        ..HttpConfig::default()
    });
    Client::open(connector, Credentials::default(), false).unwrap()
}

#[tokio::test]
async fn the_audit_log_is_a_chain_that_shows_each_signature_and_is_freed_up_to_a_number() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    let client = operator(&fixture.mock);
    let options = fixture.worker.audit_options(soon()).await.unwrap().unwrap();
    assert!(
        !options.force && options.unrecorded.len() == 4,
        "{options:?}"
    );
    for code in [command::Code::SignEddsa, command::Code::SignEcdsa] {
        client
            .set_command_audit_option(code, AuditOption::On)
            .unwrap();
    }
    client.set_force_audit_option(AuditOption::On).unwrap();
    let options = fixture.worker.audit_options(soon()).await.unwrap().unwrap();
    assert!(options.force, "{options:?}");
    assert_eq!(options.unrecorded, ["sign-pkcs1", "sign-pss"]);

    for round in 0..5_u8 {
        fixture
            .sign(&[round], Duration::from_secs(3))
            .await
            .unwrap();
    }
    let reading = fixture.worker.audit_log(soon()).await.unwrap().unwrap();
    let entries = &reading.log.entries;
    assert_eq!(reading.log.unreadable, 0);
    for pair in entries.windows(2) {
        assert!(
            pair[1].follows(pair[0].number(), &pair[0].digest),
            "{pair:?}"
        );
        let mut other = pair[1];
        other.bytes[12] ^= 1;
        assert!(!other.follows(pair[0].number(), &pair[0].digest));
    }
    let signed: Vec<_> = entries.iter().filter(|entry| entry.signed()).collect();
    assert_eq!(signed.len(), 5);
    let object = signed[0].target();
    assert_eq!(reading.asked.answered.get(&object), Some(&5));
    assert!(reading.asked.failed.is_empty() && reading.asked.in_flight.is_empty());

    let last = entries.last().unwrap();
    fixture
        .worker
        .free_audit_log(last.number(), soon())
        .await
        .unwrap();
    let freed = fixture.worker.audit_log(soon()).await.unwrap().unwrap();
    assert!(freed.log.entries.is_empty(), "{:?}", freed.log);
    assert_eq!(freed.asked, reading.asked);
}

#[tokio::test]
async fn a_full_audit_log_is_refused_by_name_and_can_still_be_read_and_freed() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    let client = operator(&fixture.mock);
    client
        .set_command_audit_option(command::Code::SignEddsa, AuditOption::On)
        .unwrap();
    client.set_force_audit_option(AuditOption::On).unwrap();
    let full = loop {
        match fixture.sign(b"m", Duration::from_secs(3)).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::AuditLogFull { .. }), "{full}");
    assert!(full.is_retryable());
    let reading = fixture.worker.audit_log(soon()).await.unwrap().unwrap();
    assert_eq!(reading.log.entries.len(), 62);
    let last = reading.log.entries.last().unwrap().number();
    fixture.worker.free_audit_log(last, soon()).await.unwrap();
    fixture.sign(b"m", Duration::from_secs(3)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_pinned_uses_no_other_device() {
    let fixture = Fixture::start(Settings::default(), WorkerOptions::default());
    let limit = Duration::from_secs(3);
    fixture.sign(b"before", limit).await.unwrap();
    let identity = fixture.worker.status().info.unwrap().identity();
    assert!(identity.certificate.is_some());
    fixture.worker.pin(identity.clone());
    fixture.sign(b"pinned", limit).await.unwrap();

    // The same model and serial number, made anew.
    let other = Fixture::start(Settings::default(), WorkerOptions::default());
    other.sign(b"before", limit).await.unwrap();
    other.worker.pin(identity.clone());
    let refused = other.sign(b"after", limit).await.unwrap_err();
    let Error::Replaced { pinned, shown, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(**pinned, identity);
    assert_eq!(shown.serial, identity.serial);
    assert!(!refused.is_retryable());
    assert!(
        refused.to_string().contains("put the pinned device back"),
        "{refused}"
    );
    other.mock.inject(Fault::LoseSessions);
    let refused = other.sign(b"again", limit).await.unwrap_err();
    assert!(matches!(refused, Error::Replaced { .. }), "{refused}");
}
