//! The configuration file: TOML, read once at start, every value checked before anything else happens.
//!
//! [`Config::load`] reads the file into structs that mirror it and refuse unknown fields, checks each
//! value, and reports all problems at once, each with file, key, value and remedy. Secrets never stand
//! in the file: it names the files that hold them, and those must be closed to group and others.

mod anchor;
mod check;
mod checkpoint;
mod devices;
mod error;
mod files;
mod keys;
mod ledger;
mod raw;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm_device::{Algorithm, KeyLocator, Opener};
use hsm_journal::witness::Witness;
use hsm_policy::identity::TrustDomain;

use check::Purpose;

use crate::advisories;

pub use anchor::{Anchor, Anchored, Pace, Place};
pub use error::{Error, Problem};
pub(crate) use files::{FileFault, is_elsewhere, private};
pub use ledger::{EtcdEndpoint, Ledger, LedgerFiles};

/// A checked configuration. All paths are absolute.
#[derive(Debug)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Directory of the journal: `state_dir`. It need not exist yet: `hsmd state init` creates it.
    pub state_dir: PathBuf,
    /// A policy that nobody has to have signed: `policy`, for `hsmd dev` alone.
    pub policy: Option<PathBuf>,
    /// Time from a request's arrival to its answer: `deadline_ms`, 100 ms to 60 s, 3 s if not given.
    pub deadline: Duration,
    /// Time between two readings of a device's own audit log: `audit_interval_ms`, 100 ms to 1 h, 10 s if
    /// not given. It is read sooner where hsmd has asked for many signatures.
    pub audit_interval: Duration,
    /// `[listen]`: the gRPC listener.
    pub listen: Listen,
    /// The administration socket: `admin.socket`.
    pub admin_socket: PathBuf,
    /// The loopback address of the Prometheus listener: `metrics.listen`. None: no such listener.
    pub metrics: Option<SocketAddr>,
    /// `[log]`.
    pub log: Log,
    /// `[state]`.
    pub state: State,
    /// `[checkpoint]`: the journal as a public log. None: no checkpoints are made.
    pub checkpoint: Option<Checkpoint>,
    /// `[advisories]`.
    pub advisories: advisories::Rule,
    /// `[ledger]`: through which marks are shared with other signers. None: no key here may be bound to one.
    pub ledger: Option<Ledger>,
    /// `[[device]]`, in the file's order; at least one; names are unique.
    pub devices: Vec<Device>,
    /// `[[key]]`, in the file's order; names are unique.
    pub keys: Vec<Key>,
}

/// Where sentries connect, and who we and they are.
#[derive(Debug)]
pub struct Listen {
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Our certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS#8, SEC1 or PKCS#1).
    pub private_key: PathBuf,
    /// The CA certificates that a client's chain must end in, PEM.
    pub client_ca: PathBuf,
    /// The trust domain that every caller's SPIFFE ID must lie in.
    pub trust_domain: TrustDomain,
    /// Whether the gRPC reflection service answers; false if not given.
    pub reflection: bool,
}

/// How logs are written, to standard error.
#[derive(Debug)]
pub struct Log {
    /// Text if not given.
    pub format: LogFormat,
    /// Info if not given.
    pub level: tracing::Level,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the journal is kept.
#[derive(Debug)]
pub struct State {
    /// What outside the disk proves that the journal was not rolled back.
    pub anchor: Anchor,
    /// Size at which a journal segment is complete, in bytes: 1 MiB to 1 GiB, 16 MiB if not given.
    pub segment_bytes: u64,
}

/// Who signs the journal's checkpoints, how often, and who cosigns them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The log's name in the world, and that of its key.
    pub origin: String,
    /// Time between two checkpoints: `interval_ms`, 100 ms to a day, one minute if not given.
    pub interval: Duration,
    /// Names of the devices that hold the key, at least one.
    pub devices: Vec<String>,
    /// The Ed25519 key; not that of any `[[key]]`.
    pub locator: KeyLocator,
    /// Who is asked to cosign: `[[checkpoint.witness]]`.
    pub witnesses: Vec<Witness>,
    /// How many of them should; all if not given. With fewer, an alarm is raised and hsmd signs on.
    pub quorum: usize,
}

/// An HSM.
#[derive(Debug)]
pub struct Device {
    /// 1 to 64 bytes of `a-z 0-9 . _ -`.
    pub name: String,
    /// How it is reached.
    pub backend: Backend,
    /// Requests that may wait for the device, 1 to 4096; 64 if not given.
    pub queue: usize,
}

