//! The YubiHSM2 client against the emulator, over the connector's HTTP on loopback.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hsm_device::mock::{Clock, Fault, Latency, Mock, Settings};
use hsm_device::{
    Algorithm, Backend, Error, KeyLocator, PublicKey, State, Worker, WorkerOptions, yubihsm,
};
use tokio::time::Instant;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::Secp256k1];

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

#[test]
fn a_key_is_found_by_id_and_wrong_locators_are_each_refused_by_name() {
    let mock = Mock::start(Settings::default()).unwrap();
    let public = mock.ensure_key("validator", Algorithm::Ed25519).unwrap();
    let mut device = mock.opener().open().unwrap();
    let by_id = |id: u16| KeyLocator {
        label: Some("validator".into()),
        id: Some(id.to_be_bytes().to_vec()),
        algorithm: Algorithm::Ed25519,
    };
    let found = (1..=u16::from(u8::MAX)).find_map(|id| device.public_key(&by_id(id)).ok());
    // The device chose the id; where it is no small one the label alone finds the key.
    assert!(found.is_none_or(|found| found == public));
    let wrong = device.sign(&labelled("validator", Algorithm::Secp256k1), b"m");
    assert!(
        matches!(wrong, Err(Error::WrongAlgorithm { .. })),
        "{wrong:?}"
    );
    let missing = device.sign(&labelled("missing", Algorithm::Ed25519), b"m");
    assert!(matches!(missing, Err(Error::KeyNotFound(_))), "{missing:?}");
    device
        .sign(&labelled("validator", Algorithm::Ed25519), b"m")
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

#[tokio::test]
async fn a_daemon_that_signs_every_29_seconds_outlives_the_expiry_of_many_sessions() {
    let seconds = Arc::new(AtomicU64::new(0));
    let reading = Arc::clone(&seconds);
    let clock = Clock::new(move || Duration::from_secs(reading.load(Ordering::SeqCst)));
    let settings = Settings {
        clock,
        ..Settings::default()
    };
    let fixture = Fixture::start(settings, WorkerOptions::default());
    for round in 0..40_u8 {
        // Longer than a session lives, so that each one found here is lost; the device has 16.
        let step = if round % 2 == 0 { 29 } else { 31 };
        seconds.fetch_add(step, Ordering::SeqCst);
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
