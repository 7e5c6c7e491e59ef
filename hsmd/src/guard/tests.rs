//! Promises 1 to 3, on a real journal in a temporary directory.

mod bound;
mod checkpoints;
mod disk_faults;
mod freezes;
mod ledger;
mod moves;
mod power_cuts;
mod races;

use std::path::Path;
use std::sync::Arc;

use hsm_device::Algorithm;
use hsm_journal::{Options, State as _};
use hsm_policy::cometbft::{BlockId, ChainId, Height, Round, Timestamp, Vote, VoteType};
use hsm_policy::conflict::Mark;
use prost::Message as _;

use super::*;

const CHAIN: &str = "test-1";
const KEY: &str = "validator";

/// The public keys of RFC 8032 §7.1, tests 1 and 2.
const PUBLIC_KEYS: [&str; 2] = [
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
];

fn public_key_of(number: usize) -> PublicKey {
    let bytes = hex::decode(PUBLIC_KEYS[number]).unwrap();
    PublicKey::from_parts(Algorithm::Ed25519, &bytes).unwrap()
}

fn public_key() -> PublicKey {
    public_key_of(0)
}

fn caller() -> Caller {
    "spiffe://test.example/sentry/a".parse().unwrap()
}

/// A precommit at height and round for the block that `block` stands for, 0 for nil.
fn precommit(height: i64, block: u8, seconds: i64, extension: Option<&[u8]>) -> Message {
    let block_id = (block > 0).then(|| BlockId::new(&[block; 32], 1, &[block; 32]).unwrap());
    Message::Vote(
        Vote::new(
            ChainId::new(CHAIN).unwrap(),
            VoteType::Precommit,
            Height::new(height).unwrap(),
            Round::new(0).unwrap(),
            block_id,
            Timestamp::new(seconds, 0).unwrap(),
            extension.map(<[u8]>::to_vec),
        )
        .unwrap(),
    )
}

fn create(directory: &Path) {
    let created = Event::StateCreated(wire::StateCreated {
        deployment_id: vec![1; 16],
        anchor: None,
    });
    let first = entry::encode(SystemTime::now(), created);
    hsm_journal::create(directory, &State::default().snapshot(), &first).unwrap();
}

fn open(directory: &Path) -> Guard {
    let opened = hsm_journal::open::<State>(directory, Options::default()).unwrap();
    Guard::new(opened.state, opened.journal)
}

/// The seed of a test: from `HSMD_SEED`, or by chance. A failing test prints it.
fn seed() -> u64 {
    let given = std::env::var("HSMD_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("HSMD_SEED={seed}");
    seed
}

/// Whether the long forms are to run, as in `make soak`.
fn is_soak() -> bool {
    std::env::var_os("HSMD_SOAK").is_some()
}

async fn pinned(directory: &Path, height: i64) -> Guard {
    create(directory);
    let guard = open(directory);
    let chain = ChainId::new(CHAIN).unwrap();
    let devices = vec![("hsm".to_owned(), None)];
    let now = SystemTime::now();
    guard
        .pin(KEY, &public_key(), &chain, height, devices, now)
        .await
        .unwrap();
    guard
}

async fn reserve(guard: &Guard, message: &Message) -> Result<Reservation, Error> {
    let (caller, public_key) = (caller(), public_key());
    let ask = Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message,
        max_height_jump: 1000,
        terms: Terms::default(),
    };
    guard.reserve(ask, SystemTime::now()).await
}

fn is_double_sign(outcome: &Result<Reservation, Error>) -> bool {
    matches!(
        outcome,
        Err(Error::Conflict {
            conflict: Conflict::DoubleSign { .. },
            ..
        })
    )
}

#[tokio::test]
async fn marks_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 0).await;
    let first = reserve(&guard, &precommit(5, 1, 100, None)).await.unwrap();
    guard.close().unwrap();

    let guard = open(&path);
    assert!(is_double_sign(
        &reserve(&guard, &precommit(5, 2, 100, None)).await
    ));
    assert!(matches!(
        reserve(&guard, &precommit(4, 1, 100, None)).await,
        Err(Error::Conflict {
            conflict: Conflict::Regression { .. },
            ..
        })
    ));
    let again = reserve(&guard, &precommit(5, 1, 999, None)).await.unwrap();
    assert_eq!(again.sign_bytes, first.sign_bytes);
    assert_eq!(again.timestamp.seconds(), 100);
    assert_eq!(again.index, first.index);
}

