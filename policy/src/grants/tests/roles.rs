//! Grants to a role, and what no grant names.

use proptest::prelude::*;

use super::*;

const ROLE: &str = r#"
[[grant]]
callers = ["spiffe://example.org/sentry/*"]
key = "k"
chain_id = "c"
kinds = ["prevote"]

[[grant]]
callers = ["spiffe://example.org/sentry/a"]
key = "k"
chain_id = "d"
kinds = ["precommit"]
"#;

#[test]
fn a_grant_to_a_role_is_for_every_caller_of_it_in_its_trust_domain_and_for_nobody_else() {
    let policy = Policy::parse(ROLE).unwrap();
    for (uri, chain, kind, allowed) in [
        ("spiffe://example.org/sentry/a", "c", Kind::Prevote, true),
        ("spiffe://example.org/sentry/zz", "c", Kind::Prevote, true),
        ("spiffe://example.org/sentry/a", "d", Kind::Precommit, true),
        (
            "spiffe://example.org/sentry/zz",
            "d",
            Kind::Precommit,
            false,
        ),
        ("spiffe://example.com/sentry/a", "c", Kind::Prevote, false),
        ("spiffe://example.org/operator/a", "c", Kind::Prevote, false),
        ("spiffe://example.org/auditor/a", "c", Kind::Prevote, false),
        ("spiffe://example.org/signer/a", "c", Kind::Prevote, false),
    ] {
        let caller: Caller = uri.parse().unwrap();
        let got = policy.permit(&caller, &key("k"), &message(kind, chain, 0, 0), seconds(0));
        assert_eq!(got.is_ok(), allowed, "{uri} {chain} {kind}");
    }
    let a = caller("a");
    assert_eq!(policy.grants_of(&a).count(), 2);
    assert_eq!(policy.grants_with(&a, &key("k")).unwrap().count(), 2);
    assert_eq!(policy.grants_of(&caller("zz")).count(), 1);
}

#[test]
fn a_caller_is_not_granted_one_chain_both_by_name_and_by_its_role() {
    let twice = ROLE.replace("\"d\"", "\"c\"");
    let error = Policy::parse(&twice).unwrap_err().to_string();
    assert!(
        error.contains("lines 2 and 8") && error.contains("sentry/a"),
        "{error}"
    );
}

#[test]
fn only_callers_of_the_role_sentry_are_granted_votes() {
    for role in ["operator", "auditor", "signer"] {
        let document = ROLE.replace("/sentry/*", &format!("/{role}/*"));
        let error = Policy::parse(&document).unwrap_err().to_string();
        assert!(error.contains("only callers of the role sentry"), "{error}");
    }
}

#[test]
fn a_document_says_all_of_its_header_or_nothing_of_it() {
    let header = "kind = \"policy\"\ndeployment = \"000102030405060708090a0b0c0d0e0f\"\nversion = 3\n\
                  expires = 2026-12-26T12:00:00Z\n";
    let policy = Policy::parse(&format!("{header}{ROLE}")).unwrap();
    let read = policy.header().unwrap();
    assert_eq!((read.version(), read.to_text()), (3, header.to_owned()));
    for line in header.lines() {
        let text = header.replace(line, "");
        assert!(
            matches!(Policy::parse(&text), Err(Error::Header(_))),
            "{line}"
        );
    }
    for (from, to) in [
        ("\"policy\"", "\"set-officers\""),
        ("0e0f", "0E0F"),
        ("0e0f", "0e"),
        ("12:00:00Z", "12:00:00+01:00"),
        ("2026-12-26T12:00:00Z", "2026-12-26"),
    ] {
        let text = header.replace(from, to);
        assert!(
            matches!(Policy::parse(&text), Err(Error::Header(_))),
            "{to}"
        );
    }
    for bad in ["version = 0", "version = -1", "version = \"3\""] {
        let text = header.replace("version = 3", bad);
        assert!(
            matches!(Policy::parse(&text), Err(Error::Document(_))),
            "{bad}"
        );
    }
}

proptest! {
    /// Done-when 5: whatever a document says, what it permits is named by one of its grants.
    #[test]
    fn no_document_and_no_request_panics_or_is_allowed_what_no_grant_names(
        pieces in vec((0..DOCUMENT.len(), 0..60_usize, "[ -~\n]{0,12}"), 0..6),
        who in "(spiffe://(example.org|d)/(sentry|operator)/[a-c*]{1,2})|[ -~]{0,20}",
        with in "cosmoshub|dydx|k",
        chain in "cosmoshub-4|dydx-mainnet-1|theta-testnet-001|c",
        kind in proptest::sample::select(Kind::ALL.to_vec()),
        (round, at) in (0..i32::MAX, -9_000_000_000_i64..9_000_000_000),
    ) {
        let mut text = format!("{DOCUMENT}{}", ROLE.replace("\"k\"", "\"k2\""));
        for (at, cut, put) in pieces {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &put);
            }
        }
        let (Ok(policy), Ok(caller)) = (Policy::parse(&text), who.parse::<Caller>()) else {
            return Ok(());
        };
        let chain_id = ChainId::new(&chain).unwrap();
        let message = message(kind, &chain, round, at);
        if policy.permit(&caller, &key(&with), &message, seconds(0)).is_ok() {
            let named = policy.grants().any(|grant| {
                grant.callers().iter().any(|grantee| grantee.is(&caller))
                    && grant.key().as_str() == with
                    && *grant.chain_id() == chain_id
                    && message.kinds().iter().all(|kind| grant.kinds().contains(kind))
            });
            prop_assert!(named);
        }
        let _ = explain(&policy, &caller, &key(&with), &message, seconds(0)).to_string();
    }
}
