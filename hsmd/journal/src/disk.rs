//! Every operation that changes the disk, in one place, so that tests can make each of them fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[cfg(any(test, feature = "simulation"))]
use crate::simulation::Simulation;

/// The disk as the journal uses it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(any(test, feature = "simulation"))]
    simulation: Option<Simulation>,
}

/// Which operation is being done. Only tests tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, feature = "simulation")),
    expect(
        dead_code,
        unreachable_pub,
        reason = "only a simulated disk has to know"
    )
)]
pub enum Operation {
    /// A new file.
    Create,
    /// Preallocation: writing zeros.
    Zero,
    /// Preallocation: flushing them.
    FlushZeros,
    /// Writing frames.
    Write,
    /// Flushing them.
    Flush,
    /// Giving a segment its name.
    Rename,
    /// Making names durable.
    FlushDirectory,
    /// Giving back the space behind a finished segment's last frame.
    Trim,
    /// Removing a file.
    Remove,
}

impl Disk {
    /// A new file that only its owner may read.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let work = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        };
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.create(path, work);
        }
        work()
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write(
        &self,
        operation: Operation,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.write(operation, file, bytes, offset);
        }
        let _ = operation;
        file.write_all_at(bytes, offset)
    }

    /// `fdatasync`: contents, and the metadata that reading them needs.
    pub(crate) fn flush(&self, operation: Operation, file: &File) -> io::Result<()> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.flush(operation, file);
        }
        let _ = operation;
        file.sync_data()
    }

    /// Gives a file its final name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let work = || fs::rename(from, to);
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.rename(from, to, work);
        }
        work()
    }

    /// Makes the names in a directory durable.
    pub(crate) fn flush_directory(&self, directory: &Path) -> io::Result<()> {
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.flush_directory(directory);
        }
        File::open(directory)?.sync_all()
    }

    /// Cuts a file's end off.
    pub(crate) fn trim(&self, file: &File, length: u64) -> io::Result<()> {
        let work = || file.set_len(length);
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.trim(file, length, work);
        }
        work()
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let work = || fs::remove_file(path);
        #[cfg(any(test, feature = "simulation"))]
        if let Some(simulation) = &self.simulation {
            return simulation.remove(path, work);
        }
        work()
    }
}

#[cfg(any(test, feature = "simulation"))]
impl From<&Simulation> for Disk {
    fn from(simulation: &Simulation) -> Self {
        let simulation = Some(simulation.clone());
        Self { simulation }
    }
}
