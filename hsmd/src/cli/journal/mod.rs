//! `hsmd journal`: reading, verifying, proving, exporting and pruning, from the files themselves. The daemon may be
//! running or not.

mod progress;
mod show;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use hsm_journal::note::{Checkpoint, Verifier};
use hsm_journal::{Cut, Files, Progress, Verified};
use serde_json::{Value, json};

use super::{Error, Printed};
use crate::log::{self, Stored, marks};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print every entry, oldest first; with --json one object a line. Verifies the segments on the way.
    Show(Printed),
    /// Verify every byte that counts, and the last checkpoint, offline: of the journal, or of an exported log.
    Verify(Box<Verify>),
    /// Prove that an entry is in the tree of the last checkpoint: prints a c2sp.org/tlog-proof, with --json the entry, too.
    Prove(Prove),
    /// Write the log up to the last checkpoint as C2SP tiles into a directory, which any web server can serve. What is
    /// there of an earlier export stays.
    Export(Export),
    /// Move old segments to an archive. What remains stays verifiable.
    Prune(Prune),
}

#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    archived: Archived,
    /// Verify this exported log. No configuration is read.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "archive")]
    exported: Option<PathBuf>,
    /// The log's verifier key, from where you trust it. Without it that beside the checkpoint is taken.
    #[arg(long, value_name = "VKEY")]
    key: Option<Verifier>,
}

#[derive(Args)]
pub(super) struct Prove {
    /// The entry's index, as `hsmd journal show` prints it.
    index: u64,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    archived: Archived,
}

#[derive(Args)]
pub(super) struct Export {
    /// Where to.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
    #[command(flatten)]
    printed: Printed,
    #[command(flatten)]
    archived: Archived,
}

#[derive(Args)]
pub(super) struct Prune {
    /// The archive.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
    /// How many of the newest segments stay, at least 2.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    keep: u32,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Args)]
struct Archived {
    /// Where `hsmd journal prune` moved earlier segments.
    #[arg(long, value_name = "DIRECTORY")]
    archive: Option<PathBuf>,
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Show(printed) => show::run(printed),
        Command::Verify(arguments) => match &arguments.exported {
            Some(directory) => verify_export(arguments, directory),
            None => verify(arguments),
        },
        Command::Prove(arguments) => prove(arguments),
        Command::Export(arguments) => export(arguments),
        Command::Prune(arguments) => prune(arguments),
    }
}

fn verify(arguments: &Verify) -> Result<(), Error> {
    let directory = arguments.printed.configured.load_to_look()?.state_dir;
    // The checkpoint first: a running hsmd only adds entries.
    let stored = log::load(&directory)?;
    let files = Files::new(&directory, arguments.archived.archive.as_deref())?;
    let checkpoint = stored
        .map(|stored| check(&stored, arguments.key.as_ref()))
        .transpose()?;
    let sizes: Vec<u64> = checkpoint
        .iter()
        .map(|checkpoint| checkpoint.size)
        .collect();
    let bytes = files.bytes()?;
    let verified = progress::show(bytes, |done: &Progress| {
        hsm_journal::verify(&files, &sizes, done)
    })?;
    if let Some(checkpoint) = &checkpoint {
        match verified.roots.get(&checkpoint.size) {
            Some(root) if *root == checkpoint.root => {}
            None if checkpoint.size < verified.first => {}
            _ => {
                return Err(format!(
                    "the checkpoint of {} entries is not one of this journal: keep both as evidence",
                    checkpoint.size
                )
                .into());
            }
        }
    }
    if arguments.printed.json {
        println!("{}", verified_json(&verified, checkpoint.as_ref()));
        return Ok(());
    }
    let (first, entries) = (verified.first, verified.entries);
    println!(
        "verified: entries {first} to {entries}, root {}",
        hex::encode(verified.root)
    );
    for cut in &verified.uncounted {
        println!("  {}", leftover(cut));
    }
    match checkpoint {
        Some(checkpoint) => println!(
            "checkpoint of {}: {} entries",
            checkpoint.origin, checkpoint.size
        ),
        None => println!(
            "no checkpoint: without [checkpoint] nobody else can know that this is the whole journal"
        ),
    }
    Ok(())
}

/// The checkpoint of what is stored, its signature and its marks checked.
fn check(stored: &Stored, key: Option<&Verifier>) -> Result<Checkpoint, Error> {
    let verifier = key.unwrap_or(&stored.verifier);
    if *verifier != stored.verifier {
        return Err(format!("the log's key is {}, not the one expected", stored.verifier).into());
    }
    let proven = marks::verify(&stored.note, verifier, &[], 0, &stored.marks)?;
    Ok(proven.checkpoint)
}

