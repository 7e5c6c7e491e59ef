//! The officers' offline tool: a spec becomes a printed script, its steps are executed and confirmed, and every one of
//! them goes into a transcript that anyone can check years later.
//!
//! - [`plan`]: from a spec (TOML) to numbered steps, in an order that is checked.
//! - [`transcript`]: the hash-chained record; signatures over it; who could have rebuilt which key, and when.
//! - [`pgp_words`]: digests, to be read aloud.
//! - [`cli`]: the commands.

#![forbid(unsafe_code)]

pub mod cli;
mod moment;
pub mod pgp_words;
pub mod plan;
pub mod transcript;

pub use moment::Moment;
