//! To whom something is granted.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::identity::{Caller, Error, Role, TrustDomain};
use crate::quoted;

/// One caller by name, or every caller of a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Grantee {
    /// `spiffe://<trust domain>/<role>/<name>`.
    Caller(Caller),
    /// `spiffe://<trust domain>/<role>/*`: whoever has a certificate of this role.
    Role(TrustDomain, Role),
}

impl Grantee {
    /// The role of all that it stands for.
    pub fn role(&self) -> Role {
        match self {
            Grantee::Caller(caller) => caller.role(),
            Grantee::Role(_, role) => *role,
        }
    }

    /// Whether it stands for this caller.
    pub fn is(&self, caller: &Caller) -> bool {
        match self {
            Grantee::Caller(named) => named == caller,
            Grantee::Role(domain, role) => {
                domain == caller.trust_domain() && *role == caller.role()
            }
        }
    }
}

impl FromStr for Grantee {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        let Some(role) = uri.strip_suffix("/*") else {
            return uri.parse().map(Grantee::Caller);
        };
        // A name is all that is missing from a caller's URI.
        let caller: Caller = format!("{role}/any").parse().map_err(|error| Error {
            uri: quoted(uri),
            ..error
        })?;
        Ok(Grantee::Role(caller.trust_domain().clone(), caller.role()))
    }
}

impl TryFrom<String> for Grantee {
    type Error = Error;

    fn try_from(uri: String) -> Result<Self, Error> {
        uri.parse()
    }
}

/// The URI again.
impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grantee::Caller(caller) => caller.fmt(f),
            Grantee::Role(domain, role) => write!(f, "spiffe://{domain}/{role}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grantee_is_a_caller_or_a_role_and_reads_back_as_it_was_written() {
        let caller: Caller = "spiffe://example.org/sentry/a".parse().unwrap();
        for (text, stands) in [
            ("spiffe://example.org/sentry/a", true),
            ("spiffe://example.org/sentry/b", false),
            ("spiffe://example.org/sentry/*", true),
            ("spiffe://example.com/sentry/*", false),
            ("spiffe://example.org/operator/*", false),
        ] {
            let grantee: Grantee = text.parse().unwrap();
            assert_eq!(grantee.to_string(), text);
            assert_eq!(grantee.is(&caller), stands, "{text}");
        }
        for bad in [
            "*",
            "/*",
            "spiffe://example.org/*",
            "spiffe://example.org/*/*",
            "spiffe://*/sentry/*",
            "spiffe://example.org/sentry/a*",
            "spiffe://example.org/sentry/a/*",
            "spiffe://example.org/sentry/**",
        ] {
            let error = bad.parse::<Grantee>().unwrap_err().to_string();
            assert!(error.starts_with(&quoted(bad)), "{error}");
        }
    }
}
