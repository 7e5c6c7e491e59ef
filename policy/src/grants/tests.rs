mod limits;
mod roles;
mod words;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cometbft::{BlockId, Height, Kind, Proposal, Round, Vote, VoteType};

const DOCUMENT: &str = r#"
# Two sentries of one validator, and another validator.
[[grant]]
callers = ["spiffe://example.org/sentry/a", "spiffe://example.org/sentry/b"]
key = "cosmoshub"
chain_id = "cosmoshub-4"
kinds = ["proposal", "prevote", "precommit"]

[[grant]]
callers = ["spiffe://example.org/sentry/a"]
key = "cosmoshub"
chain_id = "theta-testnet-001"
kinds = ["prevote"]

[[grant]]
callers = ["spiffe://example.org/sentry/c"]
key = "dydx"
chain_id = "dydx-mainnet-1"
kinds = ["proposal", "prevote", "precommit", "extension"]
max_height_jump = 5
max_round = 3
max_clock_skew_seconds = 60
"#;

fn caller(name: &str) -> Caller {
    format!("spiffe://example.org/sentry/{name}")
        .parse()
        .unwrap()
}

fn key(name: &str) -> KeyName {
    KeyName::new(name).unwrap()
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).unwrap()
}

fn message(kind: Kind, chain_id: &str, round: i32, at: i64) -> Message {
    let chain_id = ChainId::new(chain_id).unwrap();
    let (height, round, at) = (
        Height::new(5).unwrap(),
        Round::new(round).unwrap(),
        seconds(at),
    );
    let block = BlockId::new(&[1; 32], 1, &[2; 32]).unwrap();
    let vote = |vote_type, block, extension| {
        Vote::new(
            chain_id.clone(),
            vote_type,
            height,
            round,
            block,
            at,
            extension,
        )
        .unwrap()
        .into()
    };
    match kind {
        Kind::Proposal => Proposal::new(chain_id.clone(), height, round, -1, block, at)
            .unwrap()
            .into(),
        Kind::Prevote => vote(VoteType::Prevote, None, None),
        Kind::Precommit => vote(VoteType::Precommit, Some(block), None),
        Kind::Extension => vote(VoteType::Precommit, Some(block), Some(vec![])),
    }
}

/// What `permit` answers, in one word.
fn answer(policy: &Policy, who: &str, with: &str, message: &Message, now: i64) -> &'static str {
    match policy.permit(&caller(who), &key(with), message, seconds(now)) {
        Ok(_) => "permitted",
        Err(Denial::KeyNotGranted { .. }) => "key",
        Err(Denial::ChainNotGranted { .. }) => "chain",
        Err(Denial::KindNotGranted { .. }) => "kind",
        Err(Denial::RoundLimit { .. }) => "round",
        Err(Denial::ClockSkew { .. }) => "clock",
        Err(Denial::HeightLimit { .. }) => "height",
        Err(Denial::Frozen { .. }) => "frozen",
        Err(Denial::RequestRate { .. } | Denial::HeightRate { .. }) => "rate",
    }
}

/// Promise 4.
#[test]
fn what_no_grant_names_is_denied() {
    use Kind::{Extension, Precommit, Prevote, Proposal};
    let policy = Policy::parse(DOCUMENT).unwrap();
    for (who, with, kind, chain_id, expected) in [
        ("a", "cosmoshub", Proposal, "cosmoshub-4", "permitted"),
        ("b", "cosmoshub", Precommit, "cosmoshub-4", "permitted"),
        ("a", "cosmoshub", Prevote, "theta-testnet-001", "permitted"),
        ("c", "dydx", Extension, "dydx-mainnet-1", "permitted"),
        ("a", "cosmoshub", Extension, "cosmoshub-4", "kind"),
        ("a", "cosmoshub", Precommit, "theta-testnet-001", "kind"),
        ("b", "cosmoshub", Prevote, "theta-testnet-001", "chain"),
        ("a", "cosmoshub", Prevote, "cosmoshub-5", "chain"),
        ("a", "cosmoshub", Prevote, "Cosmoshub-4", "chain"),
        ("a", "dydx", Prevote, "dydx-mainnet-1", "key"),
        ("a", "no-such-key", Prevote, "cosmoshub-4", "key"),
        ("d", "cosmoshub", Prevote, "cosmoshub-4", "key"),
    ] {
        let got = answer(&policy, who, with, &message(kind, chain_id, 0, 0), 0);
        assert_eq!(got, expected, "{who} {with} {kind} {chain_id}");
    }
}

