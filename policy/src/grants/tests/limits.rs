//! Limits: at their edges, over time, and that adding one never allows more.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::grants::{Allowance, Meters, Subject};

/// One grant with these lines added.
fn policy(lines: &str) -> Policy {
    let document = format!(
        "[[grant]]\ncallers = [\"spiffe://example.org/sentry/*\"]\nkey = \"k\"\nchain_id = \"c\"\n\
         kinds = [\"prevote\", \"precommit\"]\n{lines}\n"
    );
    Policy::parse(&document).unwrap()
}

fn prevote(height: i64) -> Message {
    let chain = ChainId::new("c").unwrap();
    let (height, round) = (Height::new(height).unwrap(), Round::new(0).unwrap());
    let vote = Vote::new(
        chain,
        VoteType::Prevote,
        height,
        round,
        None,
        seconds(0),
        None,
    );
    vote.unwrap().into()
}

fn permit(policy: &Policy, message: &Message) -> Result<super::super::Permit, Denial> {
    policy.permit(&caller("a"), &key("k"), message, seconds(0))
}

fn subject() -> Subject {
    Subject {
        caller: caller("a"),
        key: key("k"),
        chain_id: ChainId::new("c").unwrap(),
    }
}

#[test]
fn a_planned_halt_is_a_highest_height() {
    let policy = policy("max_height = 100");
    assert!(permit(&policy, &prevote(100)).is_ok());
    let denial = permit(&policy, &prevote(101)).unwrap_err();
    let expected = Denial::HeightLimit {
        height: 101,
        max_height: 100,
    };
    assert_eq!(denial, expected);
}

#[test]
fn a_frozen_key_signs_nothing_and_only_who_is_granted_it_is_told() {
    let policy = policy("[[freeze]]\nkey = \"k\"");
    let denial = permit(&policy, &prevote(1)).unwrap_err();
    assert_eq!(
        denial,
        Denial::Frozen {
            key: key("k"),
            line: 6
        }
    );
    let stranger = "spiffe://example.com/sentry/a".parse().unwrap();
    let told = policy.permit(&stranger, &key("k"), &prevote(1), seconds(0));
    assert!(matches!(told, Err(Denial::KeyNotGranted { .. })));
    let twice = "[[freeze]]\nkey = \"k\"\n[[freeze]]\nkey = \"k\"";
    let error = Policy::parse(twice).unwrap_err().to_string();
    assert!(error.contains("lines 1 and 3"), "{error}");
}

#[test]
fn requests_are_taken_at_the_grants_rate_in_the_long_run_and_ten_seconds_worth_at_once() {
    let permit = permit(&policy("max_requests_per_second = 2"), &prevote(1)).unwrap();
    let (allowance, subject) = (permit.requests().unwrap(), subject());
    let mut meters = Meters::default();
    let mut take = |milliseconds| {
        let now = Duration::from_millis(milliseconds);
        let admitted = meters.admits(&subject, allowance, 1, now);
        if admitted {
            meters.count(&subject, allowance, 1, now);
        }
        admitted
    };
    assert_eq!((0..30).filter(|_| take(0)).count(), 20);
    assert!(!take(499) && take(500) && !take(500));
    // A clock that goes back gives nothing.
    assert!(!take(0));
    let in_a_minute = (500..=60_500).filter(|at| take(*at)).count();
    assert_eq!(in_a_minute, 120);
}

#[test]
fn rates_below_one_are_exact_and_ten_requests_may_always_come_at_once() {
    let permit = permit(&policy("max_requests_per_second = 0.1"), &prevote(1)).unwrap();
    let allowance = permit.requests().unwrap();
    assert_eq!(allowance.rate().to_string(), "0.1");
    let mut meters = Meters::default();
    assert!(meters.admits(&subject(), allowance, 10, Duration::ZERO));
    meters.count(&subject(), allowance, 10, Duration::ZERO);
    assert!(!meters.admits(&subject(), allowance, 1, Duration::from_millis(9_999)));
    assert!(meters.admits(&subject(), allowance, 1, Duration::from_secs(10)));
}

