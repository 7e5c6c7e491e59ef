//! Against the emulator: force audit, signatures behind hsmd's back, and hsmd's own ends.

use std::path::Path;

use hsm_device::mock::{Fault, Mock, Settings};
use hsm_device::{Algorithm, KeyLocator, PublicKey, State, WorkerOptions};
use hsm_journal::{Options, State as _};

use super::*;
use crate::advisories::Advisories;
use crate::devices;
use crate::guard::entry;
use crate::keyring::Keyring;

const KEY: &str = "validator";
const DEVICE: &str = "mock";
const SOON: Duration = Duration::from_secs(20);

/// hsmd without its callers: a key in an emulator, and a journal.
struct House {
    mock: Mock,
    keyring: Keyring,
    public_key: PublicKey,
    guard: Guard,
    metrics: Metrics,
}

fn create(directory: &Path) {
    let created = Event::StateCreated(wire::StateCreated {
        deployment_id: vec![1; 16],
        anchor: None,
    });
    let first = entry::encode(SystemTime::now(), created);
    hsm_journal::create(directory, &guard::State::default().snapshot(), &first).unwrap();
}

fn locator() -> KeyLocator {
    KeyLocator {
        label: Some(KEY.to_owned()),
        id: None,
        algorithm: Algorithm::Ed25519,
    }
}

impl House {
    fn open(directory: &Path, mock: &Mock) -> Self {
        let device = devices::start_one(DEVICE, mock.opener(), WorkerOptions::default()).unwrap();
        let mut keyring = Keyring::new(vec![device], Advisories::default());
        keyring.add(KEY, locator(), &[DEVICE.to_owned()]);
        let opened = hsm_journal::open::<guard::State>(directory, Options::default()).unwrap();
        Self {
            mock: mock.clone(),
            keyring,
            public_key: mock.ensure_key(KEY, Algorithm::Ed25519).unwrap(),
            guard: Guard::new(opened.state, opened.journal),
            metrics: Metrics::new(true, SystemTime::now()),
        }
    }

    fn auditor(&self) -> Auditor<'_> {
        let stopped = self.guard.inspect(guard::State::stopped).unwrap();
        let device = &self.keyring.devices()[0];
        Auditor::new(device, &self.guard, &self.metrics, stopped).unwrap()
    }

    async fn sign(&self, message: &[u8]) -> Result<(), crate::keyring::Error> {
        let key = self.keyring.get(KEY).unwrap();
        let deadline = Instant::now() + SOON;
        let signed = key.sign(&self.public_key, message, deadline, |_, _| {});
        signed.await.map(drop)
    }

    fn report(&self) -> Report {
        self.keyring.devices()[0].audit.report()
    }

    fn unknown_in_journal(&self) -> u64 {
        let mark = self.guard.inspect(|state| state.audit(DEVICE).cloned());
        mark.unwrap().map_or(0, |mark| mark.unknown_signatures)
    }

    fn assert_unknown(&self, count: u64) {
        let series = "hsmd_device_unknown_signatures_total{device=\"mock\"}";
        let text = self.metrics.encode().unwrap();
        assert!(text.contains(&format!("{series} {count}\n")), "{text}");
        assert_eq!(self.report().unknown_signatures, count);
        assert_eq!(self.unknown_in_journal(), count);
    }

    /// As at a clean stop.
    async fn stop(self) {
        self.auditor_pass().await;
        let stopped = Event::DaemonStopped(wire::DaemonStopped {});
        let recorded = self.guard.record_durably(stopped, SystemTime::now());
        recorded.await.unwrap();
        self.guard.close().unwrap();
    }

    async fn auditor_pass(&self) {
        assert!(self.auditor().pass().await, "{:?}", self.report());
    }
}

fn forced() -> Mock {
    let mock = Mock::start(Settings::default()).unwrap();
    mock.force_audit().unwrap();
    mock
}

#[tokio::test]
async fn a_device_with_force_audit_never_stops_signing() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let house = House::open(directory.path(), &forced());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let audited = house.auditor().run(SOON, async {
        let _ = stopped.await;
    });
    let signing = async {
        for message in 0..300_u32 {
            house.sign(&message.to_be_bytes()).await.unwrap();
        }
        stop.send(()).unwrap();
    };
    tokio::join!(audited, signing);
    house.assert_unknown(0);
    let report = house.report();
    assert_eq!((report.missing, report.broken, report.fault), (0, 0, None));
    // Every entry but the last few was freed, after a checkpoint.
    let mark = house.guard.inspect(|state| state.audit(DEVICE).cloned());
    assert!(mark.unwrap().unwrap().number > 300);
}

