//! The command line of `hsm-enroll`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

mod admin;
mod journal;
mod node;
mod serve;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, MockDevices};

/// A failed command: a sentence for people.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Admits nodes, issues their short-lived certificates, and revokes them.
#[derive(Parser)]
#[command(name = "hsm-enroll", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the register of a new deployment, and the CA's certificate, or a request for it.
    Init(serve::Init),
    /// Serve nodes and operators, in the foreground, until SIGTERM or SIGINT.
    Serve(serve::Serve),
    /// Make a one-use token that admits a node.
    Token(admin::Token),
    /// Show the registered nodes, or assign files to one.
    Nodes(admin::Nodes),
    /// Revoke what was issued until now: to one node, to one role, or to everyone.
    Revoke(admin::Revoke),
    /// Verify the register's journal, and print its entries.
    Journal(journal::Journal),
    /// On a node: trade a token for a granting certificate, and fetch everything else with it.
    Join(node::Join),
    /// On a node: renew certificates for as long as it lives.
    Renew(node::Renew),
}

/// Where the server's configuration is.
#[derive(Args)]
struct Configured {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/hsm-enroll/hsm-enroll.toml"
    )]
    config: PathBuf,
    /// Accept the mock device for the CA's key. It protects nothing.
    #[arg(long)]
    mock: bool,
}

impl Configured {
    fn load(&self) -> Result<Config, Error> {
        let mock = if self.mock {
            MockDevices::Allowed
        } else {
            MockDevices::Refused
        };
        Ok(Config::load(&self.config, mock)?)
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
            let _ = writeln!(io::stderr(), "hsm-enroll: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Init(arguments) => serve::init(&arguments),
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Token(arguments) => admin::token(&arguments),
        Command::Nodes(arguments) => admin::nodes(&arguments),
        Command::Revoke(arguments) => admin::revoke(&arguments),
        Command::Journal(arguments) => journal::run(&arguments),
        Command::Join(arguments) => node::join(&arguments),
        Command::Renew(arguments) => node::renew(&arguments),
    }
}

/// A small runtime, for commands that ask one question.
fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Prints a line. A reader that has seen enough ends the output, not the command.
fn say(text: std::fmt::Arguments<'_>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Logs to standard error.
fn start_log(level: &str, json: bool) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        // A line that cannot be written would be reported on stderr too, and that panics.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.with_target(false).init();
    }
}

/// No core dumps, no debugger, no privileges, and files for their owner only: the process holds keys.
fn harden(allow_root: bool) -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() && !allow_root {
        return Err(
            "runs as root, which it has no need of\n    -> start it as a user of its own \
                    (systemd/ has units that do), or give --allow-root"
                .into(),
        );
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// SIGTERM or SIGINT.
fn signals() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify(&[sd_notify::NotifyState::Stopping]);
    })
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// Tells systemd, where it listens, that the runtime still schedules tasks.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut half = tokio::time::interval(limit / 2);
    loop {
        half.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