#[test]
fn a_caller_of_the_same_name_in_another_trust_domain_or_role_is_denied() {
    let policy = Policy::parse(DOCUMENT).unwrap();
    for uri in [
        "spiffe://example.com/sentry/a",
        "spiffe://example.org/operator/a",
    ] {
        let other: Caller = uri.parse().unwrap();
        let asked = message(Kind::Prevote, "cosmoshub-4", 0, 0);
        let denial = policy
            .permit(&other, &key("cosmoshub"), &asked, seconds(0))
            .unwrap_err();
        assert_eq!(
            denial,
            Denial::KeyNotGranted {
                caller: other,
                key: key("cosmoshub")
            }
        );
    }
}

#[test]
fn a_denial_does_not_tell_an_unknown_key_from_one_of_others() {
    let policy = Policy::parse(DOCUMENT).unwrap();
    let asked = message(Kind::Prevote, "dydx-mainnet-1", 0, 0);
    let denied = |name| {
        policy
            .permit(&caller("a"), &key(name), &asked, seconds(0))
            .unwrap_err()
    };
    let foreign = denied("dydx").to_string();
    assert_eq!(
        foreign.replace("dydx", "nokey"),
        denied("nokey").to_string()
    );
}

#[test]
fn the_limits_of_the_grant_hold_at_their_edges() {
    let policy = Policy::parse(DOCUMENT).unwrap();
    let ask = |round, at, now| {
        let asked = message(Kind::Prevote, "dydx-mainnet-1", round, at);
        answer(&policy, "c", "dydx", &asked, now)
    };
    assert_eq!(ask(3, 1000, 1000), "permitted");
    assert_eq!(ask(4, 1000, 1000), "round");
    assert_eq!(ask(i32::MAX, 1000, 1000), "round");
    assert_eq!(ask(0, 1060, 1000), "permitted");
    assert_eq!(ask(0, 940, 1000), "permitted");
    assert_eq!(ask(0, 1061, 1000), "clock");
    assert_eq!(ask(0, 939, 1000), "clock");
    assert_eq!(ask(0, -62_135_596_800, 253_402_300_799), "clock");
}

#[test]
fn limits_that_the_document_leaves_out_have_their_defaults() {
    let policy = Policy::parse(DOCUMENT).unwrap();
    let first = policy.grants().next().unwrap();
    let limits = Limits {
        max_height_jump: 1000,
        max_round: 1000,
        max_height: None,
        max_clock_skew: None,
        max_heights_per_second: None,
        max_requests_per_second: None,
    };
    assert_eq!(first.limits(), &limits);
    let ask = |round, at| {
        answer(
            &policy,
            "a",
            "cosmoshub",
            &message(Kind::Prevote, "cosmoshub-4", round, at),
            0,
        )
    };
    assert_eq!(ask(1000, 253_402_300_799), "permitted");
    assert_eq!(ask(1001, 0), "round");
    let asked = message(Kind::Extension, "dydx-mainnet-1", 0, 0);
    let permit = policy
        .permit(&caller("c"), &key("dydx"), &asked, seconds(0))
        .unwrap();
    assert_eq!(permit.max_height_jump(), 5);
}

