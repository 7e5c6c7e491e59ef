//! The last checkpoint beside the journal, or in an exported log: the files `checkpoint`, `vkey` and `marks-INDEX`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use hsm_journal::note::{Note, Verifier};
use hsm_journal::{CHECKPOINT, Error, replace_file};

use super::marks;

/// The file of the log's verifier key.
pub const VKEY: &str = "vkey";
/// How the marks document's file is called, before the index of the entry that it is of.
const MARKS: &str = "marks-";

/// A checkpoint and what belongs to it.
pub struct Stored {
    /// The log's key, as the directory has it: whoever wants to be sure has it from elsewhere.
    pub verifier: Verifier,
    /// The note.
    pub note: Note,
    /// The marks document.
    pub marks: String,
}

impl Stored {
    /// Stores it. Durable on return; cut short, the one before is still whole.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn store(&self, directory: &Path) -> Result<(), Error> {
        self.store_aside(directory)?;
        replace_checkpoint(directory, &self.note)?;
        self.tidy(directory)
    }

    /// Stores all but the checkpoint, beside what belongs to the one before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn store_aside(&self, directory: &Path) -> Result<(), Error> {
        let vkey = format!("{}\n", self.verifier);
        replace_file(&directory.join(VKEY), vkey.as_bytes())?;
        replace_file(&directory.join(self.marks_name()), self.marks.as_bytes())
    }

    /// Removes the marks of other checkpoints.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn tidy(&self, directory: &Path) -> Result<(), Error> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        for file in fs::read_dir(directory).map_err(failed("list", directory))? {
            let name = file.map_err(failed("list", directory))?.file_name();
            let other = |name: &str| name.starts_with(MARKS) && name != self.marks_name();
            if name.to_str().is_some_and(other) {
                let path = directory.join(&name);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The name of the marks' file.
    #[must_use]
    pub fn marks_name(&self) -> String {
        marks_name(&self.note)
    }
}

fn marks_name(note: &Note) -> String {
    format!("{MARKS}{}", marks::before(note).unwrap_or_default())
}

/// Stores the same checkpoint with more cosignatures.
pub(super) fn replace_checkpoint(directory: &Path, note: &Note) -> Result<(), Error> {
    replace_file(&directory.join(CHECKPOINT), note.to_string().as_bytes())
}

/// What is stored in this directory; none where no checkpoint was made yet. Nothing is verified.
///
/// # Errors
///
/// A sentence for people.
pub fn load(directory: &Path) -> Result<Option<Stored>, String> {
    let (path, read) = read_file(directory, CHECKPOINT);
    if matches!(&read, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let note = read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let note = Note::from_str(&note).map_err(|error| format!("{}: {error}", path.display()))?;
    let there = |name: &str| {
        let (path, read) = read_file(directory, name);
        read.map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let vkey = there(VKEY)?;
    let line = vkey.strip_suffix('\n').unwrap_or_default();
    let verifier = Verifier::from_str(line)
        .map_err(|error| format!("{}: {error}", directory.join(VKEY).display()))?;
    let marks = there(&marks_name(&note))?;
    Ok(Some(Stored {
        verifier,
        note,
        marks,
    }))
}

fn read_file(directory: &Path, name: &str) -> (PathBuf, io::Result<String>) {
    let path = directory.join(name);
    let read = fs::read_to_string(&path);
    (path, read)
}
