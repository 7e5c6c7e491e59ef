//! What the decision costs with 10,000 grants, beside the bare call: the same with one grant, and one look into a hash
//! map of that size, which is the least that any policy has to do.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use hsm_policy::cometbft::{ChainId, Height, Message, Round, Timestamp, Vote, VoteType};
use hsm_policy::grants::{KeyName, Meters, Policy, Subject};
use hsm_policy::identity::Caller;

const GRANTS: usize = 10_000;
/// How often each is timed; the callers come in turns, so that no cache holds them all.
const TIMES: usize = 200_000;

pub(crate) fn measure(_disk: &Path) {
    let large = decision(GRANTS);
    let small = decision(1);
    let bare = bare_look();
    println!("decision_10000_grants {large:.3} us");
    println!("decision_1_grant {small:.3} us");
    println!("bare_look_10000 {bare:.3} us");
    println!("ratio decision_to_bare_look {:.2}", large / bare);
}

/// The mean of one permit with its meters, in microseconds.
fn decision(grants: usize) -> f64 {
    let mut text = String::new();
    for number in 0..grants {
        write!(
            text,
            "[[grant]]\ncallers = [\"spiffe://example.org/sentry/s{number}\"]\nkey = \"key-{number}\"\n\
             chain_id = \"chain-{number}\"\nkinds = [\"prevote\"]\nmax_clock_skew_seconds = 60\n\
             max_requests_per_second = 1000000\n"
        )
        .expect("a string grows");
    }
    let policy = Policy::parse(&text).expect("a policy");
    let asked: Vec<(Subject, Message)> = (0..grants).map(asked).collect();
    let now = Timestamp::new(0, 0).expect("a timestamp");
    let mut meters = Meters::default();
    mean(|index| {
        let (subject, message) = &asked[index * 7919 % grants];
        let Subject { caller, key, .. } = subject;
        let permit = policy.permit(caller, key, message, now).expect("a permit");
        let allowance = permit.requests().expect("an allowance");
        assert!(meters.admits(subject, allowance, 1, Duration::ZERO));
        let _ = black_box(permit);
        if index < grants {
            meters.count(subject, allowance, 1, Duration::ZERO);
        }
    })
}

fn bare_look() -> f64 {
    let asked: Vec<Subject> = (0..GRANTS).map(|number| asked(number).0).collect();
    let names = |subject: &Subject| (subject.caller.to_string(), subject.key.to_string());
    let known: HashMap<(String, String), usize> = asked.iter().map(names).zip(0..).collect();
    let asked: Vec<(String, String)> = asked.iter().map(names).collect();
    mean(|index| {
        black_box(
            known
                .get(&asked[index * 7919 % GRANTS])
                .expect("it is there"),
        );
    })
}

fn asked(number: usize) -> (Subject, Message) {
    let caller: Caller = format!("spiffe://example.org/sentry/s{number}")
        .parse()
        .expect("a caller");
    let key = KeyName::new(&format!("key-{number}")).expect("a name");
    let chain_id = ChainId::new(&format!("chain-{number}")).expect("a chain id");
    let (height, round) = (
        Height::new(5).expect("a height"),
        Round::new(0).expect("a round"),
    );
    let at = Timestamp::new(0, 0).expect("a timestamp");
    let vote = Vote::new(
        chain_id.clone(),
        VoteType::Prevote,
        height,
        round,
        None,
        at,
        None,
    );
    let subject = Subject {
        caller,
        key,
        chain_id,
    };
    (subject, vote.expect("a vote").into())
}

fn mean(mut call: impl FnMut(usize)) -> f64 {
    (0..TIMES / 10).for_each(&mut call);
    let begun = Instant::now();
    (0..TIMES).for_each(&mut call);
    begun.elapsed().as_secs_f64() * 1e6 / TIMES as f64
}
