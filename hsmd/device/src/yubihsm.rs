//! YubiHSM2, over USB or the vendor's connector.
//!
//! A session is opened per worker, kept alive, and never re-opened behind the worker's back. The client library has no
//! way to close one: a session that is given up stays open in the device until it expires after 30 s.

mod audit;
mod data;
mod fault;
mod identity;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use ::yubihsm::asymmetric::Algorithm as DeviceAlgorithm;
use ::yubihsm::client::{Error as Cause, ErrorKind};
use ::yubihsm::device::ErrorKind as Refusal;
use ::yubihsm::object::{Filter, Label, Type};
use ::yubihsm::{Capability, Client, Credentials, HttpConfig, UsbConfig, connector, object};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use self::fault::fault;
use self::identity::check_identity;
use crate::secret_file::SecretFile;
use crate::{
    Algorithm, AuditLog, AuditOptions, Backend, DataObject, Device, Error, Info, KeyLocator,
    Opener, PublicKey, Signature,
};

/// Where a YubiHSM2 is and how to authenticate to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it is reached.
    pub connector: Connector,
    /// The object id of the authentication key. Its capabilities should be no more than signing.
    pub authentication_key: u16,
    /// The file with that key's password, readable by its owner only.
    pub password_file: PathBuf,
}

/// How a YubiHSM2 is reached. Either way the session is encrypted up to the device (SCP03).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connector {
    /// Through a `yubihsm-connector`.
    Http {
        /// Name or address.
        host: String,
        /// TCP port; 12345 is the connector's own choice.
        port: u16,
    },
    /// Directly. Opening one resets all that are plugged in: with several, use their connectors.
    Usb {
        /// The ten digits on the device; `None` takes the only one there is.
        serial: Option<String>,
    },
}

impl std::fmt::Display for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "the YubiHSM at http://{host}:{port}"),
            Self::Usb {
                serial: Some(serial),
            } => write!(f, "the YubiHSM {serial} on USB"),
            Self::Usb { serial: None } => write!(f, "the YubiHSM on USB"),
        }
    }
}

/// A corrupted answer looks like a wrong password, so one refusal proves nothing; but each try costs one of the 62
/// entries of the device's audit log.
const PASSWORD_TRIES: u32 = 20;

impl Settings {
    /// An opener of sessions with this device. It takes hardware only: an emulator in its place is refused.
    pub fn opener(self) -> Opener {
        let password = SecretFile::new(self.password_file, PASSWORD_TRIES);
        let (connector, key) = (self.connector, self.authentication_key);
        Opener::new(Backend::Yubihsm, move || {
            let device = connector.to_string();
            let secret = password.read(&device)?;
            let credentials = Credentials::from_password(key, secret.expose_secret().as_bytes());
            let opened = Session::open(&connector, credentials, Backend::Yubihsm);
            match opened {
                Ok(session) => {
                    password.accepted();
                    Ok(Box::new(session) as Box<dyn Device>)
                }
                Err(OpenError::Password(cause)) => Err(password.rejected(&device, cause)),
                Err(OpenError::Other(error)) => Err(error),
            }
        })
    }
}