#[test]
fn grants_are_listed_for_a_caller_for_a_key_and_as_a_whole() {
    let policy = Policy::parse(DOCUMENT).unwrap();
    let chains = |grants: Vec<&Grant>| {
        grants
            .iter()
            .map(|grant| grant.chain_id().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        chains(policy.grants_of(&caller("a")).collect()),
        ["cosmoshub-4", "theta-testnet-001"]
    );
    assert_eq!(chains(policy.grants_of(&caller("d")).collect()), [""; 0]);
    let with = |who, name| {
        policy
            .grants_with(&caller(who), &key(name))
            .map(Iterator::collect)
    };
    assert_eq!(chains(with("b", "cosmoshub").unwrap()), ["cosmoshub-4"]);
    assert!(matches!(
        with("b", "dydx"),
        Err(Denial::KeyNotGranted { .. })
    ));
    let lines: Vec<usize> = policy.grants().map(Grant::line).collect();
    assert_eq!(lines, [3, 9, 15]);
}

#[test]
fn a_document_without_grants_permits_nothing() {
    let policy = Policy::parse("").unwrap();
    let asked = message(Kind::Prevote, "cosmoshub-4", 0, 0);
    assert_eq!(answer(&policy, "a", "cosmoshub", &asked, 0), "key");
}

/// A document with one good grant, in which `line` replaces the line of the same field or is added.
fn with_line(line: &str) -> String {
    let field = line.split(' ').next().unwrap();
    let good = [
        "callers = [\"spiffe://example.org/sentry/a\"]",
        "key = \"k\"",
        "chain_id = \"c\"",
        "kinds = [\"prevote\"]",
    ];
    let kept = good.into_iter().filter(|good| !good.starts_with(field));
    let lines: Vec<&str> = ["[[grant]]"]
        .into_iter()
        .chain(kept)
        .chain([line])
        .collect();
    lines.join("\n")
}

#[test]
fn a_bad_value_is_refused_with_its_line_its_value_and_the_rule() {
    for (line, reason) in [
        ("callers = []", "name at least one"),
        (
            "callers = [\"spiffe://d/sentry/a\", \"spiffe://d/sentry/a\"]",
            "a occurs twice",
        ),
        (
            "callers = [\"spiffe://d/operator/a\"]",
            "only callers of the role sentry",
        ),
        ("callers = [\"spiffe://d/sentry/a/\"]", "and no more"),
        ("callers = \"spiffe://d/sentry/a\"", "expected a sequence"),
        ("key = \"Key\"", "1 to 64 bytes of a-z 0-9 . _ -"),
        ("chain_id = \"\"", "1 to 50 bytes"),
        ("kinds = []", "name at least one"),
        ("kinds = [\"prevote\", \"prevote\"]", "prevote occurs twice"),
        (
            "kinds = [\"vote\"]",
            "expected one of `proposal`, `prevote`, `precommit`, `extension`",
        ),
        ("max_height_jump = 0", "expected a nonzero u64"),
        ("max_height_jump = -1", "expected a nonzero u64"),
        ("max_round = -1", "expected u32"),
        ("max_round = 4294967296", "expected u32"),
        ("max_clock_skew_seconds = 0", "expected a nonzero u32"),
        ("max_clock_skew_seconds = 0.5", "expected a nonzero u32"),
        ("max_height = 0", "expected a nonzero u64"),
        ("max_heights_per_second = 0", "from 0.000001"),
        ("max_heights_per_second = nan", "from 0.000001"),
        ("max_requests_per_second = -1", "from 0.000001"),
        ("max_requests_per_second = \"1\"", "expected f64"),
        (
            "max_hight_jump = 5",
            "expected one of `callers`, `key`, `chain_id`, `kinds`",
        ),
    ] {
        let error = Policy::parse(&with_line(line)).unwrap_err().to_string();
        assert!(error.contains(reason), "{line}: {error}");
        assert!(
            error.contains(line) && error.contains(" at line "),
            "{line}: {error}"
        );
    }
}

/// Promise 4.
#[test]
fn a_missing_field_and_an_unknown_table_are_refused() {
    for field in ["callers", "key", "chain_id", "kinds"] {
        let document =
            with_line(&format!("{field} = REMOVED")).replace(&format!("{field} = REMOVED"), "");
        let error = Policy::parse(&document).unwrap_err().to_string();
        assert!(
            error.contains(&format!("missing field `{field}`")),
            "{error}"
        );
    }
    for document in [
        "[[grants]]",
        "version = 1",
        "grant = 1",
        "[grant]",
        "not toml",
        "\u{0}",
    ] {
        assert!(
            matches!(
                Policy::parse(document),
                Err(Error::Document(_) | Error::Header(_))
            ),
            "{document:?}"
        );
    }
}

#[test]
fn two_grants_for_the_same_caller_key_and_chain_are_refused_and_both_are_named() {
    let twice = format!(
        "{DOCUMENT}
[[grant]]
callers = [\"spiffe://example.org/sentry/x\", \"spiffe://example.org/sentry/b\"]
key = \"cosmoshub\"
chain_id = \"cosmoshub-4\"
kinds = [\"extension\"]
"
    );
    let error = Policy::parse(&twice).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Contradiction {
                first_line: 3,
                line: 24,
                ..
            }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    for part in [
        "lines 3 and 24",
        "spiffe://example.org/sentry/b",
        "cosmoshub-4",
        "one grant",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn ten_thousand_keys_are_each_found() {
    let grant = |n: usize| {
        format!(
            "[[grant]]\ncallers = [\"spiffe://d/sentry/a\"]\nkey = \"key-{n}\"\n\
             chain_id = \"chain-{n}\"\nkinds = [\"prevote\"]\n"
        )
    };
    let policy = Policy::parse(&(0..10_000).map(grant).collect::<String>()).unwrap();
    let caller: Caller = "spiffe://d/sentry/a".parse().unwrap();
    for n in 0..10_000 {
        let (key, other) = (key(&format!("key-{n}")), (n + 1) % 10_000);
        let ask = |n| {
            let asked = message(Kind::Prevote, &format!("chain-{n}"), 0, 0);
            policy.permit(&caller, &key, &asked, seconds(0))
        };
        assert!(ask(n).is_ok());
        assert!(matches!(ask(other), Err(Denial::ChainNotGranted { .. })));
    }
    assert_eq!(policy.grants_of(&caller).count(), 10_000);
}

/// A grant as the properties make it: callers, key and chain by number.
#[derive(Debug, Clone)]
struct Drawn {
    callers: Vec<u8>,
    key: u8,
    chain: u8,
    kinds: Vec<Kind>,
    max_round: i32,
}

impl Drawn {
    fn toml(&self) -> String {
        let callers: Vec<String> = self
            .callers
            .iter()
            .map(|n| caller(&n.to_string()).to_string())
            .collect();
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        format!(
            "[[grant]]\ncallers = {callers:?}\nkey = \"k{}\"\nchain_id = \"c{}\"\n\
             kinds = {kinds:?}\nmax_round = {}\n",
            self.key, self.chain, self.max_round
        )
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let callers = proptest::sample::subsequence(vec![0_u8, 1, 2], 1..=3);
    let kinds = proptest::sample::subsequence(Kind::ALL.to_vec(), 1..=4);
    (callers, 0..3_u8, 0..3_u8, kinds, 0..3_i32).prop_map(
        |(callers, key, chain, kinds, max_round)| Drawn {
            callers,
            key,
            chain,
            kinds,
            max_round,
        },
    )
}

proptest! {
    #[test]
    fn a_message_is_permitted_exactly_where_a_grant_names_it(
        grants in vec(drawn(), 0..6),
        who in 0..4_u8,
        with in 0..4_u8,
        chain in 0..4_u8,
        kind in proptest::sample::select(Kind::ALL.to_vec()),
        round in 0..4_i32,
    ) {
        let document: String = grants.iter().map(Drawn::toml).collect();
        let Ok(policy) = Policy::parse(&document) else {
            let overlap = |a: &Drawn, b: &Drawn| {
                a.key == b.key && a.chain == b.chain && a.callers.iter().any(|n| b.callers.contains(n))
            };
            let mut rest = grants.as_slice();
            let mut found = false;
            while let Some((first, others)) = rest.split_first() {
                found |= others.iter().any(|other| overlap(first, other));
                rest = others;
            }
            prop_assert!(found, "refused without a contradiction: {document}");
            return Ok(());
        };
        let needed = match kind {
            Kind::Extension => vec![Kind::Precommit, Kind::Extension],
            other => vec![other],
        };
        let named = grants.iter().any(|grant| {
            grant.callers.contains(&who)
                && grant.key == with
                && grant.chain == chain
                && needed.iter().all(|kind| grant.kinds.contains(kind))
                && round <= grant.max_round
        });
        let asked = message(kind, &format!("c{chain}"), round, 0);
        let got = policy.permit(&caller(&who.to_string()), &key(&format!("k{with}")), &asked, seconds(0));
        prop_assert_eq!(got.is_ok(), named);
    }

    #[test]
    fn no_document_panics(text in any::<String>(), at in 0..600_usize, cut in 0..40_usize) {
        let _: Result<Policy, Error> = Policy::parse(&text);
        let at = at.min(DOCUMENT.len());
        let end = (at + cut).min(DOCUMENT.len());
        let spliced = format!("{}{text}{}", &DOCUMENT[..at], &DOCUMENT[end..]);
        if let Ok(policy) = Policy::parse(&spliced) {
            prop_assert!(policy.grants().all(|grant| !grant.callers().is_empty()));
        }
    }
}
