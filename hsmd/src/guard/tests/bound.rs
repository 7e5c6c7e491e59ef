//! A key that is bound to a ledger: the guard reserves nothing that the ledger did not clear.

use std::time::Duration;

use super::*;
use crate::guard::ledger::{Id, Row};

const SIGNER: [u8; 16] = [1; 16];

fn row(initial_height: i64) -> Row {
    Row {
        ledger_id: Id::new(&[7; 16]).unwrap(),
        generation: 1,
        members: [Id::new(&SIGNER).unwrap()].into(),
        awaited: [].into(),
        lost: [].into(),
        frozen: None,
        mark: Mark {
            initial_height,
            last: None,
        },
    }
}

fn seen(row: &Row, revision: u64) -> wire::LedgerMark {
    wire::LedgerMark {
        public_key: Some(entry::public_key_to_wire(&public_key())),
        chain_id: CHAIN.to_owned(),
        row: Some(row.to_wire()),
        cluster_id: 9,
        revision,
    }
}

fn cleared(generation: u64, revision: u64) -> Option<Cleared> {
    Some(Cleared {
        generation,
        revision,
    })
}

async fn bound(directory: &Path) -> Guard {
    create(directory);
    let guard = open(directory);
    let (key, chain) = (public_key(), ChainId::new(CHAIN).unwrap());
    let row = Some(seen(&row(10), 5));
    let now = SystemTime::now();
    let pinned = guard.pin_shared(KEY, (&key, &chain), 10, Vec::new(), row, now);
    pinned.await.unwrap();
    guard
}

async fn reserve_cleared(
    guard: &Guard,
    message: &Message,
    cleared: Option<Cleared>,
) -> Result<Reservation, Error> {
    let (caller, public_key) = (caller(), public_key());
    let ask = Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message,
        max_height_jump: 1000,
        terms: Terms::default(),
    };
    guard.reserve_cleared(ask, cleared, SystemTime::now()).await
}

fn is_ledger_first(outcome: &Result<Reservation, Error>) -> bool {
    matches!(outcome, Err(Error::LedgerFirst { .. }))
}

#[tokio::test]
async fn a_bound_key_reserves_nothing_that_its_ledger_did_not_clear() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = bound(&path).await;
    let message = precommit(11, 1, 100, None);
    // Without proof, with proof of another generation, and with an older one.
    for proof in [None, cleared(2, 6), cleared(1, 4)] {
        let outcome = reserve_cleared(&guard, &message, proof).await;
        assert!(is_ledger_first(&outcome), "{outcome:?}");
    }
    reserve_cleared(&guard, &message, cleared(1, 6))
        .await
        .unwrap();
    // What a device has to be asked for again needs the ledger again.
    assert!(is_ledger_first(&reserve(&guard, &message).await));
    let other = precommit(11, 2, 100, None);
    assert!(is_double_sign(&reserve(&guard, &other).await));
    let chain = ChainId::new(CHAIN).unwrap();
    let advanced = guard.advance(KEY, &chain, 50, SystemTime::now()).await;
    assert!(matches!(advanced, Err(Error::LedgerFirst { .. })));
    guard.close().unwrap();

    // A restart, which reads the snapshot, changes none of it.
    let guard = open(&path);
    let next = precommit(12, 1, 100, None);
    let outcome = reserve_cleared(&guard, &next, cleared(1, 5)).await;
    assert!(
        is_ledger_first(&outcome),
        "revision 6 was seen: {outcome:?}"
    );
    reserve_cleared(&guard, &next, cleared(1, 6)).await.unwrap();
}

