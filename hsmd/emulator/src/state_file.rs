//! The state file: read once, written durably at every change.
//!
//! Three parts: a line that warns, a line with the SHA-256 of the rest, and the state as JSON. A file that
//! does not match its digest is refused, not repaired.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::Error;
use crate::device::{Device, Firmware, State};

/// First line of every state file.
const WARNING: &str =
    "YubiHSM EMULATOR STATE, FORMAT 1: PRIVATE KEYS IN THE CLEAR, PROTECTS NOTHING, FOR TESTS ONLY";

/// What is wrong with a state file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another emulator uses it.
    #[error("another emulator is using it")]
    InUse,
    /// It is cut, altered, or not a state file.
    #[error("damaged, or not an emulator's state ({0})")]
    Damaged(&'static str),
    /// It belongs to a device with this serial number, not to the one asked for.
    #[error("it belongs to the device with serial number {0}: start with that one")]
    Serial(u32),
}

/// A state file that this process holds alone.
pub(crate) struct StateFile {
    path: PathBuf,
    /// Holds the lock. Not the state file itself, which is replaced at every change.
    _lock: File,
}

impl StateFile {
    /// Locks the file, and reads it if it exists.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<State>), Error> {
        let opened = lock(&path).and_then(|lock| Ok((lock, read(&path)?)));
        match opened {
            Ok((lock, state)) => Ok((Self { path, _lock: lock }, state)),
            Err(problem) => Err(Error::State { path, problem }),
        }
    }

    /// The device that `state` is of, or a new one; switched on, and its state written.
    pub(crate) fn device(
        &self,
        state: Option<State>,
        serial: u32,
        firmware: Firmware,
        now: Duration,
    ) -> Result<Device, Error> {
        let refuse = |problem| Error::State {
            path: self.path.clone(),
            problem,
        };
        let device = match state {
            None => Device::manufacture(serial, firmware, now)?,
            Some(state) if state.serial() != serial => {
                return Err(refuse(Problem::Serial(state.serial())));
            }
            Some(state) => Device::restore(state, firmware, now)
                .ok_or_else(|| refuse(Problem::Damaged("no device can be in this state")))?,
        };
        self.write(&device.state())
            .map_err(|error| refuse(error.into()))?;
        Ok(device)
    }

    /// Replaces the file. When this returns, the new state outlives a power cut.
    pub(crate) fn write(&self, state: &State) -> io::Result<()> {
        let json = Zeroizing::new(serde_json::to_vec(state)?);
        let digest = hex::encode(Sha256::digest(json.as_slice()));
        let next = with_suffix(&self.path, ".new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(format!("{WARNING}\n{digest}\n").as_bytes())?;
        file.write_all(&json)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        File::open(folder(&self.path))?.sync_all()
    }
}

fn lock(path: &Path) -> Result<File, Problem> {
    let path = with_suffix(path, ".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Problem::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn read(path: &Path) -> Result<Option<State>, Problem> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (warning, digest, json) = (lines.next(), lines.next(), lines.next().unwrap_or_default());
    if warning != Some(WARNING.as_bytes()) {
        return Err(Problem::Damaged("its first line is not an emulator's"));
    }
    if digest != Some(hex::encode(Sha256::digest(json)).as_bytes()) {
        return Err(Problem::Damaged("its digest does not match"));
    }
    let state = serde_json::from_slice(json);
    state
        .map(Some)
        .map_err(|_| Problem::Damaged("it does not parse"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
