//! `hsm-ceremony plan`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, read_text};
use crate::paper::Paper;
use crate::plan::{Plan, Spec};

/// No spec comes near it.
const LONGEST: u64 = 256 << 10;

/// What `plan` takes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The spec.
    spec: PathBuf,
    /// A folder, into which plan.json, script.txt and script.pdf are written. Files that exist are left as they are.
    #[arg(long)]
    to: PathBuf,
    /// The paper of script.pdf: a4 or letter.
    #[arg(long, default_value = "a4")]
    paper: Paper,
}

pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", arguments.spec.display());
    let spec =
        Spec::parse(&read_text(&arguments.spec, LONGEST)?).map_err(|error| failed(&error))?;
    let plan = Plan::new(&spec).map_err(|error| failed(&error))?;
    let json = plan.to_json().map_err(|error| failed(&error))?;
    let script = plan.script(&spec).map_err(|error| failed(&error))?;
    let printed = plan.printed_script(&spec, arguments.paper);
    let printed = printed.map_err(|error| failed(&error))?;
    let files: [(&str, &[u8]); 3] = [
        ("plan.json", json.as_bytes()),
        ("script.txt", script.as_bytes()),
        ("script.pdf", &printed),
    ];
    for (name, bytes) in files {
        write_new(&arguments.to.join(name), bytes)?;
    }
    let (steps, to) = (plan.steps().count(), arguments.to.display());
    Ok(format!(
        "{steps} steps: plan.json, script.txt and script.pdf in {to}\n"
    ))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    written.map_err(|error| format!("{}: {error}", path.display()))
}
