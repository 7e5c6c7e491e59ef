use std::net::IpAddr;

use hsm_journal::State as _;
use hsm_policy::identity::Role;
use hsm_policy::revocation::Scope;
use proptest::prelude::*;

use super::*;

const HERE: &str = "192.0.2.7";
const NOW: u64 = 1_000;

fn state() -> State {
    State::new("example.org".parse().unwrap())
}

fn token(node: &str, number: u8, address: &str) -> Event {
    Event::TokenCreated(wire::TokenCreated {
        token_sha256: vec![number; 32],
        node: node.to_owned(),
        role: "sentry".to_owned(),
        address: address.to_owned(),
        expires: NOW + 100,
        ..wire::TokenCreated::default()
    })
}

fn issued(node: &str, number: u8, asked_by: &[u8], not_before: u64) -> wire::CertificateIssued {
    wire::CertificateIssued {
        node: node.to_owned(),
        kind: wire::CertificateKind::Grant.into(),
        sha256: vec![number; 32],
        not_before,
        not_after: not_before + 100,
        asked_by: asked_by.to_vec(),
        ..wire::CertificateIssued::default()
    }
}

fn joined(node: &str, token: u8, grant: u8) -> Event {
    Event::NodeJoined(wire::NodeJoined {
        token_sha256: vec![token; 32],
        address: HERE.to_owned(),
        grant: Some(issued(node, grant, &[], NOW)),
    })
}

fn revoked(state: &State, scope: &Scope, moment: u64) -> Event {
    let list = state.revocations().and(scope, moment).unwrap();
    Event::NodesRevoked(wire::NodesRevoked {
        revocations: Some(wire::SignedRevocations {
            document: list.to_document().into_bytes(),
            signature: vec![0; 64],
        }),
        ..wire::NodesRevoked::default()
    })
}

fn happens(state: &mut State, event: Event) {
    state.check(&event).unwrap();
    state.commit(1, NOW, event);
}

fn reason<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> Reason {
    refused.unwrap_err().reason
}

fn here() -> IpAddr {
    HERE.parse().unwrap()
}

#[test]
fn a_token_admits_its_node_once_from_its_address_until_it_expires() {
    let mut state = state();
    happens(&mut state, token("a", 1, HERE));
    let admits = |state: &State, token: u8, node: &str, address: &str, now| {
        state.admits(&[token; 32], node, address.parse().unwrap(), now)
    };
    assert_eq!(
        reason(admits(&state, 2, "a", HERE, NOW)),
        Reason::TokenUnknown
    );
    assert_eq!(reason(admits(&state, 1, "b", HERE, NOW)), Reason::TokenNode);
    assert_eq!(
        reason(admits(&state, 1, "a", "192.0.2.8", NOW)),
        Reason::TokenAddress
    );
    assert_eq!(
        reason(admits(&state, 1, "a", HERE, NOW + 100)),
        Reason::TokenExpired
    );
    let grantee = admits(&state, 1, "a", HERE, NOW + 99).unwrap();
    assert_eq!((grantee.role, grantee.not_before), (Role::Sentry, 0));
    happens(&mut state, joined("a", 1, 9));
    assert_eq!(
        reason(admits(&state, 1, "a", HERE, NOW)),
        Reason::TokenSpent
    );
    assert!(state.check(&joined("a", 1, 9)).is_err(), "spent twice");
}

#[test]
fn what_was_issued_or_promised_before_a_revocation_is_void_after_it() {
    for scope in [
        Scope::Node("a".to_owned()),
        Scope::Role(Role::Sentry),
        Scope::All,
    ] {
        let mut state = state();
        happens(&mut state, token("a", 1, ""));
        happens(&mut state, joined("a", 1, 9));
        happens(&mut state, token("a", 2, ""));
        state.holder("a", &[9; 32], NOW).unwrap();
        let moment = state.revocation_moment(NOW);
        assert!(moment > NOW, "later than every certificate made");
        let revoked = revoked(&state, &scope, moment);
        happens(&mut state, revoked);
        assert_eq!(
            reason(state.holder("a", &[9; 32], NOW)),
            Reason::CertificateRevoked
        );
        let admitted = state.admits(&[2; 32], "a", here(), NOW);
        assert_eq!(reason(admitted), Reason::TokenRevoked);
        happens(&mut state, token("a", 3, ""));
        let grantee = state.admits(&[3; 32], "a", here(), NOW).unwrap();
        assert_eq!(grantee.not_before, moment);
    }
}

#[test]
fn another_nodes_revocation_concerns_nobody_else() {
    let mut state = state();
    for (node, number) in [("a", 1), ("b", 2)] {
        happens(&mut state, token(node, number, ""));
        happens(&mut state, joined(node, number, number));
    }
    let revoked = revoked(&state, &Scope::Node("a".to_owned()), NOW + 1);
    happens(&mut state, revoked);
    state.holder("b", &[2; 32], NOW).unwrap();
    assert!(state.holder("a", &[1; 32], NOW).is_err());
}

