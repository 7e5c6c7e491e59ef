//! `yubihsm-emulator`: a YubiHSM2 behind a connector's HTTP interface, for tests.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use yubihsm_emulator::{
    EMULATOR_SERIALS, Emulator, Fault, Firmware, Latency, Settings, parse_firmware,
};

/// A YubiHSM2 for continuous integration. PROTECTS NOTHING: keys are in memory, and in the state file, in
/// the clear. A fresh device has authentication key 1 with the password "password".
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    device: DeviceArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Change a running emulator: sends one order to its control socket and prints the answer.
    Control {
        /// The control socket of the running emulator.
        #[arg(value_name = "SOCKET")]
        socket: PathBuf,
        /// `fault FAULT` (hang, disconnect, lose-answers, lose-sessions, cut-power, refuse=CODE,
        /// corrupt-answers, spoil-signatures), `clear`, `latency PROFILE`, or `status`.
        #[arg(required = true, num_args = 1..=2, value_name = "ORDER")]
        order: Vec<String>,
    },
}

#[derive(clap::Args)]
struct DeviceArguments {
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

    /// How long commands take: none, vendor (the figures that the vendor publishes), or a list of command
    /// codes and milliseconds such as 0x6a=100,0x56=73,*=3.
    #[arg(long, default_value = "none", value_name = "PROFILE")]
    latency: Latency,

    /// A fault from the beginning: hang, disconnect, lose-answers, lose-sessions, cut-power, refuse=CODE,
    /// corrupt-answers, spoil-signatures.
    #[arg(long, value_name = "FAULT")]
    fault: Option<Fault>,

    /// Makes a UNIX socket on which `yubihsm-emulator control` changes faults and latency while this runs.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::Control { socket, order }) => control(&socket, &order.join(" ")),
        None => run(arguments.device).map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("yubihsm-emulator: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended; every change is in the state file before it is answered, so that
/// nothing remains to be done at the end.
fn run(arguments: DeviceArguments) -> Result<(), yubihsm_emulator::Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let settings = Settings {
        serial: arguments.serial,
        firmware: arguments.firmware,
        state_file: arguments.state_file,
        latency: arguments.latency,
        fault: arguments.fault,
        control: arguments.control,
        ..Settings::default()
    };
    let _emulator = Emulator::start(settings, arguments.listen)?;
    loop {
        std::thread::park();
    }
}

/// Sends an order to a running emulator.
fn control(socket: &Path, order: &str) -> Result<(), String> {
    let failed = |error| format!("control socket {}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream
        .write_all(format!("{order}\n").as_bytes())
        .map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(failed)?;
    match answer.trim_end().strip_prefix("error: ") {
        Some(problem) => Err(problem.to_owned()),
        None => {
            print!("{answer}");
            Ok(())
        }
    }
}

fn firmware(text: &str) -> Result<Firmware, &'static str> {
    parse_firmware(text).ok_or("wants three numbers up to 255, such as 2.4.1")
}
