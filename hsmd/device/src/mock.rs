//! The mock device: our YubiHSM2 emulator in this process, behind the same client code as the real one. It protects
//! nothing, and every key in it is lost without a state file.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ::yubihsm::Credentials;
pub use yubihsm_emulator::{Clock, Error as StartError, Fault, Latency, Settings, parse_firmware};

use crate::yubihsm::{Connector, OpenError, Session};
use crate::{Algorithm, Backend, Device as _, Error, KeyLocator, Opener, PublicKey};

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

    /// Makes the emulator misbehave, until [`Self::clear_faults`].
    pub fn inject(&self, fault: Fault) {
        self.emulator.inject(fault);
    }

    /// Ends all misbehaviour.
    pub fn clear_faults(&self) {
        self.emulator.clear_faults();
    }

    fn session(&self) -> Result<Session, Error> {
        let address = self.address();
        let connector = Connector::Http {
            host: address.ip().to_string(),
            port: address.port(),
        };
        // The credentials of a device fresh from the factory. They cannot be wrong, only answers corrupted.
        Session::open(&connector, Credentials::default(), Backend::Mock).map_err(
            |error| match error {
                OpenError::Password(cause) => Error::Fault(cause),
                OpenError::Other(error) => error,
            },
        )
    }
}
