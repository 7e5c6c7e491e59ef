//! A policy document: read without a panic, what is read grants no more than its text says, and allows nothing that
//! another reading of it did not.

#![no_main]

use hsm_policy::cometbft::{Height, Kind, Round, Timestamp, Vote, VoteType};
use hsm_policy::grants::{Grantee, Policy, diff, explain};
use hsm_policy::identity::{Caller, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(diff(&policy, &policy).is_empty());
    let nothing = Policy::default();
    let grantees: usize = policy.grants().map(|grant| grant.callers().len()).sum();
    assert_eq!(diff(&nothing, &policy).more.len(), grantees);
    for grant in policy.grants() {
        assert!(grant.kinds().iter().count() > 0 && grant.limits().max_height_jump > 0);
        for grantee in grant.callers() {
            assert_eq!(grantee.role(), Role::Sentry);
            let caller: Caller = match grantee {
                Grantee::Caller(caller) => caller.clone(),
                Grantee::Role(domain, role) => {
                    let uri = format!("spiffe://{domain}/{role}/fuzzed-name");
                    uri.parse().unwrap()
                }
            };
            let (Ok(height), Ok(round), Ok(now)) =
                (Height::new(1), Round::new(0), Timestamp::new(0, 0))
            else {
                unreachable!()
            };
            let chain_id = grant.chain_id().clone();
            let vote = Vote::new(chain_id, VoteType::Prevote, height, round, None, now, None);
            let vote = vote.unwrap().into();
            let permit = policy.permit(&caller, grant.key(), &vote, now);
            let expected =
                grant.kinds().contains(Kind::Prevote) && policy.freeze(grant.key()).is_none();
            assert_eq!(permit.is_ok(), expected);
            let explained = explain(&policy, &caller, grant.key(), &vote, now);
            assert_eq!(explained.denial.is_none(), expected);
            assert!(explained.line.is_some() && !explained.to_string().is_empty());
        }
    }
});
