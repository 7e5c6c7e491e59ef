//! The record of a ceremony: one file, one line a thing that happened, each line with the SHA-256 of the line before.
//!
//! A line is JSON (RFC 8259) without spaces, and ends in a line feed. `previous` is the SHA-256, in hexadecimal, of the
//! line before with its line feed, and of the first line 64 zeroes, so that `sha256sum` checks the chain. The SHA-256
//! of the last line is the head. At the end every role signs the whole file with
//! `ssh-keygen -Y sign -n transcript@hsm-ceremony`.
//!
//! Nothing secret has a place in an [`Event`].

mod entry;
mod file;
pub mod lineage;
mod read;
mod signatures;

pub use entry::{Digest, Entry, Event, ShareId, SplitGroup};
pub use file::{Error as FileError, Transcript};
pub use read::{Damage, read};
pub use signatures::{Error as SignatureError, NAMESPACE, check_signatures};
