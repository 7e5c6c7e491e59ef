//! `hsm-ceremony plan`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, read_text};
use crate::plan::{Plan, Spec};

/// No spec comes near it.
const LONGEST: u64 = 256 << 10;

/// What `plan` takes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The spec.
    spec: PathBuf,
    /// A folder, into which plan.json and script.txt are written. Files that exist are left as they are.
    #[arg(long)]
    to: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", arguments.spec.display());
    let spec =
        Spec::parse(&read_text(&arguments.spec, LONGEST)?).map_err(|error| failed(&error))?;
    let plan = Plan::new(&spec).map_err(|error| failed(&error))?;
    let json = plan.to_json().map_err(|error| failed(&error))?;
    let script = plan.script(&spec).map_err(|error| failed(&error))?;
    let (plan_path, script_path) = (
        arguments.to.join("plan.json"),
        arguments.to.join("script.txt"),
    );
    write_new(&plan_path, &json)?;
    write_new(&script_path, &script)?;
    let steps = plan.steps().count();
    Ok(format!(
        "{steps} steps: {} and {}\n",
        plan_path.display(),
        script_path.display()
    ))
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| format!("{}: {error}", path.display()))
}
