//! A disk for tests: it fails as disks fail, ends as a killed process ends, and loses power.
//!
//! The files are real, and hold what the kernel would hold in its page cache. What has reached the disk
//! is kept beside them, in `platter`. No flush goes to the real disk, so thousands of crashes cost
//! seconds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "only tests switch this on, and they fail by panicking"
)]

mod platter;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::Disk;
pub use crate::disk::Operation;
use crate::open::{Opened, Options, open_on};
use crate::{Error, State};
use platter::Platter;

/// `EIO`.
pub const INPUT_OUTPUT: i32 = 5;
/// `ENOSPC`.
pub const NO_SPACE: i32 = 28;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing happened. A failed flush drops what was last written from the page cache, too; some of it
    /// may have reached the disk.
    Lost,
    /// A write did half of its work; everything else, nothing.
    Short,
    /// All of it happened although it said no.
    Persisted,
    /// A failed flush as Linux has it: the page cache goes on showing what was written, and no later
    /// flush writes it. Everything else as [`Mode::Lost`].
    Forgotten,
}

/// All the ways.
pub const MODES: [Mode; 4] = [Mode::Lost, Mode::Short, Mode::Persisted, Mode::Forgotten];

/// Operations that fail.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// Of which kind; `None` for all.
    pub operation: Option<Operation>,
    /// The first that fails, counted from 0 among those of its kind.
    pub nth: usize,
    /// How many in succession.
    pub times: usize,
    /// How.
    pub mode: Mode,
    /// With which `errno`.
    pub error: i32,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Simulation(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    injections: Vec<Injection>,
    done: Vec<Operation>,
    failed: usize,
    /// Operations from this one on find no process that makes them.
    end: Option<usize>,
    /// Flushes of these kinds say yes and do nothing.
    ignored: Vec<Operation>,
    /// The place that was last written, with what was there before.
    last_write: Option<(File, u64, Vec<u8>)>,
    platter: Platter,
}

impl Simulation {
    /// A disk on which all files of this directory are durable.
    ///
    /// # Panics
    ///
    /// If they cannot be read.
    #[must_use]
    pub fn over(directory: &Path) -> Self {
        let simulation = Self::default();
        simulation.inner().platter = Platter::of(directory);
        simulation
    }

    /// [`crate::open`] on this disk.
    ///
    /// # Errors
    ///
    /// As [`crate::open`].
    pub fn open<S: State>(&self, directory: &Path, options: Options) -> Result<Opened<S>, Error> {
        open_on(Disk::from(self), directory, options, |_| Ok(()))
    }

    /// Has operations fail.
    pub fn inject(&self, injection: Injection) {
        self.inner().injections.push(injection);
    }

    /// The process is killed when it begins the `operations`th operation from now, from 0: a write is
    /// half done, anything else not at all, and whatever the process tries afterwards does nothing.
    pub fn kill_after(&self, operations: usize) {
        let mut inner = self.inner();
        inner.end = Some(inner.done.len() + operations);
    }

