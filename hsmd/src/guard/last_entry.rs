//! The last entry that a reply relied on, in a file that no disk image holds: on a tmpfs, such as `/run`.
//!
//! It is written before each reply. After a crash within one boot, a journal that contains this entry holds all
//! that was signed. The file is four lines of fixed length: [`MAGIC`], the boot id, the entry's index in 20
//! decimal digits, and the entry's RFC 6962 leaf hash in hex.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use hsm_journal::Hash;

use crate::sync::Mutex;

/// The first line.
const MAGIC: &str = "hsmd last entry v1";

/// The file, held open and locked by the one process that signs.
pub struct LastEntry {
    file: File,
    boot_id: String,
    /// The index that stands in the file.
    written: Mutex<Option<u64>>,
}

impl LastEntry {
    /// Over a file that is locked and lies on a tmpfs. `boot_id`: of the running kernel.
    #[must_use]
    pub fn new(file: File, boot_id: String) -> Self {
        Self {
            file,
            boot_id,
            written: Mutex::new(None),
        }
    }

    /// The entry that the file names, where an earlier process wrote it within this boot.
    #[must_use]
    pub fn read(&self) -> Option<(u64, Hash)> {
        let mut bytes = vec![0; text(&self.boot_id, 0, &[0; 32]).len()];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()? != MAGIC || lines.next()? != self.boot_id {
            return None;
        }
        let index = lines.next()?.parse().ok()?;
        let hash = hex::decode(lines.next()?).ok()?;
        Some((index, hash.try_into().ok()?))
    }

    /// Writes an entry down, unless a later one stands there: a journal that contains that one contains this one.
    ///
    /// # Errors
    ///
    /// Where it does not stand there: then no reply may rely on the entry.
    pub fn write(&self, index: u64, leaf: &Hash) -> io::Result<()> {
        let poisoned = |_| io::Error::other("a thread panicked while it wrote");
        let mut written = self.written.lock().map_err(poisoned)?;
        if written.is_some_and(|written| written >= index) {
            return Ok(());
        }
        let text = text(&self.boot_id, index, leaf);
        self.file.write_all_at(text.as_bytes(), 0)?;
        *written = Some(index);
        Ok(())
    }
}

fn text(boot_id: &str, index: u64, leaf: &Hash) -> String {
    format!("{MAGIC}\n{boot_id}\n{index:020}\n{}\n", hex::encode(leaf))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(file: &File, boot_id: &str) -> LastEntry {
        LastEntry::new(file.try_clone().unwrap(), boot_id.to_owned())
    }

    #[test]
    fn the_latest_entry_of_this_boot_is_read_back() {
        let file = tempfile::tempfile().unwrap();
        let last = over(&file, "this-boot");
        assert_eq!(last.read(), None);
        last.write(7, &[7; 32]).unwrap();
        last.write(5, &[5; 32]).unwrap();
        assert_eq!(over(&file, "this-boot").read(), Some((7, [7; 32])));
        last.write(8, &[8; 32]).unwrap();
        assert_eq!(over(&file, "this-boot").read(), Some((8, [8; 32])));
        assert_eq!(over(&file, "next-boot").read(), None);
    }

    #[test]
    fn a_file_that_was_torn_names_no_entry() {
        for cut in 0..80 {
            let file = tempfile::tempfile().unwrap();
            over(&file, "this-boot").write(7, &[7; 32]).unwrap();
            file.set_len(cut).unwrap();
            assert_eq!(over(&file, "this-boot").read(), None, "{cut} bytes");
        }
    }
}
