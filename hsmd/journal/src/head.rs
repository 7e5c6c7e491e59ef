//! The head: a small file that names the newest segment, and where a journal that was closed ends.
//!
//! Without it a newest segment that is gone, and an end that is gone, would look like a journal that ended
//! earlier.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::disk::{Disk, Operation};
use crate::error::{Error, Fault};
use crate::note::{hash, number, to_base64};
use crate::segment;
use crate::tree::Hash;

const NAME: &str = "head";
/// The next one in preparation. Nothing in it counts.
const NEXT: &str = "head.tmp";
const TITLE: &str = "hsm-journal head v1";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The newest segment that was begun; 0 while the journal is being created.
    pub(crate) segment: u64,
    /// Where it ends; none while a process writes it, or after one that did not stop cleanly.
    pub(crate) end: Option<End>,
}

/// The end of a segment that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Where its last frame ends.
    pub(crate) offset: u64,
    /// That frame's digest.
    pub(crate) last: Hash,
}

impl Head {
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join(NAME)
    }

    /// Reads it. One that is missing or changed says that somebody was at the directory.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        let path = Self::path(directory);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = "it is missing, and nothing else says which segment is the newest";
                return Err(Error::damaged(&path, 0, reason));
            }
            read => read.map_err(Error::io("read", &path))?,
        };
        let head = std::str::from_utf8(&text).ok().and_then(Self::parse);
        head.ok_or_else(|| Error::damaged(&path, 0, "it does not verify"))
    }

    /// Whether the file is a head, or the beginning of one, left by a creation that did not get to a segment.
    pub(crate) fn is_of_nothing(path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        match name {
            Some(NEXT) => true,
            Some(NAME) => {
                fs::read(path).is_ok_and(|text| text == Self::default().text().as_bytes())
            }
            _ => false,
        }
    }

    /// Makes it durable.
    pub(crate) fn write(&self, disk: &Disk, directory: &Path) -> Result<(), Fault> {
        let (path, next) = (Self::path(directory), directory.join(NEXT));
        match disk.remove(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Fault::at("remove", &next)(error));
            }
            _ => {}
        }
        let file = disk.create(&next).map_err(Fault::at("create", &next))?;
        let text = self.text();
        disk.write(Operation::Write, &file, text.as_bytes(), 0)
            .map_err(Fault::at("write", &next))?;
        disk.flush(Operation::Flush, &file)
            .map_err(Fault::at("flush", &next))?;
        disk.rename(&next, &path)
            .map_err(Fault::at("name", &path))?;
        disk.flush_directory(directory)
            .map_err(Fault::at("flush", directory))
    }

    /// Whether segment `newest`, the highest that is there, can be the newest.
    pub(crate) fn check_newest(&self, directory: &Path, newest: u64) -> Result<(), Error> {
        if newest >= self.segment {
            return Ok(());
        }
        let path = segment::path(directory, self.segment);
        Err(Error::damaged(
            &path,
            0,
            "it was begun, and no such file is there, nor any newer one",
        ))
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\nsegment {}\n", self.segment);
        if let Some(End { offset, last }) = &self.end {
            text += &format!("end {offset} {}\n", to_base64(last));
        }
        let digest = digest(&text);
        text + &format!("sha256 {digest}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, _) = text.split_once("sha256 ")?;
        let mut lines = body.strip_prefix(TITLE)?.strip_prefix('\n')?.lines();
        let segment = number(lines.next()?.strip_prefix("segment ")?)?;
        let end = match lines.next() {
            None => None,
            Some(line) => {
                let (offset, last) = line.strip_prefix("end ")?.split_once(' ')?;
                Some(End {
                    offset: number(offset)?,
                    last: hash(last)?,
                })
            }
        };
        // Whatever it holds besides, and a digest that is not right, make another text.
        Some(Self { segment, end }).filter(|head| head.text() == text)
    }
}

fn digest(text: &str) -> String {
    to_base64(&Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_nothing_has_these_bytes() {
        let text =
            "hsm-journal head v1\nsegment 0\nsha256 svJzgBOFoshJJUV6wVcWmthfHWiTBDEfT4sEWXhjSiU=\n";
        assert_eq!(Head::default().text(), text);
    }

    #[test]
    fn a_head_has_the_documented_text_and_any_changed_byte_is_found() {
        let end = End {
            offset: 81_920,
            last: [3; 32],
        };
        for end in [None, Some(end)] {
            let head = Head { segment: 7, end };
            let text = head.text();
            assert!(
                text.starts_with("hsm-journal head v1\nsegment 7\n"),
                "{text}"
            );
            assert_eq!(Head::parse(&text).as_ref(), Some(&head));
            for place in 0..text.len() {
                for bit in 0..8 {
                    let mut bytes = text.clone().into_bytes();
                    bytes[place] ^= 1 << bit;
                    let changed = String::from_utf8(bytes).ok();
                    assert_eq!(changed.and_then(|text| Head::parse(&text)), None);
                }
                assert_eq!(Head::parse(&text[..place]), None);
            }
        }
    }
}