#[tokio::test]
async fn marks_survive_a_crash_that_closes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let copy = directory.path().join("copy");
    let guard = pinned(&path, 0).await;
    reserve(&guard, &precommit(5, 1, 100, None)).await.unwrap();
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let restarted = open(&copy);
    assert!(is_double_sign(
        &reserve(&restarted, &precommit(5, 2, 100, None)).await
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_messages_that_conflict_at_one_moment_one_is_reserved() {
    let directory = tempfile::tempdir().unwrap();
    let guard = Arc::new(pinned(&directory.path().join("state"), 0).await);
    for height in 1..=200 {
        let racers: Vec<_> = (1..=8)
            .map(|block| {
                let guard = guard.clone();
                tokio::spawn(async move {
                    let outcome = reserve(&guard, &precommit(height, block, 100, None)).await;
                    assert!(outcome.is_ok() || is_double_sign(&outcome));
                    outcome.is_ok()
                })
            })
            .collect();
        let mut reserved = 0;
        for racer in racers {
            reserved += u32::from(racer.await.unwrap());
        }
        assert_eq!(reserved, 1, "at height {height}");
    }
}

#[tokio::test]
async fn the_answer_given_first_is_given_again_with_its_signature() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 0).await;
    let message = precommit(5, 1, 100, Some(b"one"));
    let first = reserve(&guard, &message).await.unwrap();
    assert_eq!(
        (&first.signature, &first.extension_signature),
        (&None, &None)
    );
    let signatures = Signatures {
        message: vec![1; 64],
        extension: Some(vec![2; 64]),
    };
    let (caller, public_key) = (caller(), public_key());
    let ask = Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message: &message,
        max_height_jump: 1,
        terms: Terms::default(),
    };
    guard
        .record_signed(ask, &first, &signatures, SystemTime::now())
        .unwrap();
    guard.close().unwrap();

    let guard = open(&path);
    let again = reserve(&guard, &precommit(5, 1, 200, Some(b"one")))
        .await
        .unwrap();
    assert_eq!(again.signature, Some(vec![1; 64]));
    assert_eq!(again.extension_signature, Some(vec![2; 64]));

    let other = reserve(&guard, &precommit(5, 1, 200, Some(b"two")))
        .await
        .unwrap();
    assert_eq!(
        other.signature,
        Some(vec![1; 64]),
        "the vote is not signed anew"
    );
    assert_eq!(other.extension_signature, None, "the other extension is");
    assert!(other.index > again.index, "in an entry of its own");

    let bare = reserve(&guard, &precommit(5, 1, 200, None)).await.unwrap();
    assert_eq!(
        (bare.signature, bare.extension_signature),
        (Some(vec![1; 64]), None)
    );
}

#[tokio::test]
async fn nothing_at_or_below_the_initial_height_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 10).await;
    for height in [1, 9, 10] {
        assert!(matches!(
            reserve(&guard, &precommit(height, 1, 0, None)).await,
            Err(Error::Conflict {
                conflict: Conflict::AtOrBelowInitial { .. },
                ..
            })
        ));
    }
    reserve(&guard, &precommit(11, 1, 0, None)).await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_not_made_known_for_the_chain_does_not_sign() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    create(&path);
    let outcome = reserve(&open(&path), &precommit(1, 1, 0, None)).await;
    assert!(matches!(outcome, Err(Error::NotInitialised { .. })));
}

#[tokio::test]
async fn a_key_is_made_known_once() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 10).await;
    let chain = ChainId::new(CHAIN).unwrap();
    let now = SystemTime::now();
    for (name, key) in [(KEY, 0), ("another-name", 0), (KEY, 1)] {
        let public_key = public_key_of(key);
        let outcome = guard
            .pin(name, &public_key, &chain, 0, Vec::new(), now)
            .await;
        assert!(matches!(outcome, Err(Error::AlreadyKnown(_))), "{name}");
    }
    reserve(&guard, &precommit(11, 1, 0, None)).await.unwrap();
}

