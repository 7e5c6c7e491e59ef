//! What `diff` and `explain` say.

use super::*;
use crate::grants::{diff, explain};

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

#[test]
fn a_difference_names_every_permission_that_is_new_wider_narrower_or_gone() {
    let old = policy(DOCUMENT);
    let new = policy(
        r#"
[[grant]]
callers = ["spiffe://example.org/sentry/a"]
key = "cosmoshub"
chain_id = "cosmoshub-4"
kinds = ["proposal", "prevote", "precommit", "extension"]
max_height_jump = 2000
max_height = 900

[[grant]]
callers = ["spiffe://example.org/sentry/*"]
key = "dydx"
chain_id = "dydx-mainnet-1"
kinds = ["prevote"]
max_height_jump = 5
max_round = 3

[[freeze]]
key = "osmosis"
"#,
    );
    let difference = diff(&old, &new);
    let hub = "spiffe://example.org/sentry/a with key cosmoshub on cosmoshub-4";
    assert_eq!(
        difference.more,
        [
            format!("{hub}: also extension [line 2]"),
            format!("{hub}: max_height_jump rises from 1000 to 2000 [line 2]"),
            "spiffe://example.org/sentry/* may have key dydx sign prevote on dydx-mainnet-1 (height jump 5, round 3) \
             [line 10]"
                .to_owned(),
        ]
    );
    assert_eq!(
        difference.less,
        [
            format!("{hub}: max_height 900 is new [line 2]"),
            "no longer: spiffe://example.org/sentry/b may have key cosmoshub sign proposal, prevote, precommit on \
             cosmoshub-4 (height jump 1000, round 1000)"
                .to_owned(),
            "no longer: spiffe://example.org/sentry/a may have key cosmoshub sign prevote on theta-testnet-001 (height \
             jump 1000, round 1000)"
                .to_owned(),
            "spiffe://example.org/sentry/c with key dydx on dydx-mainnet-1: no longer proposal, precommit, extension \
             [line 10]"
                .to_owned(),
            "key osmosis is frozen, and signs nothing [line 18]".to_owned(),
        ]
    );
    let back = diff(&new, &old);
    assert!(
        back.more
            .contains(&"key osmosis is no longer frozen".to_owned())
    );
    assert!(
        back.more
            .contains(&format!("{hub}: max_height 900 is lifted [line 3]"))
    );
    let role = "no longer, save who is named: spiffe://example.org/sentry/* may";
    assert!(
        back.less.iter().any(|it| it.starts_with(role)),
        "{:?}",
        back.less
    );
    let dydx = "spiffe://example.org/sentry/c with key dydx on dydx-mainnet-1";
    let kinds = format!("{dydx}: also proposal, precommit, extension [line 15]");
    assert!(
        back.more.contains(&kinds),
        "c was of the role, and is named"
    );
}

#[test]
fn a_role_that_is_named_one_by_one_allows_no_more_to_them() {
    let named = policy(DOCUMENT);
    let role = policy(&DOCUMENT.replace("sentry/c\"", "sentry/*\""));
    let narrower = diff(&role, &named);
    assert!(narrower.more.is_empty(), "{:?}", narrower.more);
    let wider = diff(&named, &role);
    assert_eq!((wider.more.len(), wider.less.len()), (1, 0));
    let less_of_each = DOCUMENT
        .replace("sentry/c\"", "sentry/*\"")
        .replace(", \"precommit\", \"extension\"", "");
    let falls = diff(&named, &policy(&less_of_each)).less;
    let c = "spiffe://example.org/sentry/c with key dydx on dydx-mainnet-1: ";
    assert!(
        falls
            .iter()
            .any(|line| line.starts_with(c) && line.contains("precommit, extension")),
        "{falls:?}"
    );
    assert!(diff(&named, &named).is_empty());
}

#[test]
fn an_explanation_names_the_line_that_decides() {
    let text = format!("{DOCUMENT}\n[[freeze]]\nkey = \"dydx\"\n");
    let policy = policy(&text);
    let explained = |who: &str, with: &str, kind, chain: &str| {
        let message = message(kind, chain, 0, 0);
        explain(&policy, &caller(who), &key(with), &message, seconds(0)).to_string()
    };
    let permitted = explained("a", "cosmoshub", Kind::Prevote, "cosmoshub-4");
    assert!(
        permitted
            .starts_with("permitted, by the grant that begins at line 3, where\n- the key's mark"),
        "{permitted}"
    );
    let kind = explained("a", "cosmoshub", Kind::Extension, "cosmoshub-4");
    assert!(
        kind.starts_with("denied, by the grant that begins at line 3: "),
        "{kind}"
    );
    let frozen = explained("c", "dydx", Kind::Prevote, "dydx-mainnet-1");
    assert!(
        frozen.starts_with("denied, by the freeze that begins at line 24: "),
        "{frozen}"
    );
    let stranger = explained("d", "dydx", Kind::Prevote, "dydx-mainnet-1");
    assert!(
        stranger.starts_with("denied, since no grant speaks for it: "),
        "{stranger}"
    );
}
