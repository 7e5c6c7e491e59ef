//! Marks from other signers, and what officers allowed: through the journal and its snapshots.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm_policy::conflict::Outcome;
use hsm_policy::officers::{Document, Nonce, Officers, SetOfficers};

use super::*;

/// What another signer signed last, for the block that `block` stands for; 0 where it does not say.
fn imported(height: i64, block: u8) -> wire::StateImported {
    let message = precommit(height, block.max(1), 50, None);
    wire::StateImported {
        key: KEY.to_owned(),
        public_key: Some(entry::public_key_to_wire(&public_key())),
        chain_id: CHAIN.to_owned(),
        position: Some(entry::position_to_wire(message.position())),
        timestamp: Some(entry::timestamp_to_wire(message.timestamp())),
        sign_bytes: if block == 0 {
            Vec::new()
        } else {
            message.sign_bytes()
        },
        signature: if block == 0 {
            Vec::new()
        } else {
            vec![block; 64]
        },
        ..wire::StateImported::default()
    }
}

async fn import(guard: &Guard, imported: wire::StateImported) -> Outcome {
    guard.import(imported, SystemTime::now()).await.unwrap()
}

fn contested(guard: &Guard) -> Vec<(ChainId, hsm_policy::cometbft::Position)> {
    guard.inspect(|state| state.contested_chains(KEY)).unwrap()
}

#[tokio::test]
async fn what_another_signer_signed_binds_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 5).await;
    assert_eq!(import(&guard, imported(9, 1)).await, Outcome::Raised);
    guard.close().unwrap();
    drop(guard);
    let guard = open(&path);
    let other = reserve(&guard, &precommit(9, 2, 50, None)).await;
    assert!(is_double_sign(&other));
    let again = reserve(&guard, &precommit(9, 1, 60, None)).await.unwrap();
    assert_eq!(
        again.signature,
        Some(vec![1; 64]),
        "the other signer's answer"
    );
    assert_eq!(again.timestamp.seconds(), 50);
    reserve(&guard, &precommit(10, 2, 50, None)).await.unwrap();
}

#[tokio::test]
async fn what_another_signer_left_unsigned_is_signed_after_an_entry_of_our_own() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 5).await;
    let unsigned = wire::StateImported {
        signature: Vec::new(),
        ..imported(9, 1)
    };
    assert_eq!(import(&guard, unsigned).await, Outcome::Raised);
    let asked = || guard.inspect(State::asked).unwrap();
    let before = asked();
    let first = reserve(&guard, &precommit(9, 1, 60, None)).await.unwrap();
    assert_eq!((asked(), first.timestamp.seconds()), (before + 1, 50));
    let again = reserve(&guard, &precommit(9, 1, 70, None)).await.unwrap();
    assert_eq!((asked(), again.index), (before + 1, first.index));
}

#[tokio::test]
async fn no_import_lowers_a_mark() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 5).await;
    reserve(&guard, &precommit(9, 1, 50, None)).await.unwrap();
    let before = guard.inspect(|state| state.snapshot()).unwrap();
    for lower in [
        imported(8, 1),
        imported(6, 0),
        imported(5, 1),
        imported(1, 1),
    ] {
        assert_eq!(import(&guard, lower).await, Outcome::Unchanged);
    }
    assert_eq!(guard.inspect(|state| state.snapshot()).unwrap(), before);
}

#[tokio::test]
async fn other_bytes_at_the_same_position_are_dropped_and_the_alarm_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 5).await;
    reserve(&guard, &precommit(9, 1, 50, None)).await.unwrap();
    let outcome = import(&guard, imported(9, 2)).await;
    assert!(matches!(outcome, Outcome::Contested(_)), "{outcome:?}");
    guard.close().unwrap();
    drop(guard);
    let guard = open(&path);
    assert_eq!(contested(&guard).len(), 1);
    for block in [1, 2, 3] {
        assert!(is_double_sign(
            &reserve(&guard, &precommit(9, block, 50, None)).await
        ));
    }
    reserve(&guard, &precommit(10, 1, 50, None)).await.unwrap();
    assert_eq!(contested(&guard).len(), 1);
}

#[tokio::test]
async fn where_the_other_signer_does_not_say_what_it_signed_nothing_more_is_signed_there() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 5).await;
    reserve(&guard, &precommit(9, 1, 50, None)).await.unwrap();
    let outcome = import(&guard, imported(9, 0)).await;
    assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
    assert!(is_double_sign(
        &reserve(&guard, &precommit(9, 1, 50, None)).await
    ));
    assert!(contested(&guard).is_empty());
}