#[tokio::test]
async fn a_floor_lets_no_bound_key_jump_past_what_its_row_holds() {
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
    let now = SystemTime::now();
    let (key, chain) = (public_key(), ChainId::new(CHAIN).unwrap());
    let row = Some(seen(&row(10), 5));
    let pinned = guard.pin_shared(KEY, (&key, &chain), 10, Vec::new(), row, now);
    pinned.await.unwrap();
    let advance = || {
        let (counter, _) = guard.begin_advance(Purpose::Open(2000), now).unwrap();
        guard.finish_advance(counter).unwrap();
    };
    let bounds = || {
        let known = guard.inspect(|state| state.mark(&key, &chain).unwrap().bounds);
        known.unwrap()
    };
    advance();
    let tail = Tail {
        size: 1,
        root: [0; 32],
    };
    guard.doubt(&tail, now).await.unwrap();
    let floor = bounds().floor;
    assert!(floor > 1010, "beyond the jump from the mark: {floor}");
    // Near the floor, and far from the row's mark: a proof for another message must not carry it.
    let message = precommit(floor + 1, 1, 100, None);
    let asked = reserve_cleared(&guard, &message, cleared(1, 6));
    let outcome = tokio::time::timeout(Duration::from_secs(30), asked).await;
    let outcome = outcome.expect("a refusal, and no wait for an advance");
    let is_jump = matches!(
        &outcome,
        Err(Error::Conflict {
            conflict: Conflict::HeightJump { .. },
            ..
        })
    );
    assert!(is_jump, "{outcome:?}");
}

#[tokio::test]
async fn what_another_signer_reserved_binds_and_is_given_again_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let guard = bound(&directory.path().join("state")).await;
    let theirs = precommit(11, 1, 100, None);
    let event = Event::LedgerSeen(seen(&row(10).with_message(&theirs), 6));
    guard
        .record_durably(event, SystemTime::now())
        .await
        .unwrap();
    let other = precommit(11, 2, 100, None);
    assert!(is_double_sign(&reserve(&guard, &other).await));
    let later = precommit(11, 1, 200, None);
    let again = reserve_cleared(&guard, &later, cleared(1, 6))
        .await
        .unwrap();
    assert_eq!(again.sign_bytes, theirs.sign_bytes());
}

#[tokio::test]
async fn the_journal_takes_no_row_below_what_it_holds_and_no_proof_from_a_distrusted_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = bound(&path).await;
    let message = precommit(11, 1, 100, None);
    reserve_cleared(&guard, &message, cleared(1, 6))
        .await
        .unwrap();
    let now = SystemTime::now();
    for below in [seen(&row(10), 7), seen(&row(10).with_message(&message), 4)] {
        let taken = guard.record_durably(Event::LedgerSeen(below), now).await;
        assert!(matches!(taken, Err(Error::Internal(_))), "{taken:?}");
    }
    let distrusted = Event::LedgerDistrusted(wire::LedgerDistrusted {
        public_key: Some(entry::public_key_to_wire(&public_key())),
        chain_id: CHAIN.to_owned(),
        reason: "it went back".to_owned(),
    });
    guard.record_durably(distrusted, now).await.unwrap();
    guard.close().unwrap();
    let guard = open(&path);
    let next = precommit(12, 1, 100, None);
    let outcome = reserve_cleared(&guard, &next, cleared(1, 9)).await;
    assert!(is_ledger_first(&outcome), "{outcome:?}");

    let mut merged = row(10).with_message(&message);
    merged.generation = 2;
    let event = Event::LedgerReconciled(seen(&merged, 3));
    guard.record_durably(event, now).await.unwrap();
    let outcome = reserve_cleared(&guard, &next, cleared(1, 9)).await;
    assert!(
        is_ledger_first(&outcome),
        "a proof from before: {outcome:?}"
    );
    reserve_cleared(&guard, &next, cleared(2, 4)).await.unwrap();
}

#[tokio::test]
async fn a_frozen_row_refuses_whatever_is_asked_and_a_thawed_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = bound(&path).await;
    let message = precommit(11, 1, 100, None);
    reserve_cleared(&guard, &message, cleared(1, 6))
        .await
        .unwrap();
    let mut frozen = row(10).with_message(&message);
    frozen.frozen = Some("the device is suspect".to_owned());
    let now = SystemTime::now();
    let event = Event::LedgerSeen(seen(&frozen, 7));
    guard.record_durably(event, now).await.unwrap();
    guard.close().unwrap();
    let guard = open(&path);
    for asked in [precommit(12, 1, 100, None), message.clone()] {
        let outcome = reserve_cleared(&guard, &asked, cleared(1, 8)).await;
        let said = outcome.expect_err("nothing is reserved").to_string();
        assert!(
            said.contains("is frozen") && said.contains("suspect"),
            "{said}"
        );
    }
    frozen.frozen = None;
    let event = Event::LedgerSeen(seen(&frozen, 8));
    guard.record_durably(event, now).await.unwrap();
    let next = precommit(12, 1, 100, None);
    reserve_cleared(&guard, &next, cleared(1, 9)).await.unwrap();
}

