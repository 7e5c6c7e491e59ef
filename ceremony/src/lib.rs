//! The officers' offline tool: a spec becomes a printed script, its steps are executed and confirmed, and every one of
//! them goes into a transcript that anyone can check years later.
//!
//! - [`plan`]: from a spec (TOML) to numbered steps, in an order that is checked.
//! - [`transcript`]: the hash-chained record; signatures over it; who could have rebuilt which key, and when.
//! - [`sheet`], [`commitment`]: a share on paper, and how it is known again without its words.
//! - [`paper`]: pages for the printer.
//! - [`pgp_words`]: digests, to be read aloud.
//! - [`cli`]: the commands.

#![forbid(unsafe_code)]

pub mod cli;
pub mod commitment;
mod moment;
pub mod paper;
pub mod pgp_words;
pub mod plan;
pub mod sheet;
pub mod transcript;

pub use moment::Moment;
