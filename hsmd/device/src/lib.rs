//! HSMs behind one narrow trait: YubiHSM2, PKCS#11 and the mock.
//!
//! A [`Device`] is a blocking session with one HSM. A [`Worker`] gives it a thread of its own, a bounded queue,
//! deadlines, and opens it again whenever it is lost, so that nothing above has to know how HSMs fail.
//! Nothing here decides whether something may be signed.

mod audit;
mod error;
mod identity;
mod key;
#[cfg(feature = "mock")]
pub mod mock;
pub mod pkcs11;
mod secret_file;
mod worker;
pub mod yubihsm;

use std::fmt;

pub use audit::{AuditEntry, AuditLog, AuditOptions};
pub use error::Error;
pub use identity::Identity;
pub use key::{Algorithm, KeyLocator, PublicKey, Signature, VerifyingKey};
pub use worker::{Asked, AuditReading, Options as WorkerOptions, State, Status, Worker};

/// A session with an HSM. Every call blocks until the device has answered; it lives on its worker's thread.
///
/// Keys are looked up when they are first used and remembered for the life of the session, so that a device with
/// thousands of configured keys opens as fast as one with none.
pub trait Device: Send {
    /// What the device says of itself.
    ///
    /// # Errors
    /// Where the session is lost or the device unreachable.
    fn info(&mut self) -> Result<Info, Error>;

    /// Finds a key and reads its public half from the device.
    ///
    /// # Errors
    /// [`Error::KeyNotFound`], [`Error::KeyAmbiguous`], [`Error::WrongAlgorithm`], [`Error::InvalidLocator`],
    /// or where the session is lost or the device unreachable.
    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error>;

    /// Signs `message`, the canonical sign bytes: as they are with Ed25519, their SHA-256 digest with the others.
    /// The signature is as [`Signature`] says, and not yet verified.
    ///
    /// # Errors
    /// As [`Self::public_key`]; [`Error::MessageTooLong`] and [`Error::Refused`] where the device will not sign.
    fn sign(&mut self, locator: &KeyLocator, message: &[u8]) -> Result<Signature, Error>;

    /// Keeps the session from expiring, and shows that it still works.
    ///
    /// # Errors
    /// Where it does not.
    fn keep_alive(&mut self) -> Result<(), Error>;

    /// The number under which the device's audit log shows a key; `None` where the device keeps none.
    ///
    /// # Errors
    /// As [`Self::public_key`].
    fn object_number(&mut self, _locator: &KeyLocator) -> Result<Option<u16>, Error> {
        Ok(None)
    }

    /// What the device's own audit log holds; `None` where it keeps none.
    ///
    /// # Errors
    /// Where the device declines, the session is lost or the device unreachable.
    fn audit_log(&mut self) -> Result<Option<AuditLog>, Error> {
        Ok(None)
    }

    /// Frees the entries of the audit log up to and with this number.
    ///
    /// # Errors
    /// As [`Self::audit_log`], and where there is no such entry.
    fn free_audit_log(&mut self, _number: u16) -> Result<(), Error> {
        Ok(())
    }

    /// The data objects with this label, of those that the session's authentication key reaches.
    ///
    /// # Errors
    /// [`Error::Refused`] where the device keeps none; where the session is lost or the device unreachable.
    fn data(&mut self, _label: &str) -> Result<Vec<DataObject>, Error> {
        Err(keeps_no_data())
    }

    /// Puts a data object into the device, in the domains of the session's authentication key, and never to be
    /// exported.
    ///
    /// # Errors
    /// As [`Self::data`].
    fn put_data(&mut self, _label: &str, _content: &[u8]) -> Result<(), Error> {
        Err(keeps_no_data())
    }

    /// Deletes a data object.
    ///
    /// # Errors
    /// As [`Self::data`].
    fn delete_data(&mut self, _number: u16) -> Result<(), Error> {
        Err(keeps_no_data())
    }

    /// What the device is told to record; `None` where it keeps no audit log.
    ///
    /// # Errors
    /// As [`Self::audit_log`].
    fn audit_options(&mut self) -> Result<Option<AuditOptions>, Error> {
        Ok(None)
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Manufacturer's name of the model. The mock's says that it is an emulator.
    pub model: String,
    /// Serial number, as printed on the device or given by the token.
    pub serial: String,
    /// Firmware version, such as `2.4.0`.
    pub firmware: String,
    /// SHA-256 of the certificate that the factory gave to it, where it has one and shows it.
    pub certificate: Option<[u8; 32]>,
}

fn keeps_no_data() -> Error {
    Error::Refused {
        operation: "keep data",
        cause: "only a YubiHSM2 does here; name one, or a TPM".to_owned(),
    }
}

/// Data that a device keeps and does not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataObject {
    /// The object's number in the device.
    pub number: u16,
    /// The data.
    pub content: Vec<u8>,
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Any PKCS#11 module.
    Pkcs11,
    /// A YubiHSM2, over USB or its connector.
    Yubihsm,
    /// The emulator. Protects nothing.
    Mock,
}

impl Backend {
    /// The name in configuration, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pkcs11 => "pkcs11",
            Self::Yubihsm => "yubihsm",
            Self::Mock => "mock",
        }
    }

    /// The longest message, in bytes, that such a device signs; `None` where there is no limit of its own.
    ///
    /// A YubiHSM2 takes an EdDSA message in one command, whose frame leaves room for 2,019 bytes.
    pub fn message_limit(self, algorithm: Algorithm) -> Option<usize> {
        match (self, algorithm) {
            (Self::Yubihsm | Self::Mock, Algorithm::Ed25519) => Some(2_019),
            (Self::Yubihsm | Self::Mock, Algorithm::Secp256k1 | Algorithm::P256)
            | (Self::Pkcs11, _) => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens a session with one device, as often as needed.
pub struct Opener {
    backend: Backend,
    open: Box<dyn Fn() -> Result<Box<dyn Device>, Error> + Send + Sync>,
}

impl Opener {
    /// An opener from a function, which may be called from any thread and may block.
    pub fn new(
        backend: Backend,
        open: impl Fn() -> Result<Box<dyn Device>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            backend,
            open: Box::new(open),
        }
    }

    /// The kind of device that this opens.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Opens a session. Blocks until the device has answered or its own time limit has passed.
    ///
    /// # Errors
    /// Where the device is unreachable, is not the kind that was configured, or refuses the PIN or password.
    pub fn open(&self) -> Result<Box<dyn Device>, Error> {
        (self.open)()
    }

    /// Whether a call that hangs may be left to its thread while another thread opens a new session. A PKCS#11 module
    /// is one library for the whole process, which may hold its locks while it hangs.
    fn may_abandon(&self) -> bool {
        match self.backend {
            Backend::Pkcs11 => false,
            Backend::Yubihsm | Backend::Mock => true,
        }
    }
}
