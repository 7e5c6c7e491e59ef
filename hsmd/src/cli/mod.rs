//! The command line of `hsmd`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

#[macro_use]
mod out;
mod admin;
mod check;
#[cfg(feature = "mock")]
mod dev;
mod doctor;
mod evidence;
mod freeze;
mod holder;
mod journal;
mod key;
mod ledger;
mod policy;
mod run;
mod show;
mod state;
mod status;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, MockDevices};

/// A failed command: a sentence for people.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Signs for validators with keys in an HSM, and never twice.
#[derive(Parser)]
#[command(name = "hsmd", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve sentries, in the foreground, until SIGTERM or SIGINT.
    Run(run::Arguments),
    /// Make a development set-up with a mock HSM in one directory, and serve. Protects nothing.
    #[cfg(feature = "mock")]
    Dev(dev::Arguments),
    /// Check the configuration and the policy, and print who may have what signed.
    Check(check::Arguments),
    /// How the running daemon, its devices and its journal are.
    Status(Printed),
    /// What is in order with the running daemon, its devices, keys and journal, and what is not. The exit code is 1
    /// where there is a problem; warnings do not count.
    Doctor(doctor::Arguments),
    /// Make keys known, and show them.
    #[command(subcommand)]
    Key(key::Command),
    /// Create the state of a new deployment, show the marks, take them from other signers, ask officers.
    #[command(subcommand)]
    State(state::Command),
    /// Marks that several signers share, through etcd.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Have a key, or every key, sign nothing from now on. Whoever operates may do it; officers end it.
    Freeze(freeze::Freeze),
    /// End a freeze, by a document that enough officers signed.
    Thaw(freeze::Thaw),
    /// Who may have what signed: read, compared, explained, and loaded when officers signed it.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Read the journal.
    #[command(subcommand)]
    Journal(journal::Command),
}

/// Where the configuration is.
#[derive(Args)]
struct Configured {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/hsmd/hsmd.toml")]
    config: PathBuf,
    /// Accept mock devices in the configuration. They protect nothing. Commands that only look always do.
    #[arg(long)]
    mock: bool,
}

/// A command that prints.
#[derive(Args)]
struct Printed {
    #[command(flatten)]
    configured: Configured,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Configured {
    /// Reads and checks the configuration for a command that serves or changes something.
    fn load(&self) -> Result<Config, Error> {
        let mock = if self.mock {
            MockDevices::Allowed
        } else {
            MockDevices::Refused
        };
        Ok(Config::load(&self.config, mock)?)
    }

    /// Reads the configuration for a command that only looks, whatever its devices are.
    fn load_to_look(&self) -> Result<Config, Error> {
        Ok(Config::load_to_look(&self.config)?)
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it, the exit code says the same.
            let _ = writeln!(std::io::stderr(), "hsmd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        #[cfg(feature = "mock")]
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(printed) => status::run(&printed),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Key(command) => key::run(&command),
        Command::State(command) => state::run(&command),
        Command::Ledger(command) => ledger::run(&command),
        Command::Freeze(arguments) => freeze::freeze(&arguments),
        Command::Thaw(arguments) => freeze::thaw(&arguments),
        Command::Policy(command) => policy::run(&command),
        Command::Journal(command) => journal::run(&command),
    }
}

/// A small runtime, for commands that ask one question.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