/// Why no session was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The authentication key or its password is wrong.
    Password(String),
    Other(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A session with a YubiHSM2 or its emulator.
pub(crate) struct Session {
    client: Client,
    /// The authentication key's object id.
    authentication_key: object::Id,
    device: String,
    backend: Backend,
    /// SHA-256 of the factory certificate.
    certificate: Option<[u8; 32]>,
    /// The object ids of the keys found so far.
    keys: HashMap<KeyLocator, object::Id>,
}

impl Session {
    /// Opens a session and makes sure that the device is what `backend` says: hardware or emulator.
    pub(crate) fn open(
        connector: &Connector,
        credentials: Credentials,
        backend: Backend,
    ) -> Result<Self, OpenError> {
        let device = connector.to_string();
        let key = credentials.authentication_key_id;
        let connection = connect(connector)?;
        // Without the library's own reconnecting: it would keep using a session that the device has dropped.
        let client = Client::open(connection, credentials, false).map_err(|cause| {
            match (cause.kind(), cause.device_error()) {
                (ErrorKind::AuthenticationError, _) | (_, Some(Refusal::AuthenticationFailed)) => {
                    OpenError::Password(format!("authentication key {key:#06x}: {cause}"))
                }
                _ => OpenError::Other(fault(&device, "open a session", &cause)),
            }
        })?;
        let mut session = Self {
            client,
            authentication_key: key,
            device,
            backend,
            certificate: None,
            keys: HashMap::new(),
        };
        let serial = session.device_info()?.serial_number.to_string();
        let certificate = session.factory_certificate()?;
        check_identity(backend, &serial, certificate.as_deref())?;
        session.certificate = certificate.map(|der| Sha256::digest(der).into());
        Ok(session)
    }

    fn device_info(&self) -> Result<::yubihsm::device::Info, Error> {
        self.client
            .device_info()
            .map_err(|e| self.fault("show its device info", &e))
    }

    /// The certificate of the device's attestation key, made in the factory. `None` where the authentication key may
    /// not read it.
    fn factory_certificate(&self) -> Result<Option<Vec<u8>>, Error> {
        const FACTORY_CERTIFICATE: object::Id = 0;
        match self.client.get_opaque(FACTORY_CERTIFICATE) {
            Ok(certificate) => Ok(Some(certificate)),
            Err(cause) => match cause.device_error() {
                Some(Refusal::InsufficientPermissions | Refusal::ObjectNotFound) => Ok(None),
                _ => Err(self.fault("show its factory certificate", &cause)),
            },
        }
    }

    fn fault(&self, operation: &'static str, cause: &Cause) -> Error {
        fault(&self.device, operation, cause)
    }

    /// Finds the key that is meant.
    fn find(&mut self, locator: &KeyLocator) -> Result<object::Id, Error> {
        if let Some(id) = self.keys.get(locator) {
            return Ok(*id);
        }
        let candidates = self.client.list_objects(&filters(locator)?);
        let candidates = candidates.map_err(|e| self.fault("list its objects", &e))?;
        let mut matching = Vec::new();
        let mut others = Vec::new();
        for entry in candidates {
            let found = self
                .client
                .get_object_info(entry.object_id, entry.object_type);
            let found = found.map_err(|e| self.fault("describe an object", &e))?;
            if found.algorithm == device_algorithm(locator.algorithm).into() {
                matching.push(found);
            } else {
                others.push(format!("{:?}", found.algorithm));
            }
        }
        match (matching.as_slice(), others.is_empty()) {
            ([key], _) => {
                check_capability(locator, key)?;
                self.keys.insert(locator.clone(), key.object_id);
                Ok(key.object_id)
            }
            ([], true) => Err(Error::KeyNotFound(locator.clone())),
            ([], false) => {
                let found = others.join(", ");
                Err(Error::WrongAlgorithm {
                    locator: locator.clone(),
                    found,
                })
            }
            (several, _) => {
                let count = several.len();
                Err(Error::KeyAmbiguous {
                    locator: locator.clone(),
                    count,
                })
            }
        }
    }

    /// Forgets a key that the device no longer has, so that the next request looks for it again.
    fn signing_fault(&mut self, locator: &KeyLocator, cause: &Cause) -> Error {
        match cause.device_error() {
            Some(Refusal::ObjectNotFound | Refusal::InvalidId) => {
                self.keys.remove(locator);
                Error::KeyNotFound(locator.clone())
            }
            _ => self.fault("sign", cause),
        }
    }

    /// Makes an authentication key that may do everything with this password.
    #[cfg(feature = "mock")]
    pub(crate) fn add_authentication_key(&self, password: &[u8]) -> Result<object::Id, Error> {
        let key = ::yubihsm::authentication::Key::derive_from_password(password);
        let made = self.client.put_authentication_key(
            0,
            Label::default(),
            ::yubihsm::Domain::DOM1,
            Capability::all(),
            Capability::all(),
            ::yubihsm::authentication::Algorithm::default(),
            key,
        );
        made.map_err(|e| self.fault("add an authentication key", &e))
    }

    /// Makes a key that can sign and never leave the device, under an id that the device chooses.
    #[cfg(feature = "mock")]
    pub(crate) fn generate(&mut self, label: &str, algorithm: Algorithm) -> Result<(), Error> {
        let locator = KeyLocator {
            label: Some(label.to_owned()),
            id: None,
            algorithm,
        };
        let label = device_label(&locator, label)?;
        let made = self.client.generate_asymmetric_key(
            0,
            label,
            ::yubihsm::Domain::DOM1,
            signing_capability(algorithm),
            device_algorithm(algorithm),
        );
        made.map(drop).map_err(|e| self.fault("generate a key", &e))
    }
}

impl Device for Session {
    fn info(&mut self) -> Result<Info, Error> {
        let info = self.device_info()?;
        let model = match self.backend {
            Backend::Mock => "YubiHSM 2 EMULATOR",
            Backend::Yubihsm | Backend::Pkcs11 => "YubiHSM 2",
        };
        let (major, minor, build) = (info.major_version, info.minor_version, info.build_version);
        Ok(Info {
            model: model.to_owned(),
            serial: info.serial_number.to_string(),
            firmware: format!("{major}.{minor}.{build}"),
            certificate: self.certificate,
        })
    }

    fn public_key(&mut self, locator: &KeyLocator) -> Result<PublicKey, Error> {
        let id = self.find(locator)?;
        let key = self
            .client
            .get_public_key(id)
            .map_err(|e| self.signing_fault(locator, &e))?;
        match locator.algorithm {
            Algorithm::Ed25519 => PublicKey::from_parts(Algorithm::Ed25519, key.as_slice()),
            // The device leaves out the tag of an uncompressed point (SEC 1 section 2.3.3).
            Algorithm::Secp256k1 => {
                let point = [&[4], key.as_slice()].concat();
                PublicKey::from_parts(Algorithm::Secp256k1, &point)
            }
            Algorithm::P256 => {
                let point = [&[4], key.as_slice()].concat();
                PublicKey::from_parts(Algorithm::P256, &point)
            }
        }
    }

    fn sign(&mut self, locator: &KeyLocator, message: &[u8]) -> Result<Signature, Error> {
        let (backend, algorithm, length) = (self.backend, locator.algorithm, message.len());
        if let Some(limit) = backend
            .message_limit(algorithm)
            .filter(|limit| length > *limit)
        {
            return Err(Error::MessageTooLong {
                length,
                limit,
                backend,
                algorithm,
            });
        }
        let id = self.find(locator)?;
        match algorithm {
            Algorithm::Ed25519 => match self.client.sign_ed25519(id, message) {
                Ok(signature) => Ok(Signature(signature.to_bytes())),
                Err(cause) => Err(self.signing_fault(locator, &cause)),
            },
            Algorithm::Secp256k1 | Algorithm::P256 => {
                let digest = Sha256::digest(message).to_vec();
                match self.client.sign_ecdsa_prehash_raw(id, digest) {
                    Ok(der) if algorithm == Algorithm::P256 => Signature::from_p256_der(&der),
                    Ok(der) => Signature::from_secp256k1_der(&der),
                    Err(cause) => Err(self.signing_fault(locator, &cause)),
                }
            }
        }
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        self.client
            .ping()
            .map(drop)
            .map_err(|e| self.fault("answer", &e))
    }

    fn object_number(&mut self, locator: &KeyLocator) -> Result<Option<u16>, Error> {
        self.find(locator).map(Some)
    }

    fn audit_log(&mut self) -> Result<Option<AuditLog>, Error> {
        self.read_audit_log().map(Some)
    }

    fn free_audit_log(&mut self, number: u16) -> Result<(), Error> {
        self.client
            .set_log_index(number)
            .map_err(|e| self.fault("free entries of its audit log", &e))
    }

    fn data(&mut self, label: &str) -> Result<Vec<DataObject>, Error> {
        self.read_data(label)
    }

    fn put_data(&mut self, label: &str, content: &[u8]) -> Result<(), Error> {
        self.write_data(label, content)
    }

    fn delete_data(&mut self, number: u16) -> Result<(), Error> {
        let deleted = self.client.delete_object(number, Type::Opaque);
        deleted.map_err(|e| self.fault("delete a data object", &e))
    }

    fn audit_options(&mut self) -> Result<Option<AuditOptions>, Error> {
        self.read_audit_options().map(Some)
    }
}

/// Makes the library's connection, which is not opened yet.
fn connect(connector: &Connector) -> Result<connector::Connector, Error> {
    /// After the worker has long given up; it only bounds how long an abandoned thread lives. HTTP has 20 s fixed.
    const USB_TIMEOUT: Duration = Duration::from_secs(20);
    match connector {
        Connector::Http { host, port } => Ok(connector::Connector::http(&HttpConfig {
            addr: host.clone(),
            port: *port,
            ..HttpConfig::default()
        })),
        Connector::Usb { serial } => {
            let serial = serial.as_deref().map(str::parse).transpose().map_err(|_| {
                let cause = "a serial number has ten digits; correct the configuration".into();
                Error::Unreachable {
                    device: connector.to_string(),
                    cause,
                }
            })?;
            let timeout_ms = u64::try_from(USB_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            Ok(connector::Connector::usb(&UsbConfig { serial, timeout_ms }))
        }
    }
}

fn filters(locator: &KeyLocator) -> Result<Vec<Filter>, Error> {
    let mut filters = vec![Filter::Type(Type::AsymmetricKey)];
    if let Some(label) = &locator.label {
        filters.push(Filter::Label(device_label(locator, label)?));
    }
    if let Some(id) = &locator.id {
        let id: [u8; 2] = id
            .as_slice()
            .try_into()
            .map_err(|_| Error::InvalidLocator {
                locator: locator.clone(),
                cause: "a YubiHSM object id is two bytes, such as 0001".into(),
            })?;
        filters.push(Filter::Id(u16::from_be_bytes(id)));
    }
    if filters.len() == 1 {
        return Err(Error::InvalidLocator {
            locator: locator.clone(),
            cause: "it has neither label nor id; give at least one".into(),
        });
    }
    Ok(filters)
}

fn device_label(locator: &KeyLocator, label: &str) -> Result<Label, Error> {
    Label::from_bytes(label.as_bytes()).map_err(|_| Error::InvalidLocator {
        locator: locator.clone(),
        cause: "a YubiHSM label has at most 40 bytes".into(),
    })
}

fn device_algorithm(algorithm: Algorithm) -> DeviceAlgorithm {
    match algorithm {
        Algorithm::Ed25519 => DeviceAlgorithm::Ed25519,
        Algorithm::Secp256k1 => DeviceAlgorithm::EcK256,
        Algorithm::P256 => DeviceAlgorithm::EcP256,
    }
}

fn signing_capability(algorithm: Algorithm) -> Capability {
    match algorithm {
        Algorithm::Ed25519 => Capability::SIGN_EDDSA,
        Algorithm::Secp256k1 | Algorithm::P256 => Capability::SIGN_ECDSA,
    }
}

fn check_capability(locator: &KeyLocator, key: &object::Info) -> Result<(), Error> {
    let needed = signing_capability(locator.algorithm);
    if key.capabilities.contains(needed) {
        return Ok(());
    }
    Err(Error::Refused {
        operation: "sign",
        cause: format!("the {locator} lacks the capability {needed:?}; generate one that has it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_that_no_yubihsm_can_have_is_refused() {
        let locator = |label: Option<&str>, id: Option<&[u8]>| KeyLocator {
            label: label.map(str::to_owned),
            id: id.map(<[u8]>::to_vec),
            algorithm: Algorithm::Ed25519,
        };
        let long = "x".repeat(41);
        for wrong in [
            locator(None, None),
            locator(Some(&long), None),
            locator(None, Some(&[1])),
            locator(Some("validator"), Some(&[0, 0, 1])),
        ] {
            assert!(
                matches!(filters(&wrong), Err(Error::InvalidLocator { .. })),
                "{wrong}"
            );
        }
        assert_eq!(
            filters(&locator(Some(&long[1..]), Some(&[0, 1])))
                .unwrap()
                .len(),
            3
        );
    }
}