#[test]
fn the_newest_granting_certificate_is_taken_and_the_one_that_asked_for_it() {
    let mut state = state();
    happens(&mut state, token("a", 1, ""));
    happens(&mut state, joined("a", 1, 10));
    happens(
        &mut state,
        Event::CertificateIssued(issued("a", 11, &[10; 32], NOW)),
    );
    for taken in [10, 11] {
        state.holder("a", &[taken; 32], NOW).unwrap();
    }
    // The answer with 11 was lost: 10 asked again.
    happens(
        &mut state,
        Event::CertificateIssued(issued("a", 12, &[10; 32], NOW)),
    );
    assert_eq!(
        reason(state.holder("a", &[11; 32], NOW)),
        Reason::GrantSuperseded
    );
    happens(&mut state, token("a", 2, ""));
    happens(&mut state, joined("a", 2, 20));
    for void in [10, 12] {
        assert_eq!(
            reason(state.holder("a", &[void; 32], NOW)),
            Reason::GrantSuperseded
        );
    }
}

#[test]
fn events_that_contradict_the_register_are_refused() {
    let mut state = state();
    happens(&mut state, token("a", 1, ""));
    happens(&mut state, joined("a", 1, 9));
    let older = {
        let before = state.clone();
        let later = revoked(&state, &Scope::All, 5);
        happens(&mut state, later);
        revoked(&before, &Scope::All, 5)
    };
    let mut operator = token("a", 5, "");
    if let Event::TokenCreated(created) = &mut operator {
        created.role = "operator".to_owned();
    }
    for event in [
        older,
        operator,
        token("a", 1, ""),
        token("a/b", 6, ""),
        joined("a", 7, 9),
        Event::CertificateIssued(issued("nobody", 1, &[], NOW)),
        Event::FilesAssigned(wire::FilesAssigned {
            node: "nobody".to_owned(),
            ..wire::FilesAssigned::default()
        }),
    ] {
        assert!(state.check(&event).is_err(), "{event:?}");
    }
}

#[tokio::test]
async fn of_two_that_decide_on_one_token_one_succeeds_and_a_restart_remembers_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("register");
    let (snapshot, first) = creation(&"example.org".parse().unwrap());
    hsm_journal::create(&path, &snapshot, &first).unwrap();
    let open = || Register::new(hsm_journal::open(&path, Default::default()).unwrap());
    let register = open();
    let now = SystemTime::now();
    register.act(now, |_| Ok(token("a", 1, ""))).await.unwrap();
    let join = |number: u8| {
        register.act(now, move |state| {
            state.admits(&[1; 32], "a", here(), NOW)?;
            Ok(joined("a", 1, number))
        })
    };
    let (first, second) = tokio::join!(join(1), join(2));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    register.close().unwrap();
    drop(register);
    let register = open();
    let again = register.inspect(|state| state.admits(&[1; 32], "a", here(), NOW));
    assert_eq!(reason(again), Reason::TokenSpent);
}

#[tokio::test]
async fn refusals_beyond_the_limit_are_counted_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("register");
    let (snapshot, first) = creation(&"example.org".parse().unwrap());
    hsm_journal::create(&path, &snapshot, &first).unwrap();
    let register = Register::new(hsm_journal::open(&path, Default::default()).unwrap());
    for _ in 0..MOST_REFUSALS + 50 {
        register.refused(wire::EnrolmentRefused::default()).await;
    }
    register.record_counted(false).await;
    register.record_counted(true).await;
    register.record_counted(true).await;
    register.close().unwrap();
    let entries = hsm_journal::read(&path).unwrap();
    let counts: Vec<u64> = entries
        .filter_map(|entry| match decode(&entry.unwrap().leaf) {
            Ok((_, Event::Refused(refused))) => Some(refused.more),
            _ => None,
        })
        .collect();
    let last = counts.len() - 1;
    assert_eq!((last, counts[last]), (MOST_REFUSALS as usize, 50));
    assert!(counts[..last].iter().all(|more| *more == 0));
}

fn events() -> impl Strategy<Value = Event> {
    let (node, number) = ("[ab]", 0_u8..6);
    prop_oneof![
        (node, number.clone()).prop_map(|(node, number)| token(&node, number, "")),
        (node, number.clone(), number.clone())
            .prop_map(|(node, token, grant)| joined(&node, token, grant)),
        (node, number.clone(), number, 0_u64..2000).prop_map(|(node, new, old, from)| {
            Event::CertificateIssued(issued(&node, new, &[old; 32], from))
        }),
        (
            0_u64..2000,
            prop_oneof![
                Just(Scope::All),
                Just(Scope::Role(Role::Sentry)),
                Just(Scope::Node("a".to_owned()))
            ]
        )
            .prop_map(|(moment, scope)| revoked(&state(), &scope, moment)),
    ]
}

proptest! {
    #[test]
    fn whatever_happened_a_snapshot_yields_the_same_register_and_no_token_is_spent_twice(
        events in proptest::collection::vec(events(), 0..30)
    ) {
        let mut state = state();
        let mut spent = std::collections::HashSet::new();
        for (index, event) in (0..).zip(events) {
            if state.check(&event).is_ok() {
                if let Event::NodeJoined(joined) = &event {
                    prop_assert!(spent.insert(joined.token_sha256.clone()));
                }
                state.commit(index, NOW, event);
            }
            prop_assert_eq!(&State::restore(&state.snapshot()).unwrap(), &state);
        }
    }

    #[test]
    fn no_entry_makes_it_panic(leaf in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut state = state();
        let _ = state.apply(1, &leaf);
        let _ = State::restore(&leaf);
    }
}