#[test]
fn a_thief_pushes_the_mark_no_faster_than_the_grant_lets_heights_rise() {
    let lines = "max_height_jump = 1000\nmax_heights_per_second = 0.5";
    let permit = permit(&policy(lines), &prevote(1)).unwrap();
    let (allowance, subject) = (permit.heights().unwrap(), subject());
    let mut meters = Meters::default();
    let (mut mark, day) = (0, 24 * 3600);
    for second in 0..day {
        let now = Duration::from_secs(second);
        for jump in [1000, 100, 1] {
            while meters.admits(&subject, allowance, jump, now) {
                meters.count(&subject, allowance, jump, now);
                mark += jump;
            }
        }
    }
    assert!(
        (1000 + day / 2 - 1..=1000 + day / 2).contains(&mark),
        "{mark}"
    );
}

#[test]
fn nothing_is_kept_of_a_caller_before_its_first_use_nor_of_what_is_not_limited() {
    let unlimited = permit(&policy(""), &prevote(1)).unwrap();
    assert!(unlimited.requests().is_none() && unlimited.heights().is_none());
    let limited = permit(&policy("max_requests_per_second = 1"), &prevote(1)).unwrap();
    let mut meters = Meters::default();
    let allowance = limited.requests().unwrap();
    assert!(meters.admits(&subject(), allowance, 1, Duration::ZERO) && meters.is_empty());
    for _ in 0..100 {
        meters.count(&subject(), allowance, 1, Duration::ZERO);
    }
    assert_eq!(meters.len(), 1);
}

/// A line for each limit that is drawn, none where it is not.
fn lines(limits: &[(&str, Option<u32>)]) -> String {
    let drawn = limits
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    drawn
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect()
}

const LIMITS: [&str; 6] = [
    "max_height_jump",
    "max_round",
    "max_height",
    "max_clock_skew_seconds",
    "max_heights_per_second",
    "max_requests_per_second",
];

/// What is allowed to one caller who asks for these messages one after the other, each after what went before was
/// used up whether or not it was allowed: a message, the milliseconds that passed before it, and by how much it
/// raises the mark.
fn allowed(policy: &Policy, asked: &[(Message, u16, u8)]) -> Vec<bool> {
    let limits = policy.grants().next().unwrap().limits();
    let (mut requests, mut heights) = (Meters::default(), Meters::default());
    let (mut now, subject) = (Duration::ZERO, subject());
    let within = |meters: &mut Meters, allowance: Option<Allowance>, count, now| {
        allowance.is_none_or(|allowance| {
            let admitted = meters.admits(&subject, allowance, count, now);
            meters.count(&subject, allowance, count, now);
            admitted
        })
    };
    let each = asked.iter().map(|(message, passed, rise)| {
        now += Duration::from_millis((*passed).into());
        let rise = u64::from(*rise);
        let request = within(&mut requests, limits.requests(), 1, now);
        let height = within(&mut heights, limits.heights(), rise, now);
        let permit = policy.permit(&caller("a"), &key("k"), message, seconds(0));
        let jump = permit.is_ok_and(|permit| rise <= permit.max_height_jump());
        request && height && jump
    });
    each.collect()
}

proptest! {
    /// Done-when 5: a further or a tighter limit takes away, and never gives.
    #[test]
    fn adding_a_limit_never_allows_more(
        drawn in proptest::collection::vec(proptest::option::of(1..40_u32), 6),
        which in 0..6_usize,
        tighter in 1..40_u32,
        asked in proptest::collection::vec(
            (0..3_i32, 1..60_i64, -50..50_i64, 0..2000_u16, 0..40_u8), 1..60),
    ) {
        let before: Vec<_> = LIMITS.into_iter().zip(drawn.iter().copied()).collect();
        let mut after = before.clone();
        // What a document leaves out of these two is 1,000.
        let absent = if which < 2 { 1000 } else { u32::MAX };
        after[which].1 = Some(tighter.min(after[which].1.unwrap_or(absent)));
        let (before, after) = (policy(&lines(&before)), policy(&lines(&after)));
        prop_assert!(diff(&before, &after).more.is_empty());
        let asked: Vec<_> = asked
            .into_iter()
            .map(|(round, height, at, passed, rise)| {
                let chain = ChainId::new("c").unwrap();
                let (height, round) = (Height::new(height).unwrap(), Round::new(round).unwrap());
                let vote = Vote::new(chain, VoteType::Prevote, height, round, None, seconds(at), None);
                (vote.unwrap().into(), passed, rise)
            })
            .collect();
        let (before, after) = (allowed(&before, &asked), allowed(&after, &asked));
        for (number, (before, after)) in before.iter().zip(&after).enumerate() {
            prop_assert!(*before || !after, "request {number} is allowed by more limits only");
        }
    }
}
