//! Done-when 4: a decision allocates no more with 10,000 grants than with one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::Duration;

use hsm_policy::cometbft::{ChainId, Height, Round, Timestamp, Vote, VoteType};
use hsm_policy::grants::{KeyName, Meters, Policy, Subject};
use hsm_policy::identity::Caller;

/// Bytes and number of allocations of a decision about the last of so many grants, and of a denial.
fn allocated(grants: usize) -> [(u64, u64); 2] {
    let grant = |number: usize| {
        format!(
            "[[grant]]\ncallers = [\"spiffe://d/sentry/s{number:05}\"]\nkey = \"key-{number:05}\"\n\
             chain_id = \"chain-{number:05}\"\nkinds = [\"prevote\"]\nmax_requests_per_second = 5\n\
             max_heights_per_second = 5\nmax_clock_skew_seconds = 5\n"
        )
    };
    let policy = Policy::parse(&(0..grants).map(grant).collect::<String>()).unwrap();
    let number = grants - 1;
    let caller: Caller = format!("spiffe://d/sentry/s{number:05}").parse().unwrap();
    let key = KeyName::new(&format!("key-{number:05}")).unwrap();
    let chain_id = ChainId::new(&format!("chain-{number:05}")).unwrap();
    let now = Timestamp::new(0, 0).unwrap();
    let (height, round) = (Height::new(1).unwrap(), Round::new(0).unwrap());
    let vote = Vote::new(
        chain_id.clone(),
        VoteType::Prevote,
        height,
        round,
        None,
        now,
        None,
    );
    let message = vote.unwrap().into();
    let mut meters = Meters::default();
    let granted = allocation_counter::measure(|| {
        let permit = policy.permit(&caller, &key, &message, now).unwrap();
        let subject = Subject {
            caller: caller.clone(),
            key: key.clone(),
            chain_id: chain_id.clone(),
        };
        let allowance = permit.requests().unwrap();
        assert!(meters.admits(&subject, allowance, 1, Duration::ZERO));
        meters.count(&subject, allowance, 1, Duration::ZERO);
    });
    let nobody: Caller = "spiffe://d/sentry/nobody".parse().unwrap();
    let denied = allocation_counter::measure(|| {
        assert!(policy.permit(&nobody, &key, &message, now).is_err());
    });
    [granted, denied].map(|it| (it.bytes_total, it.count_total))
}

#[test]
fn a_decision_allocates_no_more_with_10_000_grants_than_with_one() {
    let [granted, denied] = allocated(1);
    assert_eq!(allocated(10_000), [granted, denied]);
    assert_eq!(denied.0, 0, "a denial shares its names with the request");
    assert!(granted.1 <= 1, "the first use of a meter: {granted:?}");
}
