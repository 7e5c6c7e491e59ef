//! The mock device: our YubiHSM2 emulator in this process, behind the same client code as the real one. It protects
//! nothing, and every key in it is lost without a state file.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ::yubihsm::Credentials;
pub use yubihsm_emulator::{Clock, Error as StartError, Fault, Latency, Settings, parse_firmware};

use crate::yubihsm::{Connector, OpenError, Session};
use crate::{Algorithm, Backend, Device, Error, KeyLocator, Opener, PublicKey};

/// A running emulator. It stops when this, its clones and all their openers are dropped.
#[derive(Clone)]
pub struct Mock {
    emulator: Arc<yubihsm_emulator::Emulator>,
}

impl Mock {
    /// Starts an emulator on a port of the loopback interface that the system chooses.
    ///
    /// # Errors
    /// Where its settings or its state file are wrong.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let emulator = yubihsm_emulator::Emulator::start(settings, anywhere)?;
        Ok(Self {
            emulator: Arc::new(emulator),
        })
    }

    /// Where its connector listens.
    pub fn address(&self) -> SocketAddr {
        self.emulator.address()
    }

    /// The key of this label and algorithm: generated in the emulator where it has none yet.
    ///
    /// # Errors
    /// Where the emulator refuses, for example a label of more than 40 bytes.
    pub fn ensure_key(&self, label: &str, algorithm: Algorithm) -> Result<PublicKey, Error> {
        let locator = KeyLocator {
            label: Some(label.to_owned()),
            id: None,
            algorithm,
        };
        let mut session = self.session()?;
        match session.public_key(&locator) {
            Err(Error::KeyNotFound(_) | Error::WrongAlgorithm { .. }) => {
                session.generate(label, algorithm)?;
                session.public_key(&locator)
            }
            found => found,
        }
    }

    /// An opener of sessions with this emulator, which it keeps running.
    pub fn opener(&self) -> Opener {
        let mock = self.clone();
        Opener::new(Backend::Mock, move || Ok(Box::new(mock.session()?)))
    }

    /// Has it record signatures in its audit log, and stop when that is full.
    ///
    /// # Errors
    /// Where the emulator refuses.
    pub fn force_audit(&self) -> Result<(), Error> {
        self.session()?.force_audit()
    }

    /// A session under an authentication key that somebody else made for themselves.
    ///
    /// # Errors
    /// Where the emulator refuses.
    pub fn stranger(&self) -> Result<Box<dyn Device>, Error> {
        const PASSWORD: &[u8] = b"the stranger's";
        let key = self.session()?.add_authentication_key(PASSWORD)?;
        Ok(Box::new(
            self.session_as(Credentials::from_password(key, PASSWORD))?,
        ))
    }

    /// Makes the emulator misbehave, until [`Self::clear_faults`].
    pub fn inject(&self, fault: Fault) {
        self.emulator.inject(fault);
    }

    /// Ends all misbehaviour.
    pub fn clear_faults(&self) {
        self.emulator.clear_faults();
    }

    /// With the credentials of a device fresh from the factory. They cannot be wrong, only answers corrupted.
    fn session(&self) -> Result<Session, Error> {
        self.session_as(Credentials::default())
    }

    fn session_as(&self, credentials: Credentials) -> Result<Session, Error> {
        let address = self.address();
        let connector = Connector::Http {
            host: address.ip().to_string(),
            port: address.port(),
        };
        Session::open(&connector, credentials, Backend::Mock).map_err(|error| match error {
            OpenError::Password(cause) => Error::Fault(cause),
            OpenError::Other(error) => error,
        })
    }
}
