//! Freezes, limits over time and the policy's version: held under the lock under which is reserved.

use std::time::Duration;

use hsm_policy::grants::{KeyName, Policy, Subject};

use super::*;
use crate::guard::{Freeze, Frozen};

fn freeze() -> Freeze {
    Freeze {
        by: "uid 0".to_owned(),
        reason: String::new(),
    }
}

fn is_frozen(outcome: &Result<Reservation, Error>) -> bool {
    matches!(outcome, Err(Error::Frozen { .. }))
}

#[tokio::test]
async fn a_freeze_is_durable_when_it_is_acknowledged_and_holds_for_every_name_of_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let guard = pinned(&path, 0).await;
    let message = precommit(1, 1, 100, None);
    reserve(&guard, &message).await.unwrap();
    let other = ChainId::new("other-1").unwrap();
    let key = public_key();
    let again = guard.pin("alias", &key, &other, 0, Vec::new(), SystemTime::now());
    again.await.unwrap();
    let alias = Frozen::Key("alias".to_owned());
    guard
        .freeze(&alias, freeze(), SystemTime::now())
        .await
        .unwrap();
    assert!(is_frozen(&reserve(&guard, &message).await));
    // A crash: the journal is not closed.
    drop(guard);
    let guard = open(&path);
    assert!(is_frozen(&reserve(&guard, &message).await));
    assert!(is_frozen(
        &reserve(&guard, &precommit(2, 1, 100, None)).await
    ));
}

#[tokio::test]
async fn what_an_older_policy_permits_is_not_reserved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    create(&path);
    let guard = open(&path);
    let now = SystemTime::now();
    let officers = Event::OfficersSet(wire::OfficersSet {
        officers: Some(officers_to_wire(&moves::officers())),
        authorisation: None,
    });
    let loaded = Event::PolicyLoaded(wire::PolicyLoaded {
        policy: Some(wire::PolicyMark {
            version: 2,
            sha256: vec![0; 32],
            expires: None,
        }),
        ..wire::PolicyLoaded::default()
    });
    guard.record_durably(officers, now).await.unwrap();
    guard.record_durably(loaded, now).await.unwrap();
    let (caller, public_key, message) = (caller(), public_key(), precommit(1, 1, 100, None));
    let chain = ChainId::new(CHAIN).unwrap();
    let pinned = guard.pin(KEY, &public_key, &chain, 0, Vec::new(), now);
    pinned.await.unwrap();
    let ask = |version| Ask {
        caller: &caller,
        key: KEY,
        public_key: &public_key,
        message: &message,
        max_height_jump: 1000,
        terms: Terms {
            version,
            ..Terms::default()
        },
    };
    let release = public_key_of(1);
    let raw = |version| crate::guard::RawAsk {
        caller: &caller,
        key: "release",
        public_key: &release,
        purpose: "release signing",
        hash: "sha512",
        payload: b"hsmd 1.0.0",
        version,
    };
    for version in [0, 1, 3] {
        let outcome = guard.reserve(ask(version), now).await;
        assert!(matches!(outcome, Err(Error::PolicyChanged)), "{outcome:?}");
        let outcome = guard.reserve_raw(raw(version), now).await;
        assert!(matches!(outcome, Err(Error::PolicyChanged)), "{outcome:?}");
    }
    guard.reserve(ask(2), now).await.unwrap();
    guard.reserve_raw(raw(2), now).await.unwrap();
}

#[tokio::test]
async fn a_key_for_payloads_is_frozen_under_all_of_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 0).await;
    let (caller, release) = (caller(), public_key_of(1));
    let raw = |key| crate::guard::RawAsk {
        caller: &caller,
        key,
        public_key: &release,
        purpose: "release signing",
        hash: "sha512",
        payload: b"hsmd 1.0.0",
        version: 0,
    };
    let now = SystemTime::now();
    for name in ["release", "alias"] {
        guard.reserve_raw(raw(name), now).await.unwrap();
    }
    let alias = Frozen::Key("alias".to_owned());
    guard.freeze(&alias, freeze(), now).await.unwrap();
    for name in ["release", "alias"] {
        let outcome = guard.reserve_raw(raw(name), now).await;
        assert!(matches!(outcome, Err(Error::Frozen { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn heights_are_used_up_by_what_is_reserved_and_by_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let guard = pinned(&directory.path().join("state"), 0).await;
    let policy = Policy::parse(
        "[[grant]]\ncallers = [\"spiffe://test.example/sentry/a\"]\nkey = \"validator\"\nchain_id = \"test-1\"\n\
         kinds = [\"precommit\"]\nmax_height_jump = 10\nmax_heights_per_second = 1\n",
    )
    .unwrap();
    let allowance = policy.grants().next().unwrap().limits().heights().unwrap();
    let subject = Subject {
        caller: caller(),
        key: KeyName::new(KEY).unwrap(),
        chain_id: ChainId::new(CHAIN).unwrap(),
    };
    let (caller, public_key) = (caller(), public_key());
    let ask = async |height, block, seconds| {
        let message = precommit(height, block, 100, None);
        let ask = Ask {
            caller: &caller,
            key: KEY,
            public_key: &public_key,
            message: &message,
            max_height_jump: 10,
            terms: Terms {
                heights: Some((&subject, allowance)),
                elapsed: Duration::from_secs(seconds),
                ..Terms::default()
            },
        };
        guard.reserve(ask, SystemTime::now()).await.map(drop)
    };
    let is_too_fast = |outcome: Result<(), Error>| {
        matches!(
            outcome,
            Err(Error::Denied(hsm_policy::grants::Denial::HeightRate { .. }))
        )
    };
    ask(8, 1, 0).await.unwrap();
    // Neither repetitions, nor what is refused, nor further steps at the same height.
    for _ in 0..20 {
        ask(8, 1, 0).await.unwrap();
        assert!(ask(8, 2, 0).await.is_err());
        assert!(is_too_fast(ask(11, 1, 0).await));
    }
    ask(10, 1, 0).await.unwrap();
    assert!(is_too_fast(ask(11, 1, 0).await));
    ask(11, 1, 1).await.unwrap();
    assert!(is_too_fast(ask(12, 1, 1).await));
    ask(21, 1, 100).await.unwrap();
}
