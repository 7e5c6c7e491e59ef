//! What other signers keep of what they signed, and what of it hsmd takes over and gives away.
//!
//! | format | file | steps |
//! |---|---|---|
//! | `cometbft` | `priv_validator_state.json` (CometBFT `privval/file.go`) | 1 proposal, 2 prevote, 3 precommit |
//! | `tmkms` | the chain's `state_file` (tmkms `src/chain/state.rs`, tendermint-rs `consensus::State`) | 0, 1, 2 |
//! | `horcrux` | `*_priv_validator_state.json`, `*_share_sign_state.json` (horcrux `signer/sign_state.go`) | as CometBFT |
//! | `hsmd` | what `hsmd state export` writes | by name |
//!
//! The formats of tmkms and CometBFT look alike and count steps differently, so nothing is guessed: whoever
//! imports says which it is, and a field that the format does not have is refused.

mod error;
mod foreign;
mod ours;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::cometbft::{ChainId, Message, Position};
use crate::conflict::{Imported, Last, Mark};

pub use error::Error;
pub use ours::{ExportedKey, ExportedMark, read, write};

/// The longest file that is read, in bytes: an hsmd's with many keys.
pub const MAX_FILE: usize = 8 << 20;

/// Who wrote a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CometBFT's own signer.
    Cometbft,
    /// tmkms.
    Tmkms,
    /// horcrux, a cosigner or its leader.
    Horcrux,
    /// hsmd.
    Hsmd,
}

impl Format {
    /// The name on the command line and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Cometbft => "cometbft",
            Format::Tmkms => "tmkms",
            Format::Horcrux => "horcrux",
            Format::Hsmd => "hsmd",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [
            Format::Cometbft,
            Format::Tmkms,
            Format::Horcrux,
            Format::Hsmd,
        ]
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| Error::Format(crate::quoted(name)))
    }
}

/// What a file says of one key on one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The mark.
    pub imported: Imported,
    /// Over the mark's sign bytes, as the file has it; not verified. Empty where there is none.
    pub signature: Vec<u8>,
}

impl Signed {
    /// The greatest height that it shows; 0 where it shows none.
    #[must_use]
    pub fn height(&self) -> i64 {
        let last = self.imported.last.as_ref();
        let last = last.map_or(0, |last| last.position.height.get());
        last.max(self.imported.initial_height)
    }
}

/// Reads a file of another signer, which is about one key on one chain and names neither.
///
/// # Errors
///
/// See [`Error`]: a field that the format does not have, a number out of its range, or sign bytes that say
/// something else than the file's height, round and step, or are of another chain.
pub fn read_foreign(format: Format, bytes: &[u8], chain: &ChainId) -> Result<Signed, Error> {
    if bytes.len() > MAX_FILE {
        return Err(Error::TooLong(bytes.len()));
    }
    match format {
        Format::Cometbft => foreign::cometbft(bytes, chain),
        Format::Tmkms => foreign::tmkms(bytes),
        Format::Horcrux => foreign::horcrux(bytes, chain),
        Format::Hsmd => Err(Error::NotForeign),
    }
}

/// A mark as another signer's file. `signature` is over the mark's sign bytes. The file forbids whatever the mark
/// forbids, and where the format cannot say it exactly, more.
///
/// # Errors
///
/// [`Error::NotForeign`] for hsmd's own format.
pub fn write_foreign(
    format: Format,
    mark: &Mark,
    signature: Option<&[u8]>,
) -> Result<String, Error> {
    match format {
        Format::Cometbft => Ok(foreign::to_cometbft(mark, signature)),
        Format::Tmkms => Ok(foreign::to_tmkms(mark)),
        Format::Horcrux => Ok(foreign::to_horcrux(mark, signature)),
        Format::Hsmd => Err(Error::NotForeign),
    }
}

/// Holds sign bytes against the position that a file gives them.
fn checked(position: Position, sign_bytes: Vec<u8>, chain: &ChainId) -> Result<Last, Error> {
    if sign_bytes.is_empty() {
        return Ok(unknown(position));
    }
    let message = Message::from_sign_bytes(&sign_bytes).ok_or(Error::SignBytes)?;
    if message.position() != position {
        return Err(Error::Position {
            file: position,
            sign_bytes: message.position(),
        });
    }
    if message.chain_id() != chain {
        return Err(Error::Chain {
            expected: chain.clone(),
            found: message.chain_id().clone(),
        });
    }
    Ok(Last {
        position,
        sign_bytes,
        timestamp: message.timestamp(),
        extension_sign_bytes: None,
    })
}

/// Something was signed there, and nobody knows what.
fn unknown(position: Position) -> Last {
    Last {
        position,
        sign_bytes: Vec::new(),
        timestamp: crate::cometbft::Timestamp::EPOCH,
        extension_sign_bytes: None,
    }
}
