//! A YubiHSM2 for continuous integration: the connector's HTTP interface, and the device's own rules.
//!
//! It protects nothing: keys stand in memory, and in the state file if there is one, in the clear.
//! [`Emulator::start`] serves one on a loopback address, on a thread of its own; [`device::Device`] is the
//! device alone, without any input or output.
//!
//! ```no_run
//! use yubihsm_emulator::{Emulator, Settings};
//!
//! let emulator = Emulator::start(Settings::default(), ([127, 0, 0, 1], 0).into())?;
//! println!("connector: http://{}", emulator.address());
//! # Ok::<(), yubihsm_emulator::Error>(())
//! ```
#![forbid(unsafe_code)]

mod clock;
mod control;
pub mod device;
mod fault;
mod http;
mod latency;
pub mod state_file;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use clock::Clock;
pub use device::{EMULATOR_MARK, EMULATOR_SERIALS, ErrorCode, Firmware};
pub use fault::{Fault, UnknownFault};
pub use latency::{Latency, UnknownLatency};

use control::ControlSocket;
use device::{Device, ManufactureError};
use fault::Faults;
use http::Connector;
use state_file::StateFile;

/// How the emulated device is made. The default is a fresh device in memory, as fast as it can be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Serial number, in [`EMULATOR_SERIALS`].
    pub serial: u32,
    /// Version of the firmware. From 2.4.0 on the device has a larger message buffer and a second page of
    /// device information.
    pub firmware: Firmware,
    /// Where the device's state is kept, written durably at every change; private keys stand in it in the
    /// clear. A file that does not exist is made. Without one everything is gone when the emulator stops.
    pub state_file: Option<PathBuf>,
    /// How long commands take.
    pub latency: Latency,
    /// Where the device takes the time from; decides when sessions expire.
    pub clock: Clock,
    /// A fault from the beginning.
    pub fault: Option<Fault>,
    /// Where the control socket is made, on which other processes set faults and latency: a UNIX socket for
    /// its owner alone, one order a line (`fault hang`, `clear`, `latency vendor`, `status`), answered with
    /// `ok` or `error: ...`.
    pub control: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            serial: *EMULATOR_SERIALS.start(),
            firmware: (2, 4, 1),
            state_file: None,
            latency: Latency::None,
            clock: Clock::default(),
            fault: None,
            control: None,
        }
    }
}

/// Reads a version of the firmware, such as `2.4.1`; `None` if it is none.
pub fn parse_firmware(text: &str) -> Option<Firmware> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

/// A running emulator. It stops, and closes its connections, when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    faults: Arc<Faults>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator on a loopback address; with port 0 the system chooses one.
    ///
    /// # Errors
    /// See [`Error`]. Nothing runs after an error.
    pub fn start(settings: Settings, listen: SocketAddr) -> Result<Self, Error> {
        if !listen.ip().is_loopback() {
            return Err(Error::NotLoopback(listen));
        }
        let now = settings.clock.now();
        let (device, file) = match settings.state_file {
            None => (
                Device::manufacture(settings.serial, settings.firmware, now)?,
                None,
            ),
            Some(path) => {
                let (file, state) = StateFile::open(path)?;
                let device = file.device(state, settings.serial, settings.firmware, now)?;
                (device, Some(file))
            }
        };
        let failed = |source| Error::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;

        let control = settings.control.as_deref().map(|path| {
            ControlSocket::bind(path).map_err(|source| Error::Control {
                path: path.to_owned(),
                source,
            })
        });
        let control = control.transpose()?;

        let faults = Arc::new(Faults::default());
        if let Some(fault) = settings.fault {
            faults.inject(fault);
        }
        let connector = Connector::new(device, file, &settings.clock, settings.latency, &faults);
        let (stop, stopped) = oneshot::channel();
        let thread = http::spawn(connector, listener, address, control, stopped).map_err(failed)?;
        tracing::warn!(
            %address,
            serial = settings.serial,
            "YubiHSM EMULATOR: protects nothing, for tests only"
        );
        Ok(Self {
            address,
            faults,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where the connector's HTTP interface is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the device misbehave, from the next command on, until [`Emulator::clear_faults`]. A fault
    /// replaces the one before. [`Fault::LoseSessions`] happens once.
    pub fn inject(&self, fault: Fault) {
        self.faults.inject(fault);
    }

    /// Ends all misbehaviour. Commands that hang go on.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say when it ends, and if it panicked that was printed.
            let _ = thread.join();
        }
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is reachable from other hosts.
    #[error(
        "{0} is not a loopback address: an emulator protects nothing, listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// The address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The control socket could not be made.
    #[error("control socket {path}: {source}")]
    Control {
        /// The socket asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A new device could not be made.
    #[error(transparent)]
    Manufacture(#[from] ManufactureError),
    /// The state file cannot be used.
    #[error(
        "state file {path}: {problem}. Nothing was changed; repair or restore the file, or delete it (and \
         every emulated key in it) to start with a fresh device"
    )]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        problem: state_file::Problem,
    },
}
