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
    /// Checks every byte of a closed transcript, and the signatures of the roles. Ends with 1 where it is not closed.
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
    #[arg(long, requires = "signature", required_unless_present = "unsigned")]
    roles: Option<PathBuf>,
    /// A signature of a role, made with `ssh-keygen -Y sign -n transcript@hsm-ceremony`; once for each.
    #[arg(long, requires = "roles")]
    signature: Vec<PathBuf>,
    /// Check no signatures. Whoever wrote the file may have made it all up: compare the head with what was read aloud.
    #[arg(long, conflicts_with = "roles")]
    unsigned: bool,
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
    /// The moment, in UTC, such as 2026-11-25T20:00:00Z. After all that was written down, where it is left out.
    #[arg(long)]
    at: Option<Moment>,
}

pub(super) fn run(command: &Command) -> Result<String, Failure> {
    match command {
        Command::Verify(arguments) => verify(arguments),
        Command::Show { transcript } => Ok(show(&entries(transcript)?.0)),
        Command::Lineage(arguments) => {
            let (mut said, all) = together(&arguments.transcripts)?;
            // Not the clock's now: a laptop's may have been ahead, and what it handed out counts.
            let last = all.iter().map(|entry| entry.time).max();
            let at = arguments.at.or(last).ok_or("nothing was written down")?;
            let _ = write!(said, "{}", lineage(&all, arguments.generation, at));
            Ok(said)
        }
    }
}

/// The entries of several transcripts, and what somebody who relies on them has to know.
fn together(paths: &[PathBuf]) -> Result<(String, Vec<Entry>), Failure> {
    let mut said = String::new();
    let mut all: Vec<Entry> = Vec::new();
    let mut practised = 0;
    for path in paths {
        let name = path.display();
        let entries = entries(path)?.0;
        if !is_closed(&entries) {
            let _ = writeln!(
                said,
                "{name}: NOT CLOSED: the ceremony is not finished, or the file was cut"
            );
        }
        practised += usize::from(practice(&entries));
        if let Some(early) = all
            .iter()
            .chain(&entries)
            .zip(all.iter().chain(&entries).skip(1))
            .find_map(|(before, after)| (after.time < before.time).then_some(after))
        {
            let (number, time) = (early.number, early.time);
            let _ = writeln!(
                said,
                "{name}: a clock was wrong, or the order is: line {number}, {time}, is earlier than the one before it"
            );
        }
        all.extend(entries);
    }
    match practised {
        0 => {}
        count if count == paths.len() => {
            said.push_str("PRACTICE: nothing in these transcripts is real\n");
        }
        _ => return Err("transcripts of practice among others: leave them out".to_owned()),
    }
    Ok((said, all))
}

fn is_closed(entries: &[Entry]) -> bool {
    entries
        .last()
        .is_some_and(|last| matches!(last.event, Event::Closed { .. }))
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
    if !is_closed(&entries) {
        return Err(format!(
            "{}: {} lines, each of them in its place, and NOT CLOSED: the ceremony is not finished, or the file was cut",
            path.display(),
            entries.len()
        ));
    }
    let _ = writeln!(
        said,
        "{} lines, each of them in its place; closed",
        entries.len()
    );
    let _ = writeln!(said, "head, to be compared with what was read aloud:");
    for line in pgp_words::lines(&head.0) {
        let _ = writeln!(said, "  {line}");
    }
    let Some(roles) = &arguments.roles else {
        said.push_str("UNSIGNED: nobody vouches for it, as far as this was checked\n");
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
