//! Who asks: the one URI in a verified client certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use crate::quoted;

/// Why a URI names no caller. The fault is the certificate's issuer's, or the document's author's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri} names no caller: {rule}")]
pub struct Error {
    /// The URI, quoted, escaped and cut.
    pub uri: String,
    /// What is accepted.
    pub rule: &'static str,
}

/// Whoever holds the certificate: exactly `spiffe://<trust domain>/<role>/<name>`, at most 2,048 bytes
/// (SPIFFE-ID §2), with no other form for the same caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Caller {
    trust_domain: TrustDomain,
    role: Role,
    name: Arc<str>,
}

impl Caller {
    const MAX_BYTES: usize = 2048;

    /// Whose certificates these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What it may call.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name within role and trust domain.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Caller {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        let refuse = |rule| Error {
            uri: quoted(uri),
            rule,
        };
        if uri.len() > Self::MAX_BYTES {
            return Err(refuse("it is longer than 2048 bytes"));
        }
        let path = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| refuse("it must begin with \"spiffe://\", in lower case"))?;
        let mut segments = path.split('/');
        let (Some(trust_domain), Some(role), Some(name), None) = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) else {
            return Err(refuse(
                "it must be spiffe://<trust domain>/<role>/<name> and no more",
            ));
        };
        let trust_domain =
            TrustDomain::checked(trust_domain).ok_or_else(|| refuse(TrustDomain::RULE))?;
        let role = Role::ALL
            .into_iter()
            .find(|known| known.name() == role)
            .ok_or_else(|| refuse("the role must be sentry, operator, auditor, signer or grant"))?;
        if !is_name(name) {
            return Err(refuse(
                "the name must be of a-z A-Z 0-9 . _ - and not only dots",
            ));
        }
        Ok(Caller {
            trust_domain,
            role,
            name: name.into(),
        })
    }
}

impl TryFrom<String> for Caller {
    type Error = Error;

    fn try_from(uri: String) -> Result<Self, Error> {
        uri.parse()
    }
}

/// The URI again.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/{}/{}",
            self.trust_domain, self.role, self.name
        )
    }
}

/// What a caller is, and so which calls it may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Beside a validator's node: has votes and proposals signed.
    Sentry,
    /// Administers signers.
    Operator,
    /// Reads the journal.
    Auditor,
    /// hsmd itself.
    Signer,
    /// A node that has joined: it fetches its certificates with this one, and nothing else.
    Grant,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Sentry,
        Role::Operator,
        Role::Auditor,
        Role::Signer,
        Role::Grant,
    ];

    /// As it stands in the URI, such as "sentry".
    pub fn name(self) -> &'static str {
        match self {
            Role::Sentry => "sentry",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Signer => "signer",
            Role::Grant => "grant",
        }
    }
}

/// The reverse of [`Role::name`]. The error is a sentence for people.
impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Role::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| {
            let name = quoted(name);
            format!("{name} is no role: write sentry, operator, auditor or signer")
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose certificates these are: 1 to 255 bytes of `a-z 0-9 . _ -` (SPIFFE-ID §2.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    const RULE: &'static str = "the trust domain must be 1 to 255 bytes of a-z 0-9 . _ -";

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(name: &str) -> Option<Self> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        ((1..=255).contains(&name.len()) && name.chars().all(allowed))
            .then(|| TrustDomain(name.into()))
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::checked(name).ok_or_else(|| Error {
            uri: quoted(name),
            rule: Self::RULE,
        })
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this can be a caller's name: a path segment of SPIFFE-ID §2.2, which "." and ".." are not.
pub fn is_name(segment: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    segment.chars().all(allowed) && segment.chars().any(|c| c != '.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_caller_is_its_trust_domain_role_and_name() {
        let caller: Caller = "spiffe://example.org/sentry/Val-1.a_b".parse().unwrap();
        assert_eq!(caller.trust_domain().as_str(), "example.org");
        assert_eq!(caller.role(), Role::Sentry);
        assert_eq!(caller.name(), "Val-1.a_b");
        for role in Role::ALL {
            let uri = format!("spiffe://d/{role}/n");
            let caller: Caller = uri.parse().unwrap();
            assert_eq!((caller.role(), caller.to_string()), (role, uri));
        }
    }

    #[test]
    fn every_other_form_of_a_uri_is_refused() {
        let long_domain = format!("spiffe://{}/sentry/a", "d".repeat(256));
        for uri in [
            "",
            "spiffe://",
            "https://example.org/sentry/a",
            "SPIFFE://example.org/sentry/a",
            "spiffe:/example.org/sentry/a",
            "spiffe:///sentry/a",
            "spiffe://Example.org/sentry/a",
            "spiffe://example.org:443/sentry/a",
            "spiffe://user@example.org/sentry/a",
            "spiffe://exämple.org/sentry/a",
            "spiffe://example.org",
            "spiffe://example.org/sentry",
            "spiffe://example.org/sentry/",
            "spiffe://example.org//a",
            "spiffe://example.org/Sentry/a",
            "spiffe://example.org/root/a",
            "spiffe://example.org/sentry/a/",
            "spiffe://example.org/sentry/a/b",
            "spiffe://example.org/sentry//a",
            "spiffe://example.org/sentry/.",
            "spiffe://example.org/sentry/..",
            "spiffe://example.org/sentry/a%20b",
            "spiffe://example.org/sentry/a?b=c",
            "spiffe://example.org/sentry/a#b",
            "spiffe://example.org/sentry/a b",
            "spiffe://example.org/sentry/a\0",
            " spiffe://example.org/sentry/a",
            "spiffe://example.org/sentry/a\n",
            &long_domain,
        ] {
            assert!(uri.parse::<Caller>().is_err(), "{uri:?}");
        }
    }

    #[test]
    fn a_uri_is_at_most_2048_bytes_long() {
        let of_length = |length: usize| {
            let start = "spiffe://example.org/sentry/";
            format!("{start}{}", "a".repeat(length - start.len()))
        };
        assert!(of_length(2048).parse::<Caller>().is_ok());
        let error = of_length(2049).parse::<Caller>().unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }

    proptest! {
        #[test]
        fn a_uri_that_is_accepted_is_given_back_exactly(
            uri in prop_oneof![
                any::<String>(),
                "spiffe://[a-zA-Z0-9.:@%_-]{0,5}/(sentry|signer|x)/[a-zA-Z0-9./?%_-]{0,5}",
            ]
        ) {
            if let Ok(caller) = uri.parse::<Caller>() {
                prop_assert_eq!(caller.to_string(), uri);
            }
        }
    }
}
