//! The command line of hsm-sentry.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hsm_sentry::config::{Config, LogFormat};
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
    /// Check the configuration and the files that it names, and print what would run.
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
    eprintln!("hsm-sentry: {failure}");
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
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn check(file: &std::path::Path, json: bool) -> Result<(), Failure> {
    let checked = Config::load(file)
        .map_err(Failure::from)
        .and_then(|config| {
            let identity = Identity::load(&config.tls)?;
            if identity.is_expired() {
                let file = config.tls.certificate.display();
                return Err(format!("{file}: the certificate is expired\n    -> renew it").into());
            }
            Ok((config, identity))
        });
    match checked {
        Ok((config, identity)) if json => {
            println!("{}", report(&config, &identity));
            Ok(())
        }
        Ok((config, identity)) => {
            print_report(&config, &identity);
            Ok(())
        }
        Err(failure) => {
            if json {
                println!(
                    "{}",
                    serde_json::json!({ "ok": false, "error": failure.to_string() })
                );
            }
            Err(failure)
        }
    }
}

fn report(config: &Config, identity: &Identity) -> serde_json::Value {
    let chains = config.chains.iter().map(|chain| {
        serde_json::json!({
            "chain_id": chain.chain_id,
            "cometbft": chain.line.to_string(),
            "node": chain.node.to_string(),
            "key": chain.key,
            "deadline_ms": chain.deadline.as_millis(),
            "signer": chain.signer.address,
            "server_name": chain.signer.server_name.to_str(),
        })
    });
    serde_json::json!({
        "ok": true,
        "config": config.file,
        "caller": identity.uri,
        "certificate_not_after": identity.not_after,
        "metrics": config.metrics,
        "chains": chains.collect::<Vec<_>>(),
    })
}

fn print_report(config: &Config, identity: &Identity) {
    println!("{}: good", config.file.display());
    println!("hsmd knows this sentry as {}", identity.uri);
    for chain in &config.chains {
        println!(
            "{}: node {} (CometBFT {}) signs with key {:?} of hsmd at {} ({}), deadline {} ms",
            chain.chain_id,
            chain.node,
            chain.line,
            chain.key,
            chain.signer.address,
            chain.signer.server_name.to_str(),
            chain.deadline.as_millis(),
        );
    }
}
