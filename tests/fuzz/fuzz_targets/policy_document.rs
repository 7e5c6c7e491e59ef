//! A policy document: read without a panic, and what is read grants no more than its text says.

#![no_main]

use hsm_policy::cometbft::{Height, Kind, Round, Timestamp, Vote, VoteType};
use hsm_policy::grants::Policy;
use hsm_policy::identity::Role;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for grant in policy.grants() {
        assert!(grant.kinds().iter().count() > 0 && grant.max_height_jump() > 0);
        for caller in grant.callers() {
            assert_eq!(caller.role(), Role::Sentry);
            assert!(policy.grants_of(caller).any(|other| other == grant));
            let (Ok(height), Ok(round), Ok(now)) =
                (Height::new(1), Round::new(0), Timestamp::new(0, 0))
            else {
                unreachable!()
            };
            let chain_id = grant.chain_id().clone();
            let vote = Vote::new(chain_id, VoteType::Prevote, height, round, None, now, None);
            let permit = policy.permit(caller, grant.key(), &vote.unwrap().into(), now);
            assert_eq!(permit.is_ok(), grant.kinds().contains(Kind::Prevote));
        }
    }
});
