//! Every operation that changes the disk, in one place, so that tests can make each of them fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The disk as the journal uses it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) plan: crate::tests::faults::Plan,
}

/// Which operation is being done. Only tests tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    /// Preallocation: writing zeros, and flushing them.
    Zero,
    FlushZeros,
    /// Frames.
    Write,
    Flush,
    Rename,
    FlushDirectory,
    Remove,
}

impl Disk {
    /// A new file that only its owner may read.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.run(Operation::Create, || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write(
        &self,
        operation: Operation,
        file: &File,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        #[cfg(test)]
        self.plan.about_to_write(operation, file, bytes, offset)?;
        self.run(operation, || file.write_all_at(bytes, offset))
    }

    /// `fdatasync`: contents, and the metadata that reading them needs.
    pub(crate) fn flush(&self, operation: Operation, file: &File) -> io::Result<()> {
        self.run(operation, || file.sync_data())
    }

    /// Gives a file its final name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Rename, || fs::rename(from, to))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn flush_directory(&self, directory: &Path) -> io::Result<()> {
        self.run(Operation::FlushDirectory, || {
            File::open(directory)?.sync_all()
        })
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::Remove, || fs::remove_file(path))
    }

    #[cfg(not(test))]
    fn run<T>(&self, _: Operation, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        work()
    }

    #[cfg(test)]
    fn run<T>(&self, operation: Operation, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.plan.run(operation, work)
    }
}