#[tokio::test]
async fn an_advance_only_raises_a_mark() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 10).await;
    reserve(&guard, &precommit(20, 1, 0, None)).await.unwrap();
    let chain = ChainId::new(CHAIN).unwrap();
    let now = SystemTime::now();
    let lower = guard.advance(KEY, &chain, 20, now).await;
    assert!(matches!(lower, Err(Error::NotAbove { mark: 20, .. })));
    assert!(
        reserve(&guard, &precommit(100_000, 1, 0, None))
            .await
            .is_err()
    );
    guard.advance(KEY, &chain, 99_999, now).await.unwrap();
    guard.close().unwrap();

    let guard = open(&path);
    assert!(
        reserve(&guard, &precommit(99_999, 1, 0, None))
            .await
            .is_err()
    );
    reserve(&guard, &precommit(100_000, 1, 0, None))
        .await
        .unwrap();
}

#[tokio::test]
async fn who_a_device_is_and_how_far_its_log_was_read_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    let guard = open(directory.path());
    let identity = |certificate: u8| hsm_device::Identity {
        model: "YubiHSM 2".to_owned(),
        serial: "12345678".to_owned(),
        certificate: Some([certificate; 32]),
    };
    let pin = async |guard: &Guard, key: usize, certificate: Option<u8>| {
        let chain = ChainId::new(CHAIN).unwrap();
        let (name, key) = (format!("key-{key}"), public_key_of(key));
        let devices = vec![("hsm".to_owned(), certificate.map(identity))];
        guard
            .pin(&name, &key, &chain, 0, devices, SystemTime::now())
            .await
    };
    let audited = |last_number: u32, unknown: u64| {
        Event::DeviceAudit(wire::DeviceAudit {
            device: "hsm".to_owned(),
            last_number,
            last_digest: vec![3; 16],
            signatures: vec![wire::ObjectSignatures {
                object: 1,
                made: 4,
                unknown,
            }],
            ..wire::DeviceAudit::default()
        })
    };
    let device = |guard: &Guard| guard.inspect(|state| state.device("hsm").cloned()).unwrap();
    // As hsmd wrote it before it pinned devices.
    pin(&guard, 0, None).await.unwrap();
    assert_eq!(device(&guard), None);
    pin(&guard, 1, Some(7)).await.unwrap();
    for (number, unknown) in [(65_535, 1), (9, 2)] {
        let event = audited(number, unknown);
        guard
            .record_durably(event, SystemTime::now())
            .await
            .unwrap();
    }
    let calls = Event::DeviceFailed(wire::DeviceFailed {
        device: "hsm".to_owned(),
        calls: 3,
    });
    guard
        .record_durably(calls, SystemTime::now())
        .await
        .unwrap();
    let wrong = audited(65_536, 0);
    assert!(
        guard
            .record_durably(wrong, SystemTime::now())
            .await
            .is_err()
    );

    let mut guard = guard;
    for _ in 0..2 {
        assert_eq!(device(&guard), Some(identity(7)));
        let mark = guard.inspect(|state| state.audit("hsm").cloned()).unwrap();
        let expected = AuditMark {
            number: 9,
            digest: Some([3; 16]),
            asked: 0,
            unknown_signatures: 3,
        };
        assert_eq!(mark, Some(expected));
        assert_eq!(guard.inspect(State::asked).unwrap(), 3);
        guard.close().unwrap();
        drop(guard);
        guard = open(directory.path());
    }
    assert!(!guard.inspect(State::stopped).unwrap());
    let stopped = Event::DaemonStopped(wire::DaemonStopped {});
    guard
        .record_durably(stopped, SystemTime::now())
        .await
        .unwrap();
    guard.close().unwrap();
    drop(guard);
    let guard = open(directory.path());
    assert!(guard.inspect(State::stopped).unwrap());
}
