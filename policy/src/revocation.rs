//! Which certificates are revoked: all that were issued before a moment, to one node, to one role or to everyone.
//!
//! The document is small, since nobody is listed who was not revoked, and is signed by the keyserver. Its sequence
//! only rises, and each moment in it too, so that a later document never gives back what an earlier one took.
//!
//! ```toml
//! document = "revocations"
//! trust_domain = "example.org"
//! sequence = 7
//! all = 1764097200
//!
//! [roles]
//! sentry = 1764097300
//!
//! [nodes]
//! "sentry-a" = 1764097400
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::identity::{Caller, Role, TrustDomain, is_name};
use crate::quoted;

/// The longest document, in bytes: with its signature it fits into an entry of a journal.
pub const MAX_DOCUMENT: usize = 60_000;

/// What stands before the document in the bytes that are signed. No certificate begins so, and nothing else that the
/// same key signs.
pub const CONTEXT: &[u8] = b"hsm-enroll revocations v1\n";

/// Why a document is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not what its signer writes.
    #[error("no list of revocations: {0}")]
    Malformed(String),
    /// It is another deployment's.
    #[error("a list of revocations for the trust domain {found}, not {expected}")]
    TrustDomain {
        /// Whose it is.
        found: TrustDomain,
        /// Ours.
        expected: TrustDomain,
    },
    /// It is older than, or contradicts, what is in force.
    #[error(
        "a list of revocations with sequence {found}, but {in_force} is in force: a keyserver restored from a backup \
         shows such; let it revoke once more until its sequence is higher"
    )]
    Older {
        /// Its sequence.
        found: u64,
        /// The sequence in force.
        in_force: u64,
    },
    /// It would make certificates good again that were revoked.
    #[error("a list of revocations that gives back what was revoked: {0}")]
    Loosens(String),
}

/// Whom a revocation concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every certificate.
    All,
    /// Those of one role.
    Role(Role),
    /// Those of the node with this name, whatever its role.
    Node(String),
}

/// From when on certificates count, in seconds since 1970: what began to be valid before is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    trust_domain: TrustDomain,
    sequence: u64,
    all: u64,
    roles: BTreeMap<Role, u64>,
    nodes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    document: String,
    trust_domain: TrustDomain,
    sequence: u64,
    #[serde(default)]
    all: u64,
    #[serde(default)]
    roles: BTreeMap<String, u64>,
    #[serde(default)]
    nodes: BTreeMap<String, u64>,
}

