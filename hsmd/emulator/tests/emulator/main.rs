//! The emulator over HTTP, through the yubihsm crate as it is and through bare sockets.

// The lint configuration lets tests panic, but not the functions that they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod client;
mod connector;
mod control;
mod faults;
mod state_file;
mod wrap;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use yubihsm::{Client, Connector, Credentials, HttpConfig};
use yubihsm_emulator::{Clock, Emulator, Settings};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port of the system's choice.
fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn start() -> Emulator {
    Emulator::start(Settings::default(), any_port()).unwrap()
}

fn connector(emulator: &Emulator) -> Connector {
    Connector::http(&HttpConfig {
        addr: emulator.address().ip().to_string(),
        port: emulator.address().port(),
        ..HttpConfig::default()
    })
}

fn open(
    emulator: &Emulator,
    key_id: u16,
    password: &[u8],
) -> Result<Client, yubihsm::client::Error> {
    Client::open(
        connector(emulator),
        Credentials::from_password(key_id, password),
        false,
    )
}

fn admin(emulator: &Emulator) -> Client {
    open(emulator, 1, b"password").unwrap()
}

/// A clock that stands still until it is told to go on.
#[derive(Clone, Default)]
struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    fn clock(&self) -> Clock {
        let milliseconds = Arc::clone(&self.0);
        Clock::new(move || Duration::from_millis(milliseconds.load(Ordering::SeqCst)))
    }

    fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}