    /// Whether [`Simulation::kill_after`] has come true.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.inner().is_over()
    }

    /// Another process may use the disk.
    pub fn revive(&self) {
        self.inner().end = None;
    }

    /// Flushes of this kind say that all went well and do nothing, as in a program that forgot them; or
    /// do again what they say.
    pub fn ignore(&self, operation: Operation, ignored: bool) {
        let mut inner = self.inner();
        inner.ignored.retain(|other| *other != operation);
        if ignored {
            inner.ignored.push(operation);
        }
    }

    /// All operations so far, in order.
    #[must_use]
    pub fn done(&self) -> Vec<Operation> {
        self.inner().done.clone()
    }

    /// How many operations of this kind there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        let inner = self.inner();
        inner.done.iter().filter(|done| **done == operation).count()
    }

    /// How many operations were made to fail.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.inner().failed
    }

    /// The power fails: writes what is left of the files into the empty directory `to`. All that was
    /// flushed is there. Of what was not, each sector of 512 bytes, each file's length and each name is
    /// one that it had since, as `below` chooses: given `n`, it yields a number below `n`.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    pub fn cut_power(&self, to: &Path, below: impl FnMut(usize) -> usize) {
        self.inner().platter.survive(to, below);
    }

    pub(crate) fn create(
        &self,
        path: &Path,
        work: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<File> {
        self.run(Operation::Create, |inner| {
            let file = work()?;
            inner.platter.created(path, &file);
            Ok(file)
        })
    }

    pub(crate) fn write(
        &self,
        operation: Operation,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let mut inner = self.inner();
        if operation == Operation::Write {
            let mut before = vec![0; bytes.len()];
            // Whatever lies behind the end of the file was zero, in effect.
            let _ = file.read_at(&mut before, offset);
            inner.last_write = Some((file.try_clone()?, offset, before));
        }
        let outcome = inner.begin(operation);
        let length = match outcome {
            Ok(()) | Err((Mode::Persisted, _)) => bytes.len(),
            Err((Mode::Short, _)) => bytes.len() / 2,
            Err((Mode::Lost | Mode::Forgotten, _)) => 0,
        };
        file.write_all_at(&bytes[..length], offset)?;
        inner.platter.wrote(file, offset, length);
        refuse(outcome)
    }

    pub(crate) fn flush(&self, operation: Operation, file: &File) -> io::Result<()> {
        let mut inner = self.inner();
        let outcome = inner.begin(operation);
        if inner.ignored.contains(&operation) {
            return refuse(outcome);
        }
        match outcome {
            Ok(()) | Err((Mode::Persisted, _)) => inner.platter.flushed(file),
            Err(_) if inner.is_over() => {}
            Err((mode, _)) => {
                inner.platter.flush_failed(file);
                let last = inner.last_write.take();
                if let Some((file, offset, before)) =
                    last.filter(|_| mode != Mode::Forgotten && operation == Operation::Flush)
                {
                    file.write_all_at(&before, offset)?;
                }
            }
        }
        refuse(outcome)
    }

    pub(crate) fn rename(
        &self,
        from: &Path,
        to: &Path,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.run(Operation::Rename, |inner| {
            work()?;
            inner.platter.renamed(from, to);
            Ok(())
        })
    }

    pub(crate) fn flush_directory(&self, directory: &Path) -> io::Result<()> {
        self.run(Operation::FlushDirectory, |inner| {
            File::open(directory)?;
            if !inner.ignored.contains(&Operation::FlushDirectory) {
                inner.platter.flushed_names();
            }
            Ok(())
        })
    }

    pub(crate) fn trim(
        &self,
        file: &File,
        length: u64,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.run(Operation::Trim, |inner| {
            work()?;
            inner.platter.trimmed(file, length);
            Ok(())
        })
    }

    pub(crate) fn remove(
        &self,
        path: &Path,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.run(Operation::Remove, |inner| {
            work()?;
            inner.platter.removed(path);
            Ok(())
        })
    }

    /// An operation that happens whole or not at all.
    fn run<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.inner();
        match inner.begin(operation) {
            Ok(()) => work(&mut inner),
            Err((mode, error)) => {
                if mode == Mode::Persisted {
                    work(&mut inner)?;
                }
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

fn refuse(outcome: Result<(), (Mode, i32)>) -> io::Result<()> {
    outcome.map_err(|(_, error)| io::Error::from_raw_os_error(error))
}

impl Inner {
    /// Counts an operation; an error says how it is to fail.
    fn begin(&mut self, operation: Operation) -> Result<(), (Mode, i32)> {
        let of_kind = self.done.iter().filter(|done| **done == operation).count();
        let overall = self.done.len();
        self.done.push(operation);
        if let Some(end) = self.end.filter(|end| *end <= overall) {
            let mode = if end == overall {
                Mode::Short
            } else {
                Mode::Lost
            };
            return Err((mode, INPUT_OUTPUT));
        }
        let due = |injection: &&Injection| {
            let place = match injection.operation {
                None => overall,
                Some(kind) if kind == operation => of_kind,
                Some(_) => return false,
            };
            (injection.nth..injection.nth + injection.times).contains(&place)
        };
        let Some(injection) = self.injections.iter().find(due) else {
            return Ok(());
        };
        self.failed += 1;
        Err((injection.mode, injection.error))
    }

    /// Whether the process was killed.
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end < self.done.len())
    }
}
