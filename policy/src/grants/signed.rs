//! Whether a policy document may be loaded here and now.

use super::{Error, Header, Policy, namespace};
use crate::officers::{self, Officers};
use crate::quoted;

/// What a document has to fit.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// This deployment's id.
    pub deployment_id: &'a [u8],
    /// Our clock, in seconds since 1970-01-01T00:00:00Z.
    pub now: i64,
    /// The version of the policy that was loaded last; 0 where none was.
    pub loaded: u64,
}

/// Proof that enough officers signed a policy for this deployment, newer than the last. Only [`authorise`] makes
/// one.
#[derive(Debug)]
#[must_use]
pub struct Signed {
    policy: Policy,
    header: Header,
    signers: Vec<String>,
}

impl Signed {
    /// What the document says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Who signed.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy, to be put in force.
    pub fn into_policy(self) -> Policy {
        self.policy
    }
}

/// Why a policy is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The signatures, the deployment or the expiry.
    #[error(transparent)]
    Officers(#[from] officers::Error),
    /// The document itself.
    #[error(transparent)]
    Document(#[from] Error),
    /// A document that says neither deployment nor version.
    #[error(
        "the document is a draft: it names no deployment, version and expiry. `hsmd policy sign-request` adds them; \
         officers sign what it prints"
    )]
    Draft,
    /// A document that is no newer than what was loaded.
    #[error(
        "the document is version {version}, and version {loaded} was loaded already: versions only rise. Request \
         a newer one, and have it signed"
    )]
    Version {
        /// Of the document.
        version: u64,
        /// The last that was loaded.
        loaded: u64,
    },
}

impl Refused {
    /// The variant as one word of capitals, for the journal.
    pub fn reason(&self) -> &'static str {
        match self {
            Refused::Officers(error) => error.reason(),
            Refused::Document(Error::TooLong(_)) => "DOCUMENT_TOO_LONG",
            Refused::Document(_) => "DOCUMENT_MALFORMED",
            Refused::Draft => "POLICY_IS_A_DRAFT",
            Refused::Version { .. } => "POLICY_NOT_NEWER",
        }
    }
}

/// Takes in a policy document and the armored signatures over its bytes. Every signature has to be good. Nothing of
/// the document is read before its signatures are.
///
/// # Errors
///
/// See [`Refused`]; the document counts for nothing then.
pub fn authorise(
    officers: &Officers,
    document: &[u8],
    signatures: &[String],
    context: &Context<'_>,
) -> Result<Signed, Refused> {
    if document.len() > super::MAX_POLICY {
        return Err(Error::TooLong(document.len()).into());
    }
    let signers = officers.signers(&namespace(), document, signatures)?;
    let text = std::str::from_utf8(document)
        .map_err(|error| officers::Error::Document(error.to_string()))?;
    let policy = Policy::parse(text)?;
    let header = policy.header().ok_or(Refused::Draft)?.clone();
    let ours = officers::hex(context.deployment_id);
    if header.deployment() != ours {
        return Err(Refused::Officers(officers::Error::Deployment {
            found: quoted(header.deployment()),
            ours,
        }));
    }
    if header.expires_unix() < context.now {
        return Err(Refused::Officers(officers::Error::Expired {
            expires: header.expires().to_string(),
        }));
    }
    let (version, loaded) = (header.version(), context.loaded);
    if version <= loaded {
        return Err(Refused::Version { version, loaded });
    }
    Ok(Signed {
        policy,
        header,
        signers,
    })
}
