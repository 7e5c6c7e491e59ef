//! `hsmd dev`: a whole set-up with a mock HSM in one directory, for trying hsmd out. It protects nothing:
//! the signing key lies in a file in the clear.
//!
//! [`prepare`] writes what is missing and leaves what is there, so that it can be run again and again on
//! the same directory. Everything in it says that it is for development: the file [`MARK`], the trust
//! domain, the subjects of the certificates, and the comments of the configuration.

mod certificates;
mod documents;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hsm_device::mock::{self, Mock};
use hsm_policy::cometbft::ChainId;
use hsm_policy::grants::{KeyName, Policy};

use crate::config::{self, Backend, Config, MockDevices};

/// The file that marks a directory as a development set-up. No other directory is written to.
pub const MARK: &str = "DEVELOPMENT-ONLY.txt";
/// The trust domain of the certificates. ".invalid" is never in use (RFC 2606).
pub const TRUST_DOMAIN: &str = "development.invalid";

const CONFIG: &str = "hsmd.toml";
const POLICY: &str = "policy.toml";
const SENTRY_CONFIG: &str = "sentry.toml";
const DEFAULT_CHAIN: &str = "dev-1";
const DEFAULT_KEY: &str = "dev";

/// What is wanted. What is not given is as it is in the directory, or a default.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where everything is put. Made if it is not there; must be empty, or a set-up made earlier.
    pub directory: PathBuf,
    /// The chain that the sentry may sign for; "dev-1" if not given.
    pub chain_id: Option<String>,
    /// The key's name, and its label in the mock; "dev" if not given.
    pub key: Option<String>,
    /// Where hsmd listens. With port 0, or not given: a free port of 127.0.0.1, chosen once.
    pub listen: Option<SocketAddr>,
}

/// A set-up whose certificates, configurations and policy are written. What is left is the journal
/// (`hsmd state init`), then the key in the mock ([`Prepared::put_key`]), then `hsmd key init`. In this
/// order a key without a journal is one whose journal was lost.
#[derive(Debug)]
pub struct Prepared {
    /// hsmd's configuration, checked. Its file is `hsmd.toml` in the directory.
    pub config: Config,
    /// The configuration of an hsm-sentry whose node listens on `privval.sock` in the directory.
    pub sentry_config: PathBuf,
    /// The chain that is granted.
    pub chain_id: String,
    /// The name of the key that is granted.
    pub key: String,
}