/// A guard with an anchor, under which the key is known and not bound; its ceiling is at 110.
async fn anchored(path: &Path) -> Guard {
    let created = Event::StateCreated(wire::StateCreated {
        deployment_id: vec![1; 16],
        anchor: Some(wire::AnchorBound {
            kind: "tpm".to_owned(),
            counter: 1,
            authorisation: None,
        }),
    });
    let first = entry::encode(SystemTime::now(), created);
    hsm_journal::create(path, &State::default().snapshot(), &first).unwrap();
    let guard = open(path);
    let (key, chain) = (public_key(), ChainId::new(CHAIN).unwrap());
    let pinned = guard.pin(KEY, &key, &chain, 10, Vec::new(), SystemTime::now());
    pinned.await.unwrap();
    advance(&guard);
    guard
}

fn advance(guard: &Guard) {
    let begun = guard.begin_advance(Purpose::Open(100), SystemTime::now());
    guard.finish_advance(begun.unwrap().0).unwrap();
}

#[tokio::test]
async fn a_key_is_bound_at_its_floor_since_other_signers_know_nothing_of_that() {
    let directory = tempfile::tempdir().unwrap();
    let guard = anchored(&directory.path().join("state")).await;
    let tail = Tail {
        size: 1,
        root: [0; 32],
    };
    let now = SystemTime::now();
    guard.doubt(&tail, now).await.unwrap();
    let place = (public_key(), ChainId::new(CHAIN).unwrap());
    for (height, expected) in [(10, false), (109, false), (110, true)] {
        let row = row(height);
        let bound = guard.bind(&place, &row.mark, seen(&row, 5), now).await;
        assert_eq!(bound.unwrap(), expected, "a row at {height}");
    }
}

#[tokio::test]
async fn a_key_that_was_bound_signs_nothing_until_no_older_image_is_taken_for_this_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = anchored(&path).await;
    let place = (public_key(), ChainId::new(CHAIN).unwrap());
    let (row, now) = (row(10), SystemTime::now());
    // An advance that was begun before says nothing about the binding.
    let (earlier, _) = guard.begin_advance(Purpose::Open(100), now).unwrap();
    let bound = guard.bind(&place, &row.mark, seen(&row, 5), now).await;
    assert!(bound.unwrap());
    guard.finish_advance(earlier).unwrap();
    let message = precommit(11, 1, 100, None);
    let waits = async |guard: &Guard| {
        let asked = reserve_cleared(guard, &message, cleared(1, 6));
        let waited = tokio::time::timeout(Duration::from_millis(50), asked).await;
        assert!(waited.is_err(), "{waited:?}");
        assert!(guard.advance_is_due(1).unwrap());
    };
    waits(&guard).await;
    guard.close().unwrap();
    // Neither does a restart, even two.
    open(&path).close().unwrap();
    let guard = open(&path);
    guard.finish_advance(earlier).unwrap();
    waits(&guard).await;
    advance(&guard);
    reserve_cleared(&guard, &message, cleared(1, 6))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_ledger_takes_no_floor_back_since_what_shows_that_it_went_back_may_be_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let guard = anchored(&directory.path().join("state")).await;
    let place = (public_key(), ChainId::new(CHAIN).unwrap());
    let (row, now) = (row(10), SystemTime::now());
    let bound = guard.bind(&place, &row.mark, seen(&row, 5), now).await;
    assert!(bound.unwrap());
    advance(&guard);
    let tail = Tail {
        size: 1,
        root: [0; 32],
    };
    guard.doubt(&tail, now).await.unwrap();
    let message = precommit(11, 1, 100, None);
    let outcome = reserve_cleared(&guard, &message, cleared(1, 6)).await;
    assert!(
        matches!(outcome, Err(Error::Unproven { .. })),
        "{outcome:?}"
    );
}
