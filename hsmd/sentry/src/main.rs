//! The command line of hsm-sentry.

use std::fmt::Arguments as Text;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hsm_sentry::config::{Config, LogFormat};
use hsm_sentry::survey::{Standing, survey};
use hsm_sentry::tls::Identity;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Lets a stock CometBFT node sign through hsmd.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the configured chains until SIGTERM.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Run even as root.
        #[arg(long)]
        allow_root: bool,
    },
    /// Check the configuration and the files that it names, ask each signer whether it would be used, and print
    /// what would run. A signer that is not reached is no error; one that would not be used is.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What a person is told before the program ends with exit code 1.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, allow_root } => run(&config, allow_root),
        Command::Check { config, json } => check(&config, json),
    }
    .map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn failed(failure: Failure) -> ExitCode {
    // Where nobody reads it, the exit code says the same.
    let _ = writeln!(io::stderr(), "hsm-sentry: {failure}");
    ExitCode::FAILURE
}

fn run(file: &std::path::Path, allow_root: bool) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() && !allow_root {
        return Err(
            "runs as root, which it has no need of\n    -> start it as a user of its own \
                    (systemd/hsm-sentry.service does), or give --allow-root"
                .into(),
        );
    }
    // The process holds the TLS private key: no core dumps, no debugger.
    nix::sys::prctl::set_dumpable(false)?;
    let config = Config::load(file)?;
    log(config.log);
    // A vote is a few microseconds of work between sockets: a second thread would only have to be woken.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        hsm_sentry::run(config, shutdown)
            .await
            .map_err(Failure::from)
    })
}

/// To stderr; `RUST_LOG` changes what is logged.
fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written would be reported on stderr too, and that panics.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn check(file: &std::path::Path, json: bool) -> Result<(), Failure> {
    let checked = surveyed(file);
    if let (Err(failure), true) = (&checked, json) {
        let refused = serde_json::json!({ "ok": false, "error": failure.to_string() });
        say(format_args!("{refused}"))?;
    }
    let (config, identity, standings) = checked?;
    if json {
        let report = report(&config, &identity, &standings);
        say(format_args!("{report}"))?;
    } else {
        print_report(&config, &identity, &standings)?;
    }
    match unused(&standings) {
        0 => Ok(()),
        count => Err(format!(
            "{count} of the signers would not be used\n    -> see the table for the reasons"
        )
        .into()),
    }
}

/// For each chain and each of its signers.
type Standings = Vec<Vec<Standing>>;

fn surveyed(file: &std::path::Path) -> Result<(Config, Identity, Standings), Failure> {
    let config = Config::load(file)?;
    let identity = Identity::load(&config.tls)?;
    if identity.is_expired() {
        let file = config.tls.certificate.display();
        return Err(format!("{file}: the certificate is expired\n    -> renew it").into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let standings = runtime.block_on(survey(&config, &identity));
    Ok((config, identity, standings))
}

fn unused(standings: &Standings) -> usize {
    let all = standings.iter().flatten();
    all.filter(|it| matches!(it, Standing::NotUsed(_))).count()
}

/// The standing in one word, and why it is not better.
fn described(standing: &Standing) -> (&'static str, Option<&str>) {
    match standing {
        Standing::Usable => ("usable", None),
        Standing::NotUsed(why) => ("not used", Some(why)),
        Standing::Unreached(why) => ("not reached", Some(why)),
    }
}

fn report(config: &Config, identity: &Identity, standings: &Standings) -> serde_json::Value {
    let chains = config
        .chains
        .iter()
        .zip(standings)
        .map(|(chain, standings)| {
            let signers = chain.signers.iter().zip(standings);
            let signers = signers.map(|(signer, standing)| {
                let (state, why) = described(standing);
                serde_json::json!({
                    "address": signer.address,
                    "server_name": signer.server_name.to_str(),
                    "state": state,
                    "why": why,
                })
            });
            serde_json::json!({
                "chain_id": chain.chain_id,
                "cometbft": chain.line.to_string(),
                "node": chain.node.to_string(),
                "key": chain.key,
                "deadline_ms": chain.deadline.as_millis(),
                "ledger_id": chain.ledger_id,
                "signers": signers.collect::<Vec<_>>(),
            })
        });
    serde_json::json!({
        "ok": unused(standings) == 0,
        "config": config.file,
        "caller": identity.uri,
        "certificate_not_after": identity.not_after,
        "metrics": config.metrics,
        "chains": chains.collect::<Vec<_>>(),
    })
}

fn print_report(config: &Config, identity: &Identity, standings: &Standings) -> io::Result<()> {
    say(format_args!("{}: good", config.file.display()))?;
    say(format_args!("hsmd knows this sentry as {}", identity.uri))?;
    for (chain, standings) in config.chains.iter().zip(standings) {
        say(format_args!(
            "{}: node {} (CometBFT {}) signs with key {:?}, deadline {} ms, ledger {}",
            chain.chain_id,
            chain.node,
            chain.line,
            chain.key,
            chain.deadline.as_millis(),
            chain.ledger_id.as_deref().unwrap_or("not pinned"),
        ))?;
        for (number, (signer, standing)) in (1..).zip(chain.signers.iter().zip(standings)) {
            let (state, why) = described(standing);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            say(format_args!(
                "  {number}  {:<24} {:<24} {state}{why}",
                signer.address,
                signer.server_name.to_str(),
            ))?;
        }
    }
    Ok(())
}

/// Prints a line. A reader that has seen enough (`| head`) ends the output, not the command.
fn say(line: Text<'_>) -> io::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