impl Revocations {
    /// Nothing was revoked yet: sequence 0.
    pub fn none(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            sequence: 0,
            all: 0,
            roles: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Reads a document whose signature was verified.
    ///
    /// # Errors
    /// [`Error::Malformed`], with what is wrong.
    pub fn parse(document: &[u8]) -> Result<Self, Error> {
        let malformed = |fault: String| Error::Malformed(fault);
        if document.len() > MAX_DOCUMENT {
            return Err(malformed(format!("it has {} bytes", document.len())));
        }
        let text = std::str::from_utf8(document).map_err(|error| malformed(error.to_string()))?;
        let raw: Document = toml::from_str(text).map_err(|mut error| {
            error.set_input(None);
            malformed(error.to_string().trim().replace('\n', " "))
        })?;
        if raw.document != "revocations" {
            let found = quoted(&raw.document);
            return Err(malformed(format!("it says document = {found}")));
        }
        let mut roles = BTreeMap::new();
        for (role, moment) in raw.roles {
            roles.insert(role.parse().map_err(malformed)?, moment);
        }
        if let Some(name) = raw.nodes.keys().find(|name| !is_name(name)) {
            return Err(malformed(format!("{} names no node", quoted(name))));
        }
        Ok(Self {
            trust_domain: raw.trust_domain,
            sequence: raw.sequence,
            all: raw.all,
            roles,
            nodes: raw.nodes,
        })
    }

    /// The document, as it is signed after [`CONTEXT`].
    pub fn to_document(&self) -> String {
        let mut text = format!(
            "document = \"revocations\"\ntrust_domain = \"{}\"\nsequence = {}\nall = {}\n",
            self.trust_domain, self.sequence, self.all
        );
        // Names are of characters that need no escape, and writing to a string does not fail.
        text.push_str("\n[roles]\n");
        for (role, moment) in &self.roles {
            let _ = writeln!(text, "{role} = {moment}");
        }
        text.push_str("\n[nodes]\n");
        for (name, moment) in &self.nodes {
            let _ = writeln!(text, "\"{name}\" = {moment}");
        }
        text
    }

    /// What the keyserver signs and others verify.
    pub fn signed_bytes(document: &[u8]) -> Vec<u8> {
        [CONTEXT, document].concat()
    }

    /// Rises with each revocation.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whose certificates it speaks of.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// From when on the certificates of a node with this role and name count.
    pub fn not_before(&self, role: Role, name: &str) -> u64 {
        let of_role = self.roles.get(&role).copied().unwrap_or_default();
        let of_node = self.nodes.get(name).copied().unwrap_or_default();
        self.all.max(of_role).max(of_node)
    }

    /// The latest moment in it; 0 where nothing is revoked.
    pub fn latest(&self) -> u64 {
        let moments = self.roles.values().chain(self.nodes.values()).copied();
        moments.fold(self.all, u64::max)
    }

    /// Whether the caller's certificate, valid from `not_before` on, is revoked.
    pub fn revokes(&self, caller: &Caller, not_before: u64) -> bool {
        not_before < self.not_before(caller.role(), caller.name())
    }

    /// The next document: what was issued to `scope` before `moment` is revoked as well. What it covers already is
    /// left out of it.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the document becomes too long, which revoking a role, or everyone, shortens.
    pub fn and(&self, scope: &Scope, moment: u64) -> Result<Self, Error> {
        let mut next = self.clone();
        next.sequence = next.sequence.saturating_add(1);
        match scope {
            Scope::All => next.all = next.all.max(moment),
            Scope::Role(role) => raise(next.roles.entry(*role).or_default(), moment),
            Scope::Node(name) => raise(next.nodes.entry(name.clone()).or_default(), moment),
        }
        let all = next.all;
        next.roles.retain(|_, moment| *moment > all);
        next.nodes.retain(|_, moment| *moment > all);
        Self::parse(next.to_document().as_bytes())
    }

    /// Whether `next` may take the place of these.
    ///
    /// # Errors
    /// [`Error::TrustDomain`], [`Error::Older`], [`Error::Loosens`].
    pub fn gives_way_to(&self, next: &Self) -> Result<(), Error> {
        if next.trust_domain != self.trust_domain {
            return Err(Error::TrustDomain {
                found: next.trust_domain.clone(),
                expected: self.trust_domain.clone(),
            });
        }
        if next.sequence <= self.sequence {
            return Err(Error::Older {
                found: next.sequence,
                in_force: self.sequence,
            });
        }
        let loosens = |what: String| Err(Error::Loosens(what));
        if next.all < self.all {
            return loosens(format!("all from {} to {}", self.all, next.all));
        }
        for (role, moment) in &self.roles {
            let new = next.roles.get(role).copied().unwrap_or_default();
            if new.max(next.all) < *moment {
                return loosens(format!("role {role} from {moment} to {new}"));
            }
        }
        for (name, moment) in &self.nodes {
            let new = next.nodes.get(name).copied().unwrap_or_default();
            if new.max(next.all) < *moment {
                return loosens(format!("node {name} from {moment} to {new}"));
            }
        }
        Ok(())
    }
}

fn raise(moment: &mut u64, to: u64) {
    *moment = (*moment).max(to);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn none() -> Revocations {
        Revocations::none("example.org".parse().unwrap())
    }

    fn caller(role: &str, name: &str) -> Caller {
        format!("spiffe://example.org/{role}/{name}")
            .parse()
            .unwrap()
    }

    #[test]
    fn what_was_issued_before_the_moment_is_revoked_for_one_node_one_role_or_all() {
        for (scope, sentry_a, sentry_b, signer) in [
            (Scope::Node("a".to_owned()), true, false, false),
            (Scope::Role(Role::Sentry), true, true, false),
            (Scope::All, true, true, true),
        ] {
            let list = none().and(&scope, 100).unwrap();
            for (caller, revoked) in [
                (caller("sentry", "a"), sentry_a),
                (caller("sentry", "b"), sentry_b),
                (caller("signer", "c"), signer),
            ] {
                assert_eq!(list.revokes(&caller, 99), revoked, "{caller} {scope:?}");
                assert!(!list.revokes(&caller, 100), "{caller} {scope:?}");
            }
        }
    }

    #[test]
    fn a_list_gives_way_to_a_later_one_of_its_trust_domain_that_gives_nothing_back() {
        let first = none().and(&Scope::Node("a".to_owned()), 100).unwrap();
        let second = first.and(&Scope::Role(Role::Sentry), 200).unwrap();
        let third = second.and(&Scope::All, 300).unwrap();
        for (old, new) in [(&first, &second), (&second, &third), (&first, &third)] {
            old.gives_way_to(new).unwrap();
            let older = Error::Older {
                found: old.sequence,
                in_force: new.sequence,
            };
            assert_eq!(new.gives_way_to(old), Err(older));
        }
        assert!(matches!(
            first.gives_way_to(&first),
            Err(Error::Older { .. })
        ));
        let mut emptied = none();
        emptied.sequence = 9;
        assert!(matches!(
            first.gives_way_to(&emptied),
            Err(Error::Loosens(_))
        ));
        let mut elsewhere = second.clone();
        elsewhere.trust_domain = "example.com".parse().unwrap();
        let error = first.gives_way_to(&elsewhere).unwrap_err();
        assert!(matches!(error, Error::TrustDomain { .. }));
    }

    #[test]
    fn a_document_with_anything_unknown_in_it_is_refused() {
        let good = "document = \"revocations\"\ntrust_domain = \"d\"\nsequence = 1\n";
        Revocations::parse(good.as_bytes()).unwrap();
        for bad in [
            good.replace("revocations", "policy"),
            good.replace("sequence = 1", "sequence = -1"),
            format!("{good}none = 1\n"),
            format!("{good}[roles]\nroot = 1\n"),
            format!("{good}[nodes]\n\"a/b\" = 1\n"),
            format!("{good}[nodes]\n\"..\" = 1\n"),
            format!("{good}{}", "#".repeat(MAX_DOCUMENT)),
            String::new(),
        ] {
            let refused = Revocations::parse(bad.as_bytes());
            assert!(matches!(refused, Err(Error::Malformed(_))), "{bad}");
        }
        assert!(Revocations::parse(b"\xff").is_err());
    }

    fn scopes() -> impl Strategy<Value = Scope> {
        prop_oneof![
            Just(Scope::All),
            proptest::sample::select(Role::ALL.to_vec()).prop_map(Scope::Role),
            "[a-z0-9._-]{0,3}x".prop_map(Scope::Node),
        ]
    }

    proptest! {
        #[test]
        fn each_revocation_makes_a_document_that_is_read_back_and_gives_nothing_back(
            steps in proptest::collection::vec((scopes(), 0_u64..1000), 0..20)
        ) {
            let mut list = none();
            for (scope, moment) in steps {
                let next = list.and(&scope, moment).unwrap();
                list.gives_way_to(&next).unwrap();
                let read = Revocations::parse(next.to_document().as_bytes()).unwrap();
                prop_assert_eq!(&read, &next);
                list = next;
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Revocations::parse(&bytes);
        }
    }
}
