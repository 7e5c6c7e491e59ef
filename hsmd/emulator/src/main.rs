//! `yubihsm-emulator`: a YubiHSM2 behind a connector's HTTP interface, for tests.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;
use yubihsm_emulator::{EMULATOR_SERIALS, Emulator, Error, Firmware, Latency, Settings};

/// A YubiHSM2 for continuous integration. PROTECTS NOTHING: keys are in memory, and in the state file, in
/// the clear. A fresh device has authentication key 1 with the password "password".
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Loopback address and port of the connector's HTTP interface; with port 0 the system chooses, and the
    /// log says which.
    #[arg(long, default_value = "127.0.0.1:12345", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Keeps the device's state in this file; made if it does not exist. Without it the state is gone at
    /// the end.
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,

    /// Serial number of the device.
    #[arg(long, default_value_t = *EMULATOR_SERIALS.start())]
    serial: u32,

    /// Version of the firmware.
    #[arg(long, default_value = "2.4.1", value_parser = firmware)]
    firmware: Firmware,

    /// How long commands take.
    #[arg(long, default_value = "none")]
    latency: LatencyProfile,
}

#[derive(Clone, Copy, ValueEnum)]
enum LatencyProfile {
    /// As fast as possible.
    None,
    /// The figures that the vendor publishes.
    Vendor,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("yubihsm-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended; every change is in the state file before it is answered, so that
/// nothing remains to be done at the end.
fn run(arguments: Arguments) -> Result<(), Error> {
    let settings = Settings {
        serial: arguments.serial,
        firmware: arguments.firmware,
        state_file: arguments.state_file,
        latency: match arguments.latency {
            LatencyProfile::None => Latency::None,
            LatencyProfile::Vendor => Latency::Vendor,
        },
        ..Settings::default()
    };
    let _emulator = Emulator::start(settings, arguments.listen)?;
    loop {
        std::thread::park();
    }
}

fn firmware(text: &str) -> Result<Firmware, String> {
    let parts: Vec<Option<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_slice() {
        [Some(major), Some(minor), Some(patch)] => Ok((*major, *minor, *patch)),
        _ => Err("wants three numbers up to 255, such as 2.4.1".to_owned()),
    }
}
