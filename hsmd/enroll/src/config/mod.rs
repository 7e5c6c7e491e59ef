//! The server's configuration file: read, checked whole, and only then used.

mod check;
mod device;
mod raw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hsm_device::{KeyLocator, Opener};
use hsm_policy::identity::{Role, TrustDomain};

pub use device::Device;

/// A checked configuration.
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The register's journal.
    pub state_dir: PathBuf,
    /// Of every certificate.
    pub trust_domain: TrustDomain,
    /// Where nodes connect to.
    pub address: SocketAddr,
    /// What nodes know this server by.
    pub names: Vec<String>,
    /// The administration socket.
    pub admin_socket: PathBuf,
    /// Where Prometheus scrapes, on loopback.
    pub metrics: Option<SocketAddr>,
    /// What is logged.
    pub log: Log,
    /// The CA.
    pub ca: Ca,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
}

/// What is logged, and how.
pub struct Log {
    /// JSON, one object a line; else text.
    pub json: bool,
    /// `tracing`'s name of the least level.
    pub level: String,
}

/// The CA's key and certificates.
pub struct Ca {
    /// The certificate of the key.
    pub certificate: PathBuf,
    /// The root, where that is an intermediate.
    pub root: Option<PathBuf>,
    /// The key in the device.
    pub key: KeyLocator,
    /// The device.
    pub device: Device,
}

/// How long certificates are valid, for each role and for granting certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    grant: Duration,
    sentry: Duration,
    operator: Duration,
    auditor: Duration,
    signer: Duration,
}

impl Lifetimes {
    /// Of the certificates of nodes with this role.
    #[must_use]
    pub fn of(&self, role: Role) -> Duration {
        match role {
            Role::Grant => self.grant,
            Role::Sentry => self.sentry,
            Role::Operator => self.operator,
            Role::Auditor => self.auditor,
            Role::Signer => self.signer,
        }
    }
}

/// Whether the CA's key may be in the mock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockDevices {
    /// It protects nothing.
    Refused,
    /// The person who starts it said so.
    Allowed,
}

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong with it: at least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key.
    pub key: String,
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: &Path, mock: MockDevices) -> Result<Self, Error> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
        let single = |key: String, fault: String, remedy: &str| Error {
            file: file.clone(),
            problems: vec![Problem {
                key,
                fault,
                remedy: remedy.to_owned(),
            }],
        };
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let fault = format!("cannot be read: {error}");
            single(
                "the file itself".to_owned(),
                fault,
                "name it with --config FILE",
            )
        })?;
        let raw = toml::from_str(&text).map_err(|mut error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            // The line itself is not shown: somebody may have written a secret there.
            error.set_input(None);
            let fault = error.to_string().trim().replace('\n', " ");
            single(format!("line {line}"), fault, "correct the line")
        })?;
        check::config(&file, raw, mock)
    }

    /// What opens the CA's device.
    #[must_use]
    pub fn opener(&self) -> Opener {
        self.ca.device.opener()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        for problem in &self.problems {
            let Problem { key, fault, remedy } = problem;
            write!(f, "\n  {key}: {fault}\n    -> {remedy}")?;
        }
        Ok(())
    }
}