/// Why there is no set-up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something else.
    #[error(
        "{} holds other files: name an empty directory, or one that does not exist", .0.display()
    )]
    Foreign(PathBuf),
    /// The set-up that is there is for something else.
    #[error(
        "{} was made for {what} {present:?}, not {wanted:?}: leave the option out, or name another \
         directory", directory.display()
    )]
    Different {
        /// The directory.
        directory: PathBuf,
        /// What differs.
        what: &'static str,
        /// As it is.
        present: String,
        /// As it was asked for.
        wanted: String,
    },
    /// A name that nothing can have.
    #[error("{0}")]
    Name(String),
    /// A file or directory cannot be written or read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The configuration that is there is refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The policy that is there is refused.
    #[error("{}: {error}", path.display())]
    Policy {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        error: hsm_policy::grants::Error,
    },
    /// The set-up was edited beyond what `hsmd dev` understands.
    #[error("{}: {fault}; use `hsmd run` with it, or name another directory", path.display())]
    Edited {
        /// The file.
        path: PathBuf,
        /// What is missing from it.
        fault: &'static str,
    },
    /// The mock has a key, which may have signed, and the journal that says what is gone.
    #[error(
        "{} is not there, and the key in {} may have signed already: put the folder back, or name another \
         --directory, where a new key begins", state.display(), mock.display()
    )]
    StateGone {
        /// The journal's directory.
        state: PathBuf,
        /// The mock's state file.
        mock: PathBuf,
    },
    /// The mock did not start.
    #[error(transparent)]
    Mock(#[from] hsm_device::mock::StartError),
    /// The mock did not make the key.
    #[error("the mock HSM: {0}")]
    Key(#[from] hsm_device::Error),
}

/// Makes the set-up, or completes it.
///
/// # Errors
/// See [`Error`]; what was there before is unchanged, save certificates that were about to expire.
pub fn prepare(wanted: &Wanted) -> Result<Prepared, Error> {
    let directory = std::path::absolute(&wanted.directory).map_err(io_error(&wanted.directory))?;
    claim(&directory)?;
    certificates::ensure(&directory)?;
    let policy = ensure_policy(&directory, wanted)?;
    let config = ensure_config(&directory, &policy.key, wanted)?;
    let sentry_config = directory.join(SENTRY_CONFIG);
    let mut address = config.listen.address;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let sentry = documents::sentry(&policy.chain_id, &policy.key, address);
    write_new(&sentry_config, &sentry)?;
    let prepared = Prepared {
        config,
        sentry_config,
        chain_id: policy.chain_id,
        key: policy.key,
    };
    let mock = prepared.mock()?.state_file.as_ref();
    if let Some(mock) = mock.filter(|mock| mock.exists())
        && !prepared.config.state_dir.exists()
    {
        return Err(Error::StateGone {
            state: prepared.config.state_dir.clone(),
            mock: mock.clone(),
        });
    }
    Ok(prepared)
}

impl Prepared {
    /// Puts the key into the mock, unless it is there.
    ///
    /// # Errors
    /// [`Error::Edited`], [`Error::Mock`], [`Error::Key`].
    pub fn put_key(&self) -> Result<(), Error> {
        let key = self.config.keys.iter().find(|key| key.name == self.key);
        let key =
            key.ok_or_else(|| self.edited("it has no [[key]] of the name that the policy grants"))?;
        let label = key
            .label
            .as_deref()
            .ok_or_else(|| self.edited("its key has no label"))?;
        let mock = Mock::start(self.mock()?.clone())?;
        mock.ensure_key(label, key.algorithm)?;
        Ok(())
    }

    fn mock(&self) -> Result<&mock::Settings, Error> {
        let mut devices = self.config.devices.iter();
        let mock = devices.find_map(|device| match &device.backend {
            Backend::Mock(settings) => Some(settings),
            _ => None,
        });
        mock.ok_or_else(|| self.edited("it has no mock device"))
    }

    fn edited(&self, fault: &'static str) -> Error {
        Error::Edited {
            path: self.config.file.clone(),
            fault,
        }
    }
}

/// Makes the directory and marks it, or finds it marked.
fn claim(directory: &Path) -> Result<(), Error> {
    let failed = io_error(directory);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let mark = directory.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    if std::fs::read_dir(directory)
        .map_err(failed)?
        .next()
        .is_some()
    {
        return Err(Error::Foreign(directory.to_path_buf()));
    }
    write_new(&mark, documents::MARK_TEXT)
}

struct Granted {
    chain_id: String,
    key: String,
}

fn ensure_policy(directory: &Path, wanted: &Wanted) -> Result<Granted, Error> {
    let path = directory.join(POLICY);
    let chain_id = wanted.chain_id.as_deref().unwrap_or(DEFAULT_CHAIN);
    let chain_id = ChainId::new(chain_id).map_err(|error| Error::Name(error.to_string()))?;
    let key = wanted.key.as_deref().unwrap_or(DEFAULT_KEY);
    let key = KeyName::new(key).map_err(|error| Error::Name(error.to_string()))?;
    write_new(&path, &documents::policy(chain_id.as_str(), key.as_str()))?;

    let text = std::fs::read_to_string(&path).map_err(io_error(&path))?;
    let policy = Policy::parse(&text).map_err(|error| Error::Policy {
        path: path.clone(),
        error,
    })?;
    let grant = policy.grants().next();
    let grant = grant.ok_or(Error::Edited {
        path,
        fault: "it grants nothing",
    })?;
    let granted = Granted {
        chain_id: grant.chain_id().to_string(),
        key: grant.key().to_string(),
    };
    same(
        directory,
        "chain",
        &granted.chain_id,
        wanted.chain_id.as_deref(),
    )?;
    same(directory, "key", &granted.key, wanted.key.as_deref())?;
    Ok(granted)
}

fn ensure_config(directory: &Path, key: &str, wanted: &Wanted) -> Result<Config, Error> {
    let path = directory.join(CONFIG);
    if !path.exists() {
        let (listen, metrics) = ports(wanted.listen).map_err(io_error(&path))?;
        write_new(&path, &documents::hsmd(listen, metrics, key))?;
    }
    let config = Config::load(&path, MockDevices::Allowed)?;
    if let Some(listen) = wanted.listen.filter(|listen| listen.port() != 0) {
        let present = config.listen.address.to_string();
        same(directory, "address", &present, Some(&listen.to_string()))?;
    }
    Ok(config)
}

/// Where to listen, and where for metrics. Free ports are chosen before hsmd listens, because others must
/// know them: the sentry's configuration, and a person.
fn ports(listen: Option<SocketAddr>) -> io::Result<(SocketAddr, SocketAddr)> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let metrics = TcpListener::bind(anywhere)?;
    let listen = match listen.unwrap_or(anywhere) {
        wanted if wanted.port() == 0 => TcpListener::bind(wanted)?.local_addr()?,
        wanted => wanted,
    };
    Ok((listen, metrics.local_addr()?))
}

fn same(
    directory: &Path,
    what: &'static str,
    present: &str,
    wanted: Option<&str>,
) -> Result<(), Error> {
    match wanted {
        Some(wanted) if wanted != present => Err(Error::Different {
            directory: directory.to_path_buf(),
            what,
            present: present.to_owned(),
            wanted: wanted.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Writes a file for its owner alone, unless it is there.
fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(io_error(path)),
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |error| Error::Io {
        path: path.to_path_buf(),
        error,
    }
}
