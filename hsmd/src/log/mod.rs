//! The journal as a public log: at an interval a device signs a checkpoint of its tree, and witnesses cosign it.
//!
//! All of this is outside the line: what fails here is logged, counted and tried again, and no vote waits for it. The key
//! is none of the keyring, so no caller can reach it, and the guard refuses it where it is a consensus key.

pub mod marks;
mod store;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_device::PublicKey;
use hsm_journal::note::{self, Algorithm, Checkpoint, Note, Verifier};
use hsm_journal::witness::{self, Answer, Witness};
use hsm_journal::{Files, prove_consistency};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config;
use crate::guard::{self, Guard};
use crate::keyring::{self, Key};
use crate::line::Line;
use crate::metrics::Metrics;

pub use store::{Stored, VKEY, load};

/// How long a device may take to show its key or to sign. A checkpoint is in no hurry.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a witness may take to answer.
const WITNESS_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the device is idle.
const BUSY: Duration = Duration::from_millis(50);

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Key(#[from] keyring::Error),
    #[error(transparent)]
    Guard(#[from] guard::Error),
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    #[error(transparent)]
    Note(#[from] note::Error),
    #[error("{0} is not an Ed25519 key, as a checkpoint's has to be")]
    Algorithm(PublicKey),
    #[error("the device always has requests waiting: a checkpoint does not delay them")]
    Busy,
    #[error("a thread of ours ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// Makes checkpoints.
pub struct Log<'a> {
    settings: &'a config::Checkpoint,
    directory: &'a std::path::Path,
    key: Key,
    guard: &'a Guard,
    metrics: &'a Metrics,
    /// The size of the tree when the last one was done with, its own entries included.
    quiet: u64,
    /// What each witness cosigned last, in the configuration's order.
    known: Vec<u64>,
}

/// Makes a checkpoint every interval until `done`.
pub async fn run(
    line: Arc<Line>,
    config: (config::Checkpoint, std::path::PathBuf),
    mut done: watch::Receiver<bool>,
) {
    let (settings, directory) = &config;
    let mut log = Log::new(settings, directory, &line);
    let make = async {
        loop {
            log.attempt().await;
            tokio::time::sleep(settings.interval).await;
        }
    };
    // What is under way then has its entries: it is as after a crash.
    tokio::select! {
        _ = done.wait_for(|done| *done) => {}
        () = make => {}
    }
}

impl<'a> Log<'a> {
    /// A log over the line's guard and devices. Nothing is asked of a device yet.
    #[must_use]
    pub fn new(
        settings: &'a config::Checkpoint,
        directory: &'a std::path::Path,
        line: &'a Line,
    ) -> Self {
        let keyring = line.keyring();
        let key = keyring.apart("checkpoint", settings.locator.clone(), &settings.devices);
        Self {
            settings,
            directory,
            key,
            guard: line.guard(),
            metrics: line.metrics(),
            quiet: 0,
            known: vec![0; settings.witnesses.len()],
        }
    }

    /// Makes a checkpoint and has it witnessed, if there is anything new. Faults are logged and counted.
    pub async fn attempt(&mut self) {
        if self.guard.journal().status().entries <= self.quiet {
            return;
        }
        match self.checkpoint().await {
            Ok((note, checkpoint)) => {
                self.metrics.checkpoint(checkpoint.size, SystemTime::now());
                if let Err(error) = self.witness(note, &checkpoint).await {
                    self.failed(&error.to_string());
                }
                self.quiet = self.guard.journal().status().entries;
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn failed(&self, error: &str) {
        self.metrics.checkpoint_failure();
        tracing::warn!(
            error,
            "no checkpoint of the journal was made or witnessed; it is tried again"
        );
    }

    async fn checkpoint(&self) -> Result<(Note, Checkpoint), Error> {
        let public_key = self.key.read_public_key(deadline()).await?;
        let PublicKey::Ed25519(bytes) = public_key else {
            return Err(Error::Algorithm(public_key));
        };
        let verifier = Verifier::new(&self.settings.origin, Algorithm::Ed25519, &bytes)?;
        let known = self
            .guard
            .inspect(|state| state.makes_checkpoints(&public_key))?;
        if !known {
            tracing::warn!(%verifier, "the journal's checkpoints are made by this key from now on");
        }
        self.idle().await?;
        // The entry says that the key will be used, and what the marks are, before either is so.
        let begun = self.guard.begin_checkpoint(
            &self.settings.origin,
            &public_key,
            marks::document,
            SystemTime::now(),
        );
        let (index, document) = begun.await?;
        let status = self.guard.journal().status();
        let checkpoint = Checkpoint {
            origin: self.settings.origin.clone(),
            size: status.entries,
            root: status.root,
            extensions: vec![marks::extension(index, &document)],
        };
        let text = checkpoint.text();
        let failed = |device: &str, kind| self.metrics.device_error(device, kind);
        let signed = self
            .key
            .sign(&public_key, text.as_bytes(), deadline(), failed)
            .await?;
        let note = checkpoint.sign(&verifier, &signed.0)?;
        let made = wire::CheckpointMade {
            note: note.to_string(),
        };
        self.record(Event::CheckpointMade(made)).await?;
        self.store(&verifier, &note, &document).await?;
        Ok((note, checkpoint))
    }

    /// Waits until no request waits for the key's devices.
    async fn idle(&self) -> Result<(), Error> {
        let until = Instant::now() + self.settings.interval;
        let waiting = || {
            let devices = self.key.devices().iter();
            devices
                .map(|device| device.worker.status().waiting)
                .sum::<usize>()
        };
        while waiting() > 0 {
            if Instant::now() > until {
                return Err(Error::Busy);
            }
            tokio::time::sleep(BUSY).await;
        }
        Ok(())
    }

    /// Has every witness cosign, records and stores what they gave.
    async fn witness(&mut self, mut note: Note, checkpoint: &Checkpoint) -> Result<(), Error> {
        let settings = self.settings;
        let mut cosigned = 0;
        for (witness, known) in settings.witnesses.iter().zip(&mut self.known) {
            match cosign(self.directory, witness, known, &mut note, checkpoint).await {
                Ok(()) => cosigned += 1,
                Err(error) => tracing::warn!(%error, "a witness did not cosign"),
            }
        }
        self.metrics.checkpoint_witnesses(cosigned, settings.quorum);
        if cosigned == 0 {
            return Ok(());
        }
        let event = wire::CheckpointCosigned {
            note: note.to_string(),
            witnesses: u32::try_from(cosigned).unwrap_or(u32::MAX),
        };
        self.record(Event::CheckpointCosigned(event)).await?;
        let (directory, text) = (self.directory.to_owned(), note);
        tokio::task::spawn_blocking(move || store::replace_checkpoint(&directory, &text)).await??;
        if cosigned < settings.quorum {
            let quorum = settings.quorum;
            tracing::warn!(
                cosigned,
                quorum,
                "too few witnesses cosigned the checkpoint"
            );
        }
        Ok(())
    }

    async fn record(&self, event: Event) -> Result<(), guard::Error> {
        self.guard.record_durably(event, SystemTime::now()).await
    }

    async fn store(&self, verifier: &Verifier, note: &Note, document: &str) -> Result<(), Error> {
        let directory = self.directory.to_owned();
        let stored = Stored {
            verifier: verifier.clone(),
            note: note.clone(),
            marks: document.to_owned(),
        };
        let store = move || stored.store(&directory);
        Ok(tokio::task::spawn_blocking(store).await??)
    }
}

/// Has one witness cosign. It says itself from where on it wants the proof.
async fn cosign(
    directory: &std::path::Path,
    witness: &Witness,
    known: &mut u64,
    note: &mut Note,
    checkpoint: &Checkpoint,
) -> Result<(), Unwitnessed> {
    for _ in 0..2 {
        let (old, new) = (*known, checkpoint.size);
        let mut proof = Vec::new();
        if old > new {
            return Err(Unwitnessed::Ahead { old, new });
        }
        if old > 0 && old < new {
            let directory = directory.to_owned();
            let prove = move || {
                let files = Files::new(&directory, None)?;
                prove_consistency(&files, old, new)
            };
            proof = tokio::task::spawn_blocking(prove).await??.hashes;
        }
        match witness
            .add_checkpoint(old, &proof, note, WITNESS_PATIENCE)
            .await?
        {
            Answer::Cosigned => {
                *known = new;
                return Ok(());
            }
            Answer::Knows(size) => *known = size,
        }
    }
    Err(Unwitnessed::Undecided)
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
enum Unwitnessed {
    #[error(transparent)]
    Witness(#[from] witness::Error),
    #[error(transparent)]
    Journal(#[from] hsm_journal::Error),
    #[error("a thread of ours ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
    #[error(
        "ALARM: the witness cosigned a tree of {old} entries, and this journal has {new}: it was put back to an \
         older state, or another one uses its origin and key"
    )]
    Ahead {
        /// The witness's size.
        old: u64,
        /// Ours.
        new: u64,
    },
    #[error("the witness names one size and then another")]
    Undecided,
}

fn deadline() -> Instant {
    Instant::now() + DEVICE_PATIENCE
}