fn verify_export(arguments: &Verify, directory: &std::path::Path) -> Result<(), Error> {
    let stored = log::load(directory)?.ok_or_else(|| {
        format!(
            "{} has no checkpoint: it is not an exported log",
            directory.display()
        )
    })?;
    let expected = check(&stored, arguments.key.as_ref())?;
    let marks = stored.marks_name();
    let others = [log::VKEY, &marks];
    let checkpoint = progress::show(0, |done| {
        hsm_journal::verify_export(directory, &stored.verifier, &others, done)
    })?;
    if checkpoint != expected {
        return Err("the checkpoint changed meanwhile: verify again".into());
    }
    if arguments.printed.json {
        println!(
            "{}",
            json!({ "verified": true, "checkpoint": checkpoint_json(&checkpoint) })
        );
    } else {
        println!(
            "verified: {} entries of {}",
            checkpoint.size, checkpoint.origin
        );
    }
    Ok(())
}

fn prove(arguments: &Prove) -> Result<(), Error> {
    let directory = arguments.printed.configured.load_to_look()?.state_dir;
    let stored = stored(&directory)?;
    let checkpoint = check(&stored, None)?;
    let files = Files::new(&directory, arguments.archived.archive.as_deref())?;
    let (leaf, proof) = hsm_journal::prove_inclusion(&files, arguments.index, checkpoint.size)?;
    let text = hsm_journal::write_proof(arguments.index, &proof, &stored.note);
    // What does not hold is not printed: the checkpoint may be of another journal.
    hsm_journal::read_proof(&text, &leaf, &stored.verifier)?;
    if arguments.printed.json {
        let (vkey, entry) = (stored.verifier.to_string(), BASE64.encode(&leaf));
        let index = arguments.index;
        println!(
            "{}",
            json!({ "index": index, "entry": entry, "proof": text, "vkey": vkey })
        );
    } else {
        print!("{text}");
    }
    Ok(())
}

fn export(arguments: &Export) -> Result<(), Error> {
    let directory = arguments.printed.configured.load_to_look()?.state_dir;
    let stored = stored(&directory)?;
    let checkpoint = check(&stored, None)?;
    let files = Files::new(&directory, arguments.archived.archive.as_deref())?;
    let to = &arguments.to;
    std::fs::create_dir_all(to)
        .map_err(|error| format!("cannot create {}: {error}", to.display()))?;
    stored.store_aside(to)?;
    let exported = progress::show(checkpoint.size, |done| {
        hsm_journal::export(&files, to, &stored.note, &stored.verifier, done)
    })?;
    stored.tidy(to)?;
    let (before, size) = (exported.before, exported.size);
    if arguments.printed.json {
        println!("{}", json!({ "before": before, "size": size }));
    } else {
        println!(
            "exported: {size} entries to {}, of which {before} were there",
            to.display()
        );
    }
    Ok(())
}

fn prune(arguments: &Prune) -> Result<(), Error> {
    let directory = arguments.printed.configured.load_to_look()?.state_dir;
    let bytes = Files::new(&directory, None)?.bytes()?;
    let keep = arguments.keep as usize;
    let pruned = progress::show(bytes, |done| {
        hsm_journal::prune(&directory, &arguments.to, keep, done)
    })?;
    if arguments.printed.json {
        println!(
            "{}",
            json!({ "moved": pruned.moved, "first": pruned.first })
        );
    } else {
        println!(
            "moved {} segments to {}; the journal here begins with entry {}",
            pruned.moved.len(),
            arguments.to.display(),
            pruned.first
        );
    }
    Ok(())
}

fn stored(directory: &std::path::Path) -> Result<Stored, Error> {
    log::load(directory)?.ok_or_else(|| {
        format!(
            "{} has no checkpoint yet: write a [checkpoint] section, and let hsmd run for an interval",
            directory.display()
        )
        .into()
    })
}

fn verified_json(verified: &Verified, checkpoint: Option<&Checkpoint>) -> Value {
    let uncounted = verified.uncounted.iter().map(|cut| {
        let (segment, offset, bytes) = (cut.segment, cut.offset, cut.bytes);
        json!({ "segment": segment, "offset": offset, "bytes": bytes })
    });
    json!({
        "verified": true,
        "first": verified.first,
        "entries": verified.entries,
        "root": hex::encode(verified.root),
        "uncounted": uncounted.collect::<Vec<_>>(),
        "checkpoint": checkpoint.map(checkpoint_json),
    })
}

fn checkpoint_json(checkpoint: &Checkpoint) -> Value {
    let (origin, size) = (&checkpoint.origin, checkpoint.size);
    json!({ "origin": origin, "size": size, "root": hex::encode(checkpoint.root) })
}

fn leftover(cut: &Cut) -> String {
    format!(
        "segment {}: {} bytes from byte {} on do not count: they were torn by a crash or a fault of the disk, or \
         somebody changed the file",
        cut.segment, cut.bytes, cut.offset
    )
}