pub(super) fn officers() -> Officers {
    let key = hex::decode(PUBLIC_KEYS[0]).unwrap();
    let parts: [&[u8]; 4] = [&[0, 0, 0, 11], b"ssh-ed25519", &[0, 0, 0, 32], &key];
    let blob = STANDARD.encode(parts.concat());
    Officers::parse(&format!("ada ssh-ed25519 {blob}"), 1).unwrap()
}

fn set_by(nonce: u8, expires: i64) -> Event {
    Event::OfficersSet(wire::OfficersSet {
        officers: Some(officers_to_wire(&officers())),
        authorisation: Some(wire::Authorisation {
            nonce: vec![nonce; 16],
            expires: Some(prost_types::Timestamp {
                seconds: expires,
                nanos: 0,
            }),
            ..wire::Authorisation::default()
        }),
    })
}

fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

#[test]
fn a_nonce_counts_once_and_its_document_never_again() {
    let mut state = State::new(vec![1; 16]);
    let first = Event::OfficersSet(wire::OfficersSet {
        officers: Some(officers_to_wire(&officers())),
        authorisation: None,
    });
    let early = state.apply_event(1, &at(0), set_by(1, 1000));
    assert!(early.unwrap_err().contains("no officers"));
    state.apply_event(1, &at(0), first.clone()).unwrap();
    let again = state.apply_event(2, &at(0), first);
    assert!(again.unwrap_err().contains("no authorisation"));
    state.apply_event(2, &at(10), set_by(1, 1000)).unwrap();
    let mut state = <State as hsm_journal::State>::restore(&state.snapshot()).unwrap();
    let twice = state.apply_event(3, &at(11), set_by(1, 1000));
    assert!(twice.unwrap_err().contains("used twice"));
    // The next authorisation after the first one's expiry lets its nonce be forgotten ...
    state.apply_event(3, &at(2000), set_by(2, 3000)).unwrap();
    let snapshot = wire::Snapshot::decode(state.snapshot().as_slice()).unwrap();
    assert_eq!(snapshot.used_nonces.len(), 1);
    // ... and yet a clock that was set back brings its document back to nobody.
    let expires = "1970-01-01T00:16:40Z".parse().unwrap();
    let document = Document::new(
        &[1; 16],
        Nonce([1; 16]),
        expires,
        SetOfficers::from(&officers()),
    );
    let signed = Signed {
        document: document.to_text().unwrap().into_bytes(),
        signatures: Vec::new(),
    };
    let back = state.authorise::<SetOfficers>(&signed, UNIX_EPOCH + Duration::from_secs(11));
    let refused = back.unwrap_err().to_string();
    assert!(refused.contains("expired"), "{refused}");
}

/// Whoever takes a mark over knows nothing of a floor: what may have been signed up to it counts as signed.
#[tokio::test]
async fn a_floor_goes_with_the_mark_into_an_export_and_into_the_marks_of_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let created = Event::StateCreated(wire::StateCreated {
        deployment_id: vec![1; 16],
        anchor: Some(wire::AnchorBound {
            kind: "tpm".to_owned(),
            counter: 1,
            authorisation: None,
        }),
    });
    let first = entry::encode(SystemTime::now(), created);
    hsm_journal::create(&path, &State::default().snapshot(), &first).unwrap();
    let guard = open(&path);
    let (now, key) = (SystemTime::now(), public_key());
    let chain = ChainId::new(CHAIN).unwrap();
    let pinned = guard.pin(KEY, &key, &chain, 10, Vec::new(), now);
    pinned.await.unwrap();
    let (counter, _) = guard.begin_advance(Purpose::Open(2000), now).unwrap();
    guard.finish_advance(counter).unwrap();
    reserve(&guard, &precommit(11, 1, 100, None)).await.unwrap();
    let shown = || {
        let shown = guard.inspect(|state| {
            let exported = state.exported().remove(0).marks.remove(0);
            let last = exported.signed.imported.last.map(|it| it.position);
            let height = exported.signed.imported.initial_height;
            (height, last, crate::log::marks::document(state))
        });
        shown.unwrap()
    };
    let (height, last, document) = shown();
    assert!(height == 10 && document.contains(&format!(" 10 11 0 3 {CHAIN}")));
    let tail = Tail {
        size: 1,
        root: [0; 32],
    };
    guard.doubt(&tail, now).await.unwrap();
    let floor = guard.inspect(|state| state.mark(&key, &chain).unwrap().bounds.floor);
    let floor = floor.unwrap();
    assert!(floor > 11);
    let (height, kept, document) = shown();
    assert_eq!((height, kept), (floor, last));
    assert!(
        document.contains(&format!(" {floor} 11 0 3 {CHAIN}")),
        "{document}"
    );
}