/// How a device is reached and unlocked: the settings of its backend in `hsm_device`.
#[derive(Debug)]
pub enum Backend {
    /// A PKCS#11 module. It is a library inside hsmd, and must be trusted like hsmd.
    Pkcs11(hsm_device::pkcs11::Settings),
    /// A YubiHSM2.
    Yubihsm(hsm_device::yubihsm::Settings),
    /// The YubiHSM2 emulator within this process. No hardware, no protection of keys.
    #[cfg(feature = "mock")]
    Mock(hsm_device::mock::Settings),
}

/// A consensus key and where it lives.
#[derive(Debug)]
pub struct Key {
    /// The name that callers and the policy use: 1 to 64 bytes of `a-z 0-9 . _ -`.
    pub name: String,
    /// Names of the devices that hold it, at least one.
    pub devices: Vec<String>,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its label in the device. At least one of label and id is there.
    pub label: Option<String>,
    /// Its id in the device: PKCS#11 CKA_ID, or two bytes, most significant first, in a YubiHSM2.
    pub id: Option<Vec<u8>>,
}

/// Whether the configuration may name a mock device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockDevices {
    /// `--mock` was not given: a mock device is a problem.
    Refused,
    /// `--mock` was given.
    Allowed,
}

impl Config {
    /// Reads and checks `file`. Relative paths in it are relative to its directory. The files that it
    /// names must exist and be readable, and closed to group and others where they hold a secret;
    /// nothing is opened for longer than that, nothing is connected.
    ///
    /// # Errors
    /// All problems found. Where the file is not TOML, or holds an unknown field or a value of the wrong
    /// type, that one problem.
    pub fn load(file: &Path, mock: MockDevices) -> Result<Self, Error> {
        Self::read(file, mock, Purpose::Serve)
    }

    /// As [`Config::load`], for a command that looks at the daemon from outside: mock devices are
    /// accepted, and the files that it names are not looked at, because only the daemon may be able to.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_to_look(file: &Path) -> Result<Self, Error> {
        Self::read(file, MockDevices::Allowed, Purpose::Look)
    }

    fn read(file: &Path, mock: MockDevices, purpose: Purpose) -> Result<Self, Error> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
        let text =
            std::fs::read_to_string(&file).map_err(|error| Error::unreadable(&file, &error))?;
        let raw = toml::from_str(&text).map_err(|error| Error::toml(&file, &text, error))?;
        check::check(file, raw, mock, purpose)
    }

    /// Whether any device is the mock.
    #[must_use]
    pub fn has_mock(&self) -> bool {
        self.devices.iter().any(Device::is_mock)
    }
}

impl Device {
    /// Whether this is the mock.
    #[must_use]
    pub fn is_mock(&self) -> bool {
        self.backend.kind() == hsm_device::Backend::Mock
    }
}

impl Backend {
    /// Which backend of `hsm_device` it is.
    #[must_use]
    pub fn kind(&self) -> hsm_device::Backend {
        match self {
            Self::Pkcs11(_) => hsm_device::Backend::Pkcs11,
            Self::Yubihsm(_) => hsm_device::Backend::Yubihsm,
            #[cfg(feature = "mock")]
            Self::Mock(_) => hsm_device::Backend::Mock,
        }
    }

    /// What opens sessions with the device. The mock starts when its first session is opened, and runs
    /// for as long as the opener is kept.
    #[must_use]
    pub fn opener(&self) -> Opener {
        match self {
            Self::Pkcs11(settings) => settings.clone().opener(),
            Self::Yubihsm(settings) => settings.clone().opener(),
            #[cfg(feature = "mock")]
            Self::Mock(settings) => mock_opener(settings.clone()),
        }
    }
}

#[cfg(feature = "mock")]
fn mock_opener(settings: hsm_device::mock::Settings) -> Opener {
    use hsm_device::mock::Mock;
    use std::sync::{Mutex, PoisonError};

    let running: Mutex<Option<Mock>> = Mutex::new(None);
    Opener::new(hsm_device::Backend::Mock, move || {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let mock = match &*running {
            Some(mock) => mock.clone(),
            None => {
                Mock::start(settings.clone()).map_err(|error| hsm_device::Error::Unreachable {
                    device: "the mock".to_owned(),
                    cause: error.to_string(),
                })?
            }
        };
        *running = Some(mock.clone());
        mock.opener().open()
    })
}
