//! `hsm-ceremony transcript`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hsm_policy::officers::Officers;

use super::{Failure, read, read_text};
use crate::moment::Moment;
use crate::pgp_words;
use crate::transcript::lineage::lineage;
use crate::transcript::{self, Digest, Entry, Event, check_signatures};

/// No ceremony's record comes near it.
const LONGEST: u64 = 256 << 20;

/// No file of signatures or of roles does.
const LONGEST_TEXT: u64 = 64 << 10;

/// What is done with a transcript.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Checks every byte of it, and the signatures of the roles.
    Verify(Verify),
    /// Prints it for people.
    Show {
        /// The transcript.
        transcript: PathBuf,
    },
    /// Answers: who could have rebuilt a generation's wrap key at a moment?
    Lineage(LineageOf),
}

/// What `verify` takes.
#[derive(Args)]
pub(super) struct Verify {
    /// The transcript.
    transcript: PathBuf,
    /// The roles, one a line as in OpenSSH's allowed_signers: a name and a public key. All of them must have signed.
    #[arg(long, requires = "signature")]
    roles: Option<PathBuf>,
    /// A signature of a role, made with `ssh-keygen -Y sign -n transcript@hsm-ceremony`; once for each.
    #[arg(long, requires = "roles")]
    signature: Vec<PathBuf>,
}

/// What `lineage` takes.
#[derive(Args)]
pub(super) struct LineageOf {
    /// The transcripts of all ceremonies of these devices, in their order.
    #[arg(required = true)]
    transcripts: Vec<PathBuf>,
    /// The generation of the wrap key.
    #[arg(long)]
    generation: u32,
    /// The moment, in UTC, such as 2026-11-25T20:00:00Z. Now, where it is left out.
    #[arg(long)]
    at: Option<Moment>,
}

pub(super) fn run(command: &Command) -> Result<String, Failure> {
    match command {
        Command::Verify(arguments) => verify(arguments),
        Command::Show { transcript } => Ok(show(&entries(transcript)?.0)),
        Command::Lineage(arguments) => {
            let at = arguments
                .at
                .or_else(Moment::now)
                .ok_or("the clock stands before 1970: give --at")?;
            let mut all: Vec<Entry> = Vec::new();
            for path in &arguments.transcripts {
                all.extend(entries(path)?.0);
            }
            Ok(lineage(&all, arguments.generation, at).to_string())
        }
    }
}

fn entries(path: &Path) -> Result<(Vec<Entry>, Digest), Failure> {
    let bytes = read(path, LONGEST)?;
    transcript::read(&bytes).map_err(|damage| format!("{}: {damage}", path.display()))
}

fn verify(arguments: &Verify) -> Result<String, Failure> {
    let path = &arguments.transcript;
    let (entries, head) = entries(path)?;
    let mut said = String::new();
    if practice(&entries) {
        said.push_str("PRACTICE: nothing in this transcript is real\n");
    }
    let closed = entries
        .last()
        .is_some_and(|last| matches!(last.event, Event::Closed { .. }));
    let state = if closed {
        "closed"
    } else {
        "NOT CLOSED: the ceremony is not finished"
    };
    let _ = writeln!(
        said,
        "{} lines, each of them in its place; {state}",
        entries.len()
    );
    let _ = writeln!(said, "head, to be compared with what was read aloud:");
    for line in pgp_words::lines(&head.0) {
        let _ = writeln!(said, "  {line}");
    }
    let Some(roles) = &arguments.roles else {
        said.push_str("NOT CHECKED: who signed it. Give --roles and every --signature\n");
        return Ok(said);
    };
    let failed =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = read_text(roles, LONGEST_TEXT)?;
    let count = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .count();
    let officers = Officers::parse(&text, count).map_err(|error| failed(roles, &error))?;
    let signatures = arguments
        .signature
        .iter()
        .map(|path| read_text(path, LONGEST_TEXT));
    let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
    let bytes = read(path, LONGEST)?;
    let (signers, signed) =
        check_signatures(&bytes, &signatures, &officers).map_err(|error| failed(path, &error))?;
    if signed != head {
        return Err(format!(
            "{}: it changed while it was read. Check it again",
            path.display()
        ));
    }
    let _ = writeln!(said, "signed by every role: {}", signers.join(", "));
    Ok(said)
}

fn practice(entries: &[Entry]) -> bool {
    entries
        .iter()
        .any(|entry| matches!(entry.event, Event::Opened { practice: true, .. }))
}

fn show(entries: &[Entry]) -> String {
    let mark = if practice(entries) { "PRACTICE  " } else { "" };
    let mut said = String::new();
    for entry in entries {
        let _ = writeln!(
            said,
            "{mark}{:>5}  {}  {}",
            entry.number, entry.time, entry.event
        );
    }
    said
}
