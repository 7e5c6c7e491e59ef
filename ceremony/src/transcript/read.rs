//! Reading a transcript: every byte counts.

use super::entry::{Digest, Entry, Event};

/// Longer lines are not read.
const LONGEST_LINE: usize = 1 << 20;

/// The entries of a whole transcript, and its head.
///
/// # Errors
/// [`Damage`]: the first line that is not as it was written, or not in its place.
pub fn read(bytes: &[u8]) -> Result<(Vec<Entry>, Digest), Damage> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut head = Digest::NONE;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let number = entries.len() + 1;
        let entry = entry(line, number)?;
        if entry.number != entries.len() as u64 || entry.previous != head {
            return Err(Damage::Chain { line: number });
        }
        if entries
            .last()
            .is_some_and(|before| matches!(before.event, Event::Closed { .. }))
        {
            return Err(Damage::AfterTheEnd { line: number });
        }
        if matches!(entry.event, Event::Opened { .. }) != entries.is_empty() {
            return Err(Damage::Opening { line: number });
        }
        head = Digest::of(line);
        entries.push(entry);
    }
    if entries.is_empty() {
        Err(Damage::Empty)
    } else {
        Ok((entries, head))
    }
}

/// The part of a transcript that ends in a line feed, and the length of what stands behind it: a line whose writing
/// was interrupted.
pub(super) fn whole_lines(bytes: &[u8]) -> (&[u8], usize) {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    let (whole, torn) = bytes.split_at(end);
    (whole, torn.len())
}

fn entry(line: &[u8], number: usize) -> Result<Entry, Damage> {
    if line.last() != Some(&b'\n') {
        return Err(Damage::Torn { line: number });
    }
    if line.len() > LONGEST_LINE {
        return Err(Damage::Line {
            line: number,
            reason: format!(
                "it has {} bytes, and at most {LONGEST_LINE} are read",
                line.len()
            ),
        });
    }
    let wrong = |reason: String| Damage::Line {
        line: number,
        reason,
    };
    let entry: Entry = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
    // One way to write an entry, so that a change that means the same is noticed in the last line too.
    if entry.line().as_deref().map(str::as_bytes) != Some(line) {
        return Err(wrong(
            "it is not written as this program writes it".to_owned(),
        ));
    }
    Ok(entry)
}

/// What is wrong with a transcript, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Nothing is there.
    #[error("the transcript is empty. Take it from the published bundle, or from another copy")]
    Empty,
    /// A line without its end.
    #[error(
        "line {line} has no end: its writing was interrupted, or the file was cut. `run` goes on after an interruption; \
         otherwise take another copy"
    )]
    Torn {
        /// Which.
        line: usize,
    },
    /// A line that is none.
    #[error("line {line} is not as it was written: {reason}. Compare it with another copy")]
    Line {
        /// Which.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line that does not follow the one before.
    #[error(
        "line {line} does not follow the line before: one of the two was changed, or lines are missing. Compare them with another copy"
    )]
    Chain {
        /// Which.
        line: usize,
    },
    /// The first line does not open a transcript, or a later one does.
    #[error(
        "line {line}: a transcript is opened in its first line, and only there. Compare it with another copy"
    )]
    Opening {
        /// Which.
        line: usize,
    },
    /// Lines behind the last one.
    #[error(
        "line {line} stands behind the line that closes the transcript. Compare it with another copy"
    )]
    AfterTheEnd {
        /// Which.
        line: usize,
    },
}
