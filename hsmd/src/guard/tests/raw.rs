//! A key signs payloads, or for chains, or checkpoints: under the lock, and as the journal has it.

use super::*;
use crate::guard::RawAsk;

async fn reserve_raw(guard: &Guard, name: &str, public_key: &PublicKey) -> Result<u64, Error> {
    let caller = "spiffe://test.example/operator/a".parse().unwrap();
    let ask = RawAsk {
        caller: &caller,
        key: name,
        public_key,
        purpose: "release signing",
        hash: "sha512",
        payload: b"hsmd 1.0.0",
        version: 0,
    };
    guard.reserve_raw(ask, SystemTime::now()).await
}

fn is_for_something_else<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::NotForPayloads(_)))
}

#[tokio::test]
async fn a_consensus_key_signs_no_payload_under_any_name() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 0).await;
    for name in [KEY, "another"] {
        assert!(is_for_something_else(
            reserve_raw(&guard, name, &public_key()).await
        ));
    }
    let other = public_key_of(1);
    assert!(is_for_something_else(
        reserve_raw(&guard, KEY, &other).await
    ));
}

#[tokio::test]
async fn what_signed_a_payload_becomes_no_consensus_key_and_no_checkpoint_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 0).await;
    let release = public_key_of(1);
    reserve_raw(&guard, "release", &release).await.unwrap();
    // A crash: the journal is not closed. Then a start from a snapshot alone.
    drop(guard);
    for _ in 0..2 {
        drop(guard_over(&path, &release).await);
    }
}

/// Opens the journal, and finds that the key is for payloads.
async fn guard_over(path: &Path, release: &PublicKey) -> Guard {
    let guard = open(path);
    let chain = ChainId::new(CHAIN).unwrap();
    for name in ["release", "another"] {
        let pin = guard.pin(name, release, &chain, 0, Vec::new(), SystemTime::now());
        assert!(is_for_something_else(pin.await));
    }
    let marks = |_: &State| String::new();
    let checkpoint = guard.begin_checkpoint("origin", release, marks, SystemTime::now());
    assert!(is_for_something_else(checkpoint.await));
    // Under the name of a key for payloads no other key is made known, nor does another sign them.
    // The base point (RFC 8032 section 5.1).
    let base = [&[0x58][..], &[0x66; 31]].concat();
    let third = PublicKey::from_parts(Algorithm::Ed25519, &base).unwrap();
    let now = SystemTime::now();
    let pin = guard.pin("release", &third, &chain, 0, Vec::new(), now);
    assert!(is_for_something_else(pin.await));
    assert!(is_for_something_else(
        reserve_raw(&guard, "release", &third).await
    ));
    reserve_raw(&guard, "release", release).await.unwrap();
    guard
}

#[tokio::test]
async fn a_checkpoint_key_signs_no_payload() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 0).await;
    let key = public_key_of(1);
    let marks = |_: &State| String::new();
    let begun = guard.begin_checkpoint("origin", &key, marks, SystemTime::now());
    begun.await.unwrap();
    assert!(is_for_something_else(
        reserve_raw(&guard, "release", &key).await
    ));
}
