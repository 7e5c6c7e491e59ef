//! The transcript as a file that grows, durable line by line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::entry::{Digest, Entry, Event};
use super::read::{Damage, read, whole_lines};
use crate::moment::Moment;

/// The file's name in the ceremony's folder.
const NAME: &str = "transcript.jsonl";

/// Where it is written anew before it takes the other's place.
const NEW: &str = "transcript.jsonl.new";

/// A transcript that is written, by this process alone.
pub struct Transcript {
    /// The folder, locked as long as this lives.
    _folder: Flock<File>,
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
    head: Digest,
    /// Set once a write has failed: nobody knows then what is in the file.
    failed: bool,
}

impl Transcript {
    /// Begins a transcript in a folder that exists.
    ///
    /// # Errors
    /// Where there is one already, another process writes there, or it cannot be written durably.
    pub fn create(folder: &Path, time: Moment, opened: Event) -> Result<Self, Error> {
        let locked = lock(folder)?;
        let path = folder.join(NAME);
        let (file, failed) = (create(&path), |source| Error::Io {
            path: path.clone(),
            source,
        });
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(path.clone()),
            _ => failed(error),
        })?;
        locked.sync_all().map_err(failed)?;
        let mut transcript = Self {
            _folder: locked,
            path,
            file,
            entries: Vec::new(),
            head: Digest::NONE,
            failed: false,
        };
        transcript.append(time, opened)?;
        Ok(transcript)
    }

    /// Goes on with a transcript. A line whose writing was interrupted never counted: it is taken off, and a deviation
    /// says so.
    ///
    /// What was read may never have reached the disk, so it is written again, durably, before anything follows it.
    ///
    /// # Errors
    /// Where there is none, it is damaged or closed, another process writes it, or it cannot be written durably.
    pub fn resume(folder: &Path, time: Moment) -> Result<Self, Error> {
        let locked = lock(folder)?;
        let path = folder.join(NAME);
        let failed = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let bytes = fs::read(&path).map_err(failed)?;
        let (whole, torn) = whole_lines(&bytes);
        let damaged = |damage| Error::Damaged {
            path: path.clone(),
            damage,
        };
        let (entries, head) = read(whole).map_err(damaged)?;
        if entries
            .last()
            .is_some_and(|last| matches!(last.event, Event::Closed { .. }))
        {
            return Err(Error::Closed(path));
        }
        let file = write_anew(folder, whole).map_err(failed)?;
        locked.sync_all().map_err(failed)?;
        let mut transcript = Self {
            _folder: locked,
            path,
            file,
            entries,
            head,
            failed: false,
        };
        if torn > 0 {
            let text =
                format!("the writing of a line was interrupted; its {torn} bytes were taken off");
            transcript.append(
                time,
                Event::Deviation {
                    text,
                    initials: Vec::new(),
                },
            )?;
        }
        Ok(transcript)
    }

    /// Appends a line. Once this has returned, no power cut takes it away.
    ///
    /// # Errors
    /// Where it is not durable. Nothing is appended after that: the ceremony stops, and goes on with
    /// [`Self::resume`].
    pub fn append(&mut self, time: Moment, event: Event) -> Result<(), Error> {
        if self.failed {
            return Err(Error::FailedBefore(self.path.clone()));
        }
        let entry = Entry {
            number: self.entries.len() as u64,
            previous: self.head,
            time,
            event,
        };
        let line = entry
            .line()
            .ok_or_else(|| Error::FailedBefore(self.path.clone()))?;
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.failed = true;
            return Err(Error::Io {
                path: self.path.clone(),
                source,
            });
        }
        self.head = Digest::of(line.as_bytes());
        self.entries.push(entry);
        Ok(())
    }

    /// What it holds, all of it durable.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The SHA-256 of its last line.
    pub fn head(&self) -> Digest {
        self.head
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, Error> {
    let failed = |source: io::Error| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let open = File::open(folder).map_err(failed)?;
    Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => Error::Locked(folder.to_owned()),
        other => failed(other.into()),
    })
}

/// Readable by everybody on the laptop: nothing secret is in it.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
}

/// Writes the file anew beside itself, and puts it in the other's place once it is durable.
fn write_anew(folder: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = folder.join(NEW);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(NAME))?;
    Ok(file)
}

/// Why a transcript is not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one.
    #[error("{} exists: a ceremony was begun there. Go on with it, or take an empty folder for a new one", .0.display())]
    Exists(PathBuf),
    /// Another process writes there.
    #[error("another process holds the ceremony in {}: end it first", .0.display())]
    Locked(PathBuf),
    /// It is finished.
    #[error("{} is closed: nothing more can be written to it. A new ceremony takes a new folder", .0.display())]
    Closed(PathBuf),
    /// It is not as it was written.
    #[error("{}: {damage}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The disk failed.
    #[error(
        "{}: {source}. The last line is not safe on the disk, and nothing more is done: make room or repair the disk, \
         and start `run` again, which goes on where the ceremony stopped", .path.display()
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line could not be written before.
    #[error("{}: a line could not be written before. Start `run` again, which goes on where the ceremony stopped", .0.display())]
    FailedBefore(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(text: &str) -> Event {
        Event::Deviation {
            text: text.to_owned(),
            initials: Vec::new(),
        }
    }

    /// /dev/full takes no byte, as a full disk.
    #[test]
    fn on_a_full_disk_nothing_more_is_appended_and_what_was_durable_stays() {
        let folder = tempfile::tempdir().unwrap();
        let now = Moment::from_unix(0).unwrap();
        let opened = Event::Opened {
            title: "Validator".to_owned(),
            plan: Digest::NONE,
            software: Digest::NONE,
            practice: false,
        };
        let mut transcript = Transcript::create(folder.path(), now, opened).unwrap();
        transcript.append(now, deviation("one")).unwrap();
        let (disk, head) = (transcript.file.try_clone().unwrap(), transcript.head());

        transcript.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let full = transcript.append(now, deviation("two")).unwrap_err();
        assert!(matches!(full, Error::Io { .. }), "{full}");
        assert!(full.to_string().contains("No space left"), "{full}");

        // There is room again, and nobody knows what the failed write left behind.
        transcript.file = disk;
        let after = transcript.append(now, deviation("two")).unwrap_err();
        assert!(matches!(after, Error::FailedBefore(_)), "{after}");
        drop(transcript);
        let mut resumed = Transcript::resume(folder.path(), now).unwrap();
        assert_eq!((resumed.entries().len(), resumed.head()), (2, head));
        resumed.append(now, deviation("two")).unwrap();
    }
}
