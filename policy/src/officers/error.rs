//! Why officers, or what they signed, are refused.

use super::{MAX_DOCUMENT, MAX_OFFICERS};

/// Why a list of officers, a document or its signatures are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An officer that cannot be one.
    #[error("officer {name}: {reason}")]
    Officer {
        /// The name, or what stands in its place, quoted.
        name: String,
        /// What is wrong, and what is accepted.
        reason: String,
    },
    /// No officers, or too many.
    #[error("{0} officers: there must be 1 to {MAX_OFFICERS}")]
    Count(usize),
    /// More signatures demanded than there are officers, or none.
    #[error("a threshold of {threshold} among {officers} officers: it must be 1 to {officers}")]
    Threshold {
        /// How many were to be demanded.
        threshold: usize,
        /// How many officers there are.
        officers: usize,
    },
    /// The document is longer than is read.
    #[error("the document is {0} bytes long, and at most {MAX_DOCUMENT} are read")]
    TooLong(usize),
    /// No TOML, an unknown or missing field, or a value that its field does not accept.
    #[error("the document is refused: {0}")]
    Document(String),
    /// A document about something else.
    #[error("the document is a {found}, and a {expected} is needed here")]
    Kind {
        /// What its field `kind` says, quoted.
        found: String,
        /// What was needed.
        expected: &'static str,
    },
    /// A document for another deployment.
    #[error("the document is for deployment {found}, and this is {ours}: request one here")]
    Deployment {
        /// What it names, quoted.
        found: String,
        /// Ours, in hex.
        ours: String,
    },
    /// Too late.
    #[error("the document expired at {expires}: request a new one, and have it signed")]
    Expired {
        /// When.
        expires: String,
    },
    /// It would stay good for longer than nonces are meant to be kept.
    #[error("the document expires at {expires}: at most {days} days ahead are accepted")]
    TooFarAhead {
        /// When.
        expires: String,
        /// How many days.
        days: i64,
    },
    /// A document that was used before.
    #[error(
        "the document with nonce {nonce} was used before: request a new one, and have it signed"
    )]
    Replayed {
        /// In hex.
        nonce: String,
    },
    /// A signature that cannot be read.
    #[error(
        "signature {number} is none that `ssh-keygen -Y sign` makes with ssh-ed25519, ecdsa-sha2-nistp256 or \
         their sk- forms: {reason}"
    )]
    Unreadable {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature made for something else.
    #[error(
        "signature {number} was made with -n {found}, and this document is signed with -n {expected}"
    )]
    Namespace {
        /// Which one, from 1.
        number: usize,
        /// The namespace in it, quoted.
        found: String,
        /// The one that is needed.
        expected: String,
    },
    /// A signature of somebody else.
    #[error("signature {number} was made by {fingerprint}, which is no officer's key")]
    Stranger {
        /// Which one, from 1.
        number: usize,
        /// The key's, as `ssh-keygen -l` prints it.
        fingerprint: String,
    },
    /// A signature that does not verify.
    #[error(
        "signature {number}, by {officer}, does not verify: the document that was signed is not this one"
    )]
    Forged {
        /// Which one, from 1.
        number: usize,
        /// Whose key it names.
        officer: String,
    },
    /// A security key that was not touched.
    #[error(
        "signature {number}, by {officer}: the security key was not touched; sign again, and touch it"
    )]
    Untouched {
        /// Which one, from 1.
        number: usize,
        /// Whose key.
        officer: String,
    },
    /// Two signatures of one officer.
    #[error("{officer} signed twice: {threshold} different officers are needed")]
    Twice {
        /// Who.
        officer: String,
        /// How many are needed.
        threshold: usize,
    },
    /// Not enough signatures.
    #[error("signed by {signed} of {officers} officers, and {threshold} are needed")]
    TooFew {
        /// How many signed.
        signed: usize,
        /// How many there are.
        officers: usize,
        /// How many are needed.
        threshold: usize,
    },
    /// There are more signatures than officers.
    #[error("{signatures} signatures, and there are {officers} officers")]
    TooMany {
        /// How many came.
        signatures: usize,
        /// How many officers there are.
        officers: usize,
    },
}

impl Error {
    /// The variant as one word of capitals, for the journal.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Officer { .. } | Error::Count(_) | Error::Threshold { .. } => {
                "OFFICERS_MALFORMED"
            }
            Error::TooLong(_) => "DOCUMENT_TOO_LONG",
            Error::Document(_) => "DOCUMENT_MALFORMED",
            Error::Kind { .. } => "DOCUMENT_OF_ANOTHER_KIND",
            Error::Deployment { .. } => "OTHER_DEPLOYMENT",
            Error::Expired { .. } => "DOCUMENT_EXPIRED",
            Error::TooFarAhead { .. } => "EXPIRY_TOO_FAR_AHEAD",
            Error::Replayed { .. } => "DOCUMENT_REPLAYED",
            Error::Unreadable { .. } => "SIGNATURE_UNREADABLE",
            Error::Namespace { .. } => "OTHER_NAMESPACE",
            Error::Stranger { .. } => "NOT_AN_OFFICER",
            Error::Forged { .. } => "SIGNATURE_OF_ANOTHER_DOCUMENT",
            Error::Untouched { .. } => "SECURITY_KEY_UNTOUCHED",
            Error::Twice { .. } => "OFFICER_TWICE",
            Error::TooFew { .. } => "TOO_FEW_OFFICERS",
            Error::TooMany { .. } => "TOO_MANY_SIGNATURES",
        }
    }
}
