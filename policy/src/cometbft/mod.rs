//! CometBFT's votes and proposals, and their canonical sign bytes, which are the same from 0.34 to 1.0.
//!
//! A value of these types is well formed: whatever the wire said was checked when it was made.

mod fields;
mod kinds;
mod message;
#[cfg(test)]
mod oracle;
mod position;
mod read;
mod sign_bytes;

pub use fields::{BlockId, ChainId, Timestamp};
pub use kinds::{Kind, Kinds};
pub use message::{Message, Proposal, Vote};
pub use position::{Height, Position, Round, Step, VoteType};
pub use read::resembles_a_message;

use crate::quoted;

/// Why a message cannot be made of what the caller sent. The fault is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is out of its range.
    #[error("{field} is {value}; it must be {rule}")]
    Field {
        /// The field's name in hsm.v1, with a dot before a nested one.
        field: &'static str,
        /// What the caller sent; of binary fields only the length.
        value: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// An extension came with a prevote or a nil precommit. A CometBFT node stops when it receives a
    /// signature for one.
    #[error(
        "the {vote} carries an extension; only a precommit for a block may: send it without one"
    )]
    ExtensionNotAllowed {
        /// "prevote" or "nil precommit".
        vote: &'static str,
    },
}

impl Error {
    fn field(field: &'static str, value: impl ToString, rule: &'static str) -> Self {
        Error::Field {
            field,
            value: value.to_string(),
            rule,
        }
    }
}
