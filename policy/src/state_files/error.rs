//! Why a file is refused.

use super::MAX_FILE;
use crate::cometbft::{ChainId, Position};

/// Why a file with another signer's state is refused. Nothing of it is taken then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No format's name.
    #[error("{0} is no format: it is cometbft, tmkms, horcrux or hsmd")]
    Format(String),
    /// hsmd's own format names keys and chains.
    #[error("a file of hsmd's own names its keys and chains")]
    NotForeign,
    /// The file is longer than is read.
    #[error("the file is {0} bytes long, and at most {MAX_FILE} are read")]
    TooLong(usize),
    /// No JSON, or a field that the format does not have, lacks, or has otherwise.
    #[error("the file is not as {format} writes it: {reason}. Is it another signer's?")]
    Shape {
        /// The format's name.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A number that the field cannot have.
    #[error("the file's {field} is {value}: it must be {rule}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What may.
        rule: &'static str,
    },
    /// Sign bytes that CometBFT does not make.
    #[error(
        "the file's sign bytes are those of no vote and no proposal: the file is damaged or was edited"
    )]
    SignBytes,
    /// The file contradicts itself.
    #[error(
        "the file says {file}, and the sign bytes in it are of {sign_bytes}: it is damaged or was edited, or \
         another signer's"
    )]
    Position {
        /// What its fields say.
        file: Position,
        /// What was signed.
        sign_bytes: Position,
    },
    /// The file is of another chain.
    #[error("the sign bytes in the file are of chain {found}, not {expected}")]
    Chain {
        /// The chain asked for.
        expected: ChainId,
        /// What was signed.
        found: ChainId,
    },
}
