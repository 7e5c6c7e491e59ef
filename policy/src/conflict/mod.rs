//! What conflicts with what was signed before, for one key on one chain.
//!
//! The order is CometBFT's: height, then round, then step. Only later positions are signed. At the last
//! position the answer given first is given again where the request is the same message, though its
//! timestamp may differ; a vote extension may be signed anew, since two of them are no offence.

mod merge;
mod shared;
#[cfg(test)]
mod tests;

use crate::cometbft::{Message, Position, Timestamp};

pub use merge::{Imported, Outcome, merge};

/// The high-water mark of a key on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// From `hsmd key init`: nothing at or below this height is signed. At least 0.
    pub initial_height: i64,
    /// The message reserved last; None while there is none.
    pub last: Option<Last>,
}

impl Mark {
    /// The greater of the last height signed and the initial one: where a jump is measured from.
    #[must_use]
    pub fn height(&self) -> i64 {
        let last = self
            .last
            .as_ref()
            .map_or(0, |last| last.position.height.get());
        last.max(self.initial_height)
    }
}

/// The message that was reserved last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// Where it belongs.
    pub position: Position,
    /// Its canonical sign bytes with their length prefix. Empty where they are not known: then nothing
    /// at this position is signed.
    pub sign_bytes: Vec<u8>,
    /// The timestamp within [`sign_bytes`](Self::sign_bytes).
    pub timestamp: Timestamp,
    /// The canonical sign bytes of the extension reserved with it, if any.
    pub extension_sign_bytes: Option<Vec<u8>>,
}

/// What to do with a message that conflicts with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A later position: reserve it, then sign it.
    Sign,
    /// The same message, though perhaps with another timestamp: the answer given first, which is the
    /// mark's sign bytes and timestamp and, where an extension was asked for, the mark's extension.
    Repeat,
    /// The same precommit with another extension, or with one where none was signed: the vote's answer
    /// given first, and the new extension signed, after an entry of its own.
    ExtensionAnew,
}

/// Why a message must not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The position is the last one, and the message another.
    #[error(
        "refused a double sign: another message was signed or reserved at {position}. If two nodes run \
         with this key, stop one; the journal shows both messages"
    )]
    DoubleSign {
        /// Of both messages.
        position: Position,
    },
    /// The position is earlier than the last one.
    #[error(
        "refused a regression: {asked} lies before {last}, which was signed or reserved last. Let the \
         node catch up; if two nodes run with this key, stop one"
    )]
    Regression {
        /// Of the message asked for.
        asked: Position,
        /// Of the message reserved last.
        last: Position,
    },
    /// The height is not above the one given to `hsmd key init`.
    #[error(
        "height {height} is not above {initial_height}, the height given to `hsmd key init`, at or below \
         which nothing is signed. Let the node catch up"
    )]
    AtOrBelowInitial {
        /// Of the message asked for.
        height: i64,
        /// Of the mark.
        initial_height: i64,
    },
    /// The height lies further above the last one than the grant allows. Once signed, it would forbid
    /// every height below it: a single wrong request could stop the validator.
    #[error(
        "height {height} lies {jump} above {from}, the last known, and the grant's max_height_jump is \
         {max_height_jump}: signing it would forbid every height below. If the chain is there, move the \
         mark with `hsmd key advance`"
    )]
    HeightJump {
        /// Of the message asked for.
        height: i64,
        /// The height signed last, or the initial one where none was signed.
        from: i64,
        /// How far `height` lies above `from`.
        jump: u64,
        /// The grant's limit.
        max_height_jump: u64,
    },
}

/// Compares `message`, which must be of the mark's key and chain, with `mark`. A height more than
/// `max_height_jump` above the last one is refused.
pub fn judge(mark: &Mark, message: &Message, max_height_jump: u64) -> Result<Verdict, Conflict> {
    let asked = message.position();
    let height = asked.height.get();
    if height <= mark.initial_height {
        return Err(Conflict::AtOrBelowInitial {
            height,
            initial_height: mark.initial_height,
        });
    }
    let Some(last) = &mark.last else {
        return within_jump(height, mark.initial_height, max_height_jump);
    };
    if asked < last.position {
        return Err(Conflict::Regression {
            asked,
            last: last.position,
        });
    }
    if asked == last.position {
        return judge_again(last, message);
    }
    within_jump(
        height,
        last.position.height.get().max(mark.initial_height),
        max_height_jump,
    )
}

fn within_jump(height: i64, from: i64, max_height_jump: u64) -> Result<Verdict, Conflict> {
    let jump = height.abs_diff(from);
    if jump > max_height_jump {
        return Err(Conflict::HeightJump {
            height,
            from,
            jump,
            max_height_jump,
        });
    }
    Ok(Verdict::Sign)
}

fn judge_again(last: &Last, message: &Message) -> Result<Verdict, Conflict> {
    if message.sign_bytes_at(last.timestamp) != last.sign_bytes {
        return Err(Conflict::DoubleSign {
            position: last.position,
        });
    }
    match message.extension_sign_bytes() {
        Some(asked) if last.extension_sign_bytes.as_ref() != Some(&asked) => {
            Ok(Verdict::ExtensionAnew)
        }
        _ => Ok(Verdict::Repeat),
    }
}
