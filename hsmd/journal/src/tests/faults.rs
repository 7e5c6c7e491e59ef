//! Makes chosen operations on the disk fail, in the ways in which disks fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

pub(crate) use crate::disk::Operation;

/// How an operation fails. `EIO` in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing happened. A failed flush undoes what was last written.
    Lost,
    /// Half of it happened; only of writes.
    Short,
    /// All of it happened although it said no.
    Persisted,
}

/// Fails the operation of this kind that comes as the `nth` (from 0), and the `times - 1` after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) operation: Operation,
    pub(crate) nth: usize,
    pub(crate) times: usize,
    pub(crate) mode: Mode,
}

#[derive(Clone, Default)]
pub(crate) struct Plan(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    injections: Vec<Injection>,
    done: Vec<Operation>,
    failed: usize,
    /// The place that was last written, with what was there before.
    last_write: Option<(File, u64, Vec<u8>)>,
}

impl Plan {
    pub(crate) fn inject(&self, injection: Injection) {
        self.0.lock().unwrap().injections.push(injection);
    }

    /// All operations so far, in order.
    pub(crate) fn done(&self) -> Vec<Operation> {
        self.0.lock().unwrap().done.clone()
    }

    /// How many operations of this kind there were.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.0
            .lock()
            .unwrap()
            .done
            .iter()
            .filter(|done| **done == operation)
            .count()
    }

    /// How many operations were made to fail.
    pub(crate) fn failed(&self) -> usize {
        self.0.lock().unwrap().failed
    }

    pub(crate) fn about_to_write(
        &self,
        operation: Operation,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if operation == Operation::Write {
            let mut before = vec![0; bytes.len()];
            // Whatever lies behind the end of the file was zero, in effect.
            let _ = file.read_at(&mut before, offset);
            state.last_write = Some((file.try_clone()?, offset, before));
        }
        if state.mode(operation) == Some(Mode::Short) {
            file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
        }
        Ok(())
    }

    pub(crate) fn run<T>(
        &self,
        operation: Operation,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        let mode = state.mode(operation);
        state.done.push(operation);
        state.failed += usize::from(mode.is_some());
        let lost = state
            .last_write
            .take_if(|_| mode == Some(Mode::Lost) && operation == Operation::Flush);
        drop(state);
        if let Some((file, offset, before)) = lost {
            file.write_all_at(&before, offset)?;
        }
        match mode {
            None => return work(),
            Some(Mode::Persisted) => drop(work()?),
            Some(Mode::Lost | Mode::Short) => {}
        }
        Err(io::Error::from_raw_os_error(5))
    }
}

impl State {
    /// How the next operation of this kind is to fail.
    fn mode(&self, operation: Operation) -> Option<Mode> {
        let nth = self.done.iter().filter(|done| **done == operation).count();
        let due = |injection: &&Injection| {
            injection.operation == operation
                && (injection.nth..injection.nth + injection.times).contains(&nth)
        };
        self.injections
            .iter()
            .find(due)
            .map(|injection| injection.mode)
    }
}
