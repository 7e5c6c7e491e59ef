//! Payloads: granted to operators, for one purpose, with a key that no grant names.

use super::*;
use crate::grants::{Hash, diff};

const RAW: &str = r#"
[[raw]]
callers = ["spiffe://example.org/operator/release", "spiffe://example.com/operator/*"]
key = "release"
purpose = "release signing"
hash = "sha512"
"#;

#[test]
fn a_payload_is_permitted_to_whom_the_document_names_for_the_key_and_purpose_it_names() {
    let policy = Policy::parse(RAW).unwrap();
    for (uri, with, purpose, allowed) in [
        (
            "spiffe://example.org/operator/release",
            "release",
            "release signing",
            true,
        ),
        (
            "spiffe://example.com/operator/x",
            "release",
            "release signing",
            true,
        ),
        (
            "spiffe://example.org/operator/x",
            "release",
            "release signing",
            false,
        ),
        (
            "spiffe://example.org/sentry/release",
            "release",
            "release signing",
            false,
        ),
        (
            "spiffe://example.org/operator/release",
            "other",
            "release signing",
            false,
        ),
        (
            "spiffe://example.org/operator/release",
            "release",
            "Release signing",
            false,
        ),
        (
            "spiffe://example.org/operator/release",
            "release",
            "",
            false,
        ),
    ] {
        let caller: Caller = uri.parse().unwrap();
        let permit = policy.permit_raw(&caller, &key(with), purpose);
        assert_eq!(permit.is_ok(), allowed, "{uri} {with} {purpose}");
        assert!(permit.is_err() || permit.is_ok_and(|permit| permit.hash() == Hash::Sha512));
    }
    let frozen = Policy::parse(&format!("{RAW}[[freeze]]\nkey = \"release\"\n")).unwrap();
    let caller: Caller = "spiffe://example.com/operator/x".parse().unwrap();
    let denied = frozen.permit_raw(&caller, &key("release"), "release signing");
    assert!(matches!(denied, Err(Denial::Frozen { line: 7, .. })));
    // A document without it permits none.
    let none = Policy::parse(DOCUMENT).unwrap();
    assert!(none.permit_raw(&caller, &key("cosmoshub"), "").is_err());
}

#[test]
fn a_key_is_named_for_payloads_once_and_for_no_chain() {
    let twice = format!("{RAW}{RAW}");
    assert!(matches!(
        Policy::parse(&twice),
        Err(Error::RawTwice {
            first_line: 2,
            line: 8,
            ..
        })
    ));
    let both = format!("{DOCUMENT}{}", RAW.replace("\"release\"", "\"dydx\""));
    assert!(matches!(
        Policy::parse(&both),
        Err(Error::TwoUses {
            line: 15,
            raw_line: 24,
            ..
        })
    ));
    for (from, to) in [
        ("/operator/", "/sentry/"),
        ("sha512", "sha1"),
        ("sha512", "none"),
        ("\"release signing\"", "\"\""),
        ("\"release signing\"", "\"two\\nlines\""),
        ("hash =", "digest ="),
    ] {
        let text = RAW.replace(from, to);
        assert!(
            matches!(Policy::parse(&text), Err(Error::Document(_))),
            "{to}"
        );
    }
}

#[test]
fn a_difference_names_payloads_that_are_new_other_or_gone() {
    let (without, with) = (Policy::default(), Policy::parse(RAW).unwrap());
    assert_eq!(diff(&without, &with).more.len(), 1);
    assert_eq!(diff(&with, &without).less.len(), 1);
    let other = Policy::parse(&RAW.replace("sha512", "sha256")).unwrap();
    let difference = diff(&with, &other);
    assert!(difference.more[0].contains("for \"release signing\", hashed with sha256 [line 2]"));
    assert_eq!(difference.less.len(), 1);
    assert!(diff(&with, &with).is_empty());
}
