//! The commands. Exit code 0: done; 1: refused or failed; 2: usage.

mod plan;
mod transcript;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The officers' offline tool for key ceremonies.
#[derive(Parser)]
#[command(name = "hsm-ceremony", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From a spec, the plan and its script.
    Plan(plan::Arguments),
    /// Checks, shows or searches a ceremony's record.
    #[command(subcommand)]
    Transcript(transcript::Command),
}

/// What a command says when it fails: a text for people.
type Failure = String;

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Transcript(command) => transcript::run(&command),
    };
    match done {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("hsm-ceremony: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A file's bytes, of which there may be so many.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > most {
        return Err(format!(
            "{}: {length} bytes, and at most {most} are read",
            path.display()
        ));
    }
    fs::read(path).map_err(failed)
}

fn read_text(path: &Path, most: u64) -> Result<String, Failure> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| format!("{}: it is no UTF-8 text", path.display()))
}
