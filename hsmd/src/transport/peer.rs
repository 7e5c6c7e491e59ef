//! The caller that a verified client certificate names, and for how long.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hsm_policy::identity::{Caller, Role, TrustDomain};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use super::Revoked;

/// Why a certificate, though our CA issued it, makes nobody a caller. The caller's or the CA's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It names no caller, or more than one, or one of another trust domain.
    #[error(
        "the client certificate names no caller: {why}; it needs exactly one URI SAN of the form \
         spiffe://<trust domain>/<role>/<name>"
    )]
    Unrecognised {
        /// What was found instead.
        why: String,
    },
    /// Its validity ended, perhaps since the connection was opened.
    #[error("the client certificate expired at {}: renew it and connect again", Utc(*not_after))]
    Expired {
        /// When it ended.
        not_after: SystemTime,
    },
    /// Its validity has not begun.
    #[error("the client certificate is not valid before {}: compare the clocks", Utc(*not_before))]
    NotYetValid {
        /// When it begins.
        not_before: SystemTime,
    },
    /// It is a granting certificate.
    #[error(
        "{caller} is a granting certificate, with which a node fetches its others and does nothing else: connect with \
         the one for its role"
    )]
    Granting {
        /// Whose it is.
        caller: Caller,
    },
    /// It was issued before the moment from which certificates of its node, its role or all count.
    #[error("the client certificate of {caller} was revoked: the node has to be admitted again")]
    Revoked {
        /// Whose it is.
        caller: Caller,
    },
}

/// The other end of a connection, as its verified certificate describes it. Clones share it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Description>);

#[derive(Debug)]
struct Description {
    address: SocketAddr,
    /// SHA-256 of the certificate (DER).
    fingerprint: [u8; 32],
    identity: Result<Identity, IdentityError>,
    revoked: Revoked,
}

#[derive(Debug)]
struct Identity {
    caller: Caller,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Peer {
    /// Reads a leaf certificate (DER) whose chain has been verified. One that names no caller of
    /// `trust_domain` makes a peer all the same, which every request is then told.
    #[must_use]
    pub fn new(address: SocketAddr, leaf: &[u8], trust_domain: &TrustDomain) -> Self {
        Self::under(address, leaf, trust_domain, Revoked::default())
    }

    /// The same where certificates may be revoked.
    #[must_use]
    pub fn under(
        address: SocketAddr,
        leaf: &[u8],
        trust_domain: &TrustDomain,
        revoked: Revoked,
    ) -> Self {
        let identity =
            identity(leaf, trust_domain).map_err(|why| IdentityError::Unrecognised { why });
        Self(Arc::new(Description {
            address,
            fingerprint: Sha256::digest(leaf).into(),
            identity,
            revoked,
        }))
    }

    /// Where the connection came from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The caller, if the certificate is valid at `now`, from its first to its last second, both
    /// included (RFC 5280 section 4.1.2.5), and is not revoked.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn caller_at(&self, now: SystemTime) -> Result<&Caller, IdentityError> {
        let identity = self.0.identity.as_ref().map_err(Clone::clone)?;
        if now < identity.not_before {
            return Err(IdentityError::NotYetValid {
                not_before: identity.not_before,
            });
        }
        if now >= identity.not_after + Duration::from_secs(1) {
            return Err(IdentityError::Expired {
                not_after: identity.not_after,
            });
        }
        let caller = &identity.caller;
        if caller.role() == Role::Grant {
            let caller = caller.clone();
            return Err(IdentityError::Granting { caller });
        }
        let begins = identity.not_before.duration_since(UNIX_EPOCH);
        let begins = begins.unwrap_or_default().as_secs();
        if self.0.revoked.revokes(caller, begins) {
            let caller = caller.clone();
            return Err(IdentityError::Revoked { caller });
        }
        Ok(caller)
    }

    /// The caller that the certificate names, valid or not; none if it names none.
    pub(super) fn named(&self) -> Option<&Caller> {
        self.0
            .identity
            .as_ref()
            .ok()
            .map(|identity| &identity.caller)
    }

    /// For logs and the journal: the caller's URI, whether it is valid or not, and the certificate's
    /// fingerprint where it names none.
    #[must_use]
    pub fn caller_name(&self) -> String {
        match self.named() {
            Some(caller) => caller.to_string(),
            None => format!("certificate sha256:{}", hex::encode(self.0.fingerprint)),
        }
    }
}

fn identity(leaf: &[u8], trust_domain: &TrustDomain) -> Result<Identity, String> {
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(leaf).map_err(|_| "it cannot be parsed".to_owned())?;
    if !rest.is_empty() {
        return Err("there are bytes after its end".to_owned());
    }
    let caller: Caller = only_uri(&certificate)?
        .parse()
        .map_err(|error| format!("{error}"))?;
    if caller.trust_domain() != trust_domain {
        return Err(format!(
            "{caller} does not lie in the trust domain {trust_domain}"
        ));
    }
    let validity = certificate.validity();
    Ok(Identity {
        caller,
        not_before: system_time(validity.not_before)?,
        not_after: system_time(validity.not_after)?,
    })
}

fn only_uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its subject alternative names are malformed ({error})"))?;
    let names = names.map(|extension| extension.value.general_names.as_slice());
    let mut uris = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (Some(_), more) => Err(format!("it has {} URI SANs", more + 1)),
        (None, _) => Err("it has no URI SAN".to_owned()),
    }
}

pub(super) fn system_time(time: ASN1Time) -> Result<SystemTime, String> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    };
    time.ok_or_else(|| "its validity is out of range".to_owned())
}

/// A time as people read it in a message.
pub(super) struct Utc(pub(super) SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self
            .0
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let time = i64::try_from(seconds)
            .ok()
            .and_then(|s| ASN1Time::from_timestamp(s).ok());
        match time.and_then(|time| time.to_rfc2822().ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{seconds} s after 1970"),
        }
    }
}
