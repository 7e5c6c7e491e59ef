//! What can go wrong with a device, and whose turn it is then.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Algorithm, Backend, Identity, KeyLocator, PublicKey};

/// A device did not do what it was asked. Never holds a secret; every text says what failed and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The device cannot be reached, or not in time. Heals by itself.
    /// Nothing answers where the device should be.
    #[error(
        "cannot reach {device}: {cause}; check that it is plugged in and that its connector or module runs"
    )]
    Unreachable {
        /// Address, serial number or token, as configured.
        device: String,
        /// What the operating system or the library said.
        cause: String,
    },
    /// All sessions of a YubiHSM are in use (it has 16).
    #[error(
        "{device} has no free session: another program holds them; unused ones expire after 30 s"
    )]
    SessionsFull {
        /// Address or serial number, as configured.
        device: String,
    },
    /// The session with the device is gone. The worker opens another.
    #[error("the session with the device was lost: {0}; it is opened again")]
    SessionLost(String),
    /// The request's deadline passed first.
    #[error("no answer from device {device:?} within the deadline; the request was given up")]
    Timeout {
        /// The worker's name.
        device: String,
    },
    /// A call into the device takes longer than any should.
    #[error(
        "device {device:?} has not answered one call for {after:?}; if this lasts, replug it or restart its connector"
    )]
    Hung {
        /// The worker's name.
        device: String,
        /// How long a call may take ([`crate::WorkerOptions::hang`]).
        after: Duration,
    },
    /// More requests wait than the queue holds.
    #[error("device {device:?} is overloaded: {waiting} requests wait already; try again later")]
    Overloaded {
        /// The worker's name.
        device: String,
        /// The length of the queue.
        waiting: usize,
    },
    /// The device's audit log is full, and it was told not to go on then. hsmd frees its entries.
    #[error(
        "the audit log of {device} is full, and force audit is on: hsmd has to read it and free its entries; \
         give its authentication key the capability get-log-entries"
    )]
    AuditLogFull {
        /// Address or serial number, as configured.
        device: String,
    },
    /// The worker was told to stop.
    #[error("device {device:?} is shutting down")]
    Stopped {
        /// The worker's name.
        device: String,
    },

    // The device, its configuration or the key is not as it should be. Somebody has to act.
    /// No such key.
    #[error("no {0} on the device; list its objects and correct label or id")]
    KeyNotFound(KeyLocator),
    /// More than one key matches.
    #[error("{count} keys match: {locator}; name both label and id, or delete the surplus")]
    KeyAmbiguous {
        /// What was looked for.
        locator: KeyLocator,
        /// How many were found.
        count: usize,
    },
    /// The key exists, but is of another kind.
    #[error(
        "wrong algorithm: a {locator} was asked for, the device has {found}; correct the configuration"
    )]
    WrongAlgorithm {
        /// What was looked for.
        locator: KeyLocator,
        /// What the device has under that label or id.
        found: String,
    },
    /// The locator itself is unusable with this backend.
    #[error("cannot look for a {locator}: {cause}")]
    InvalidLocator {
        /// What was looked for.
        locator: KeyLocator,
        /// Why, and what would do.
        cause: String,
    },
    /// The device does not accept the PIN or password. A PIN is offered once, a password a few times.
    #[error(
        "{device} refused the secret in {}: {cause}; correct the file, or touch it to have it tried again",
        file.display()
    )]
    PinRejected {
        /// Address or token, as configured.
        device: String,
        /// The file that holds the PIN or password.
        file: PathBuf,
        /// What the device said.
        cause: String,
    },
    /// The file with the PIN or password cannot be used.
    #[error("cannot use the secret file {}: {cause}", file.display())]
    PinFile {
        /// The file, as configured.
        file: PathBuf,
        /// Why, and what would do.
        cause: String,
    },
    /// The PKCS#11 module cannot be loaded.
    #[error("cannot load the PKCS#11 module {}: {cause}; check the path and install the package", module.display())]
    Module {
        /// The module, as configured.
        module: PathBuf,
        /// What the loader said.
        cause: String,
    },
    /// No token, or more than one, fits the configuration.
    #[error("{wanted}: {cause}")]
    Token {
        /// The token, as configured.
        wanted: String,
        /// What is there instead.
        cause: String,
    },
    /// An emulator where hardware was configured, or the other way round.
    #[error("{0}")]
    Identity(String),
    /// Another device than the one that was pinned.
    #[error(
        "device {device:?} is another one than was pinned: expected {pinned}; found {shown}; put the pinned \
         device back, or give its replacement a [[device]] with a name of its own"
    )]
    Replaced {
        /// The worker's name.
        device: String,
        /// Who it has to be.
        pinned: Box<Identity>,
        /// Who it is.
        shown: Box<Identity>,
    },
    /// The device cannot sign a message of this length.
    #[error("a message of {length} bytes: {backend} signs at most {limit} with {algorithm}")]
    MessageTooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
        /// The backend that sets the limit.
        backend: Backend,
        /// The algorithm that sets the limit.
        algorithm: Algorithm,
    },
    /// The device understood and declined.
    #[error("the device refused to {operation}: {cause}")]
    Refused {
        /// What it was asked to do.
        operation: &'static str,
        /// What it said, and what would help.
        cause: String,
    },
    /// The bytes are no public key of the algorithm.
    #[error("not an {algorithm} public key: {bytes}")]
    InvalidPublicKey {
        /// The expected algorithm.
        algorithm: Algorithm,
        /// The bytes, in hexadecimal.
        bytes: String,
    },
    /// A signature that does not verify: the device is faulty or not the one it was.
    #[error("the signature does not verify against public key {key}; it was thrown away")]
    BadSignature {
        /// The key that should have made it.
        key: PublicKey,
    },
    /// The device or its library misbehaved.
    #[error("device fault: {0}; the session is opened again")]
    Fault(String),
}