#[tokio::test]
async fn a_signature_behind_hsmds_back_is_an_alarm_whoever_made_it() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let house = House::open(directory.path(), &forced());
    let mut auditor = house.auditor();
    assert!(auditor.pass().await);
    house.sign(b"asked for").await.unwrap();
    assert!(auditor.pass().await);
    house.assert_unknown(0);

    let mut same_key = house.mock.opener().open().unwrap();
    same_key.sign(&locator(), b"behind").unwrap();
    house.sign(b"asked for").await.unwrap();
    assert!(auditor.pass().await);
    house.assert_unknown(1);

    let mut other_key = house.mock.stranger().unwrap();
    other_key.sign(&locator(), b"behind").unwrap();
    assert!(auditor.pass().await);
    house.assert_unknown(2);
}

#[tokio::test]
async fn entries_that_somebody_else_freed_are_an_alarm() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let house = House::open(directory.path(), &forced());
    let mut auditor = house.auditor();
    assert!(auditor.pass().await);
    let mut stranger = house.mock.stranger().unwrap();
    stranger.sign(&locator(), b"behind").unwrap();
    let log = stranger.audit_log().unwrap().unwrap();
    let last = log.entries.last().unwrap().number();
    stranger.free_audit_log(last).unwrap();
    house.sign(b"asked for").await.unwrap();
    assert!(auditor.pass().await);
    assert_eq!(house.report().missing, 1);
}

#[tokio::test]
async fn after_a_kill_there_is_no_false_alarm_and_after_a_clean_stop_nothing_hides() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let mock = forced();
    let house = House::open(directory.path(), &mock);
    let mut auditor = house.auditor();
    assert!(auditor.pass().await);
    // Killed with signatures made since the last checkpoint, whose calls nobody remembers.
    for message in 0..5_u8 {
        house.sign(&[message]).await.unwrap();
    }
    drop(auditor);
    house.guard.close().unwrap();
    drop(house);

    let house = House::open(directory.path(), &mock);
    house.auditor_pass().await;
    house.assert_unknown(0);
    house.sign(b"asked for").await.unwrap();
    house.stop().await;

    let mut behind = mock.opener().open().unwrap();
    behind.sign(&locator(), b"behind").unwrap();
    let house = House::open(directory.path(), &mock);
    house.auditor_pass().await;
    house.assert_unknown(1);
    house.guard.close().unwrap();
    drop(house);

    // The alarm outlives a restart.
    let house = House::open(directory.path(), &mock);
    assert_eq!(house.unknown_in_journal(), 1);
}

#[tokio::test]
async fn lost_answers_are_no_false_alarm_and_have_their_entry() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let house = House::open(directory.path(), &forced());
    let mut auditor = house.auditor();
    assert!(auditor.pass().await);
    let asked = |house: &House| house.guard.inspect(guard::State::asked).unwrap();
    house.sign(b"answered").await.unwrap();
    assert_eq!(asked(&house), 0);
    house.mock.inject(Fault::LoseAnswers);
    house.sign(b"lost").await.unwrap_err();
    // Also while the log cannot be read.
    assert!(!auditor.pass().await);
    assert!((1..=2).contains(&asked(&house)), "{}", asked(&house));
    house.mock.clear_faults();
    let ready = async {
        while house.keyring.devices()[0].worker.status().state != State::Ready {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, ready).await.unwrap();
    assert!(auditor.pass().await, "{:?}", house.report());
    house.assert_unknown(0);
    assert!((1..=2).contains(&asked(&house)), "{}", asked(&house));
}

#[tokio::test]
async fn an_acknowledgement_ends_what_was_shown_and_nothing_that_comes_after_it() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let house = House::open(directory.path(), &forced());
    let device = &house.keyring.devices()[0];
    let now = SystemTime::now();
    let acknowledge = || acknowledge(device, &house.guard, "somebody".to_owned(), now);
    let mut auditor = house.auditor();
    assert!(auditor.pass().await);
    let nothing = acknowledge().await.unwrap_err();
    assert!(matches!(nothing, NotAcknowledged::NoAlarm(_)), "{nothing}");

    let stranger = || house.mock.stranger().unwrap();
    for message in [b"one", b"two"] {
        stranger().sign(&locator(), message).unwrap();
    }
    assert!(auditor.pass().await);
    assert_eq!(house.unknown_in_journal(), 2);
    let seen = acknowledge().await.unwrap();
    assert_eq!((seen.unknown_signatures, seen.missing_entries), (2, 0));
    assert_eq!(house.unknown_in_journal(), 0);
    assert_eq!(house.report().unknown_signatures, 0);

    // As two operators at once: the second one saw what the first one ended.
    let again = Event::AlarmAcknowledged(seen);
    let refused = house.guard.record_durably(again, now).await;
    assert!(refused.is_err());

    stranger().sign(&locator(), b"three").unwrap();
    assert!(auditor.pass().await);
    assert_eq!(house.unknown_in_journal(), 1);
    drop(auditor);
    let mock = house.mock.clone();
    house.stop().await;
    let house = House::open(directory.path(), &mock);
    assert_eq!(house.unknown_in_journal(), 1, "also after a restart");
}