impl Error {
    /// True where the same request may succeed later although nobody changed anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::SessionsFull { .. }
            | Self::SessionLost(_)
            | Self::Timeout { .. }
            | Self::Hung { .. }
            | Self::Overloaded { .. }
            | Self::AuditLogFull { .. }
            | Self::Stopped { .. }
            | Self::Fault(_) => true,
            Self::KeyNotFound(_)
            | Self::KeyAmbiguous { .. }
            | Self::WrongAlgorithm { .. }
            | Self::InvalidLocator { .. }
            | Self::PinRejected { .. }
            | Self::PinFile { .. }
            | Self::Module { .. }
            | Self::Token { .. }
            | Self::Identity(_)
            | Self::Replaced { .. }
            | Self::MessageTooLong { .. }
            | Self::Refused { .. }
            | Self::InvalidPublicKey { .. }
            | Self::BadSignature { .. } => false,
        }
    }

    /// A short constant name, for metrics and machine-readable output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::SessionsFull { .. } => "sessions_full",
            Self::SessionLost(_) => "session_lost",
            Self::Timeout { .. } => "timeout",
            Self::Hung { .. } => "hung",
            Self::Overloaded { .. } => "overloaded",
            Self::AuditLogFull { .. } => "audit_log_full",
            Self::Stopped { .. } => "stopped",
            Self::KeyNotFound(_) => "key_not_found",
            Self::KeyAmbiguous { .. } => "key_ambiguous",
            Self::WrongAlgorithm { .. } => "wrong_algorithm",
            Self::InvalidLocator { .. } => "invalid_locator",
            Self::PinRejected { .. } => "pin_rejected",
            Self::PinFile { .. } => "pin_file",
            Self::Module { .. } => "module",
            Self::Token { .. } => "token",
            Self::Identity(_) => "identity",
            Self::Replaced { .. } => "replaced",
            Self::MessageTooLong { .. } => "message_too_long",
            Self::Refused { .. } => "refused",
            Self::InvalidPublicKey { .. } => "invalid_public_key",
            Self::BadSignature { .. } => "bad_signature",
            Self::Fault(_) => "fault",
        }
    }

    /// True where the session must not be used again.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::SessionLost(_) | Self::Fault(_)
        )
    }
}
