//! SLIP-39: a secret of 128 to 256 bits is split into shares, each a line of words, and any threshold of them combines
//! to it again.
//!
//! Source: SLIP-0039, <https://github.com/satoshilabs/slips/blob/master/slip-0039.md>. Any other implementation of it
//! recovers what this one split, and the other way round.
//!
//! Nothing here opens a file, reads a clock or draws a random number: the randomness is an argument. Arithmetic on
//! secrets takes the same time whatever they are. What is secret cannot be printed, copied or serialised, and is wiped
//! when it is dropped.
//!
//! A share is checked alone, without the others: [`Share::parse`] says which word is wrong, or which part of the line.
//! It never corrects one. A line that parses may still be another share than was handed out (a whole line is only as
//! good as its checksum of 30 bits); [`combine`] notices that by a digest of 32 bits, but cannot say which it was.
//! Who has to know compares each share with a commitment of it.
//!
//! One share fewer than the threshold tells nothing of the secret, but for this, which the standard's digest brings
//! with it: they show of a *guess* of the whole secret, with an error of one in 2^32, that it is wrong. Nobody guesses
//! 128 bits.

#![forbid(unsafe_code)]

mod checksum;
mod cipher;
mod combine;
mod field;
mod scheme;
mod secret;
mod share;
mod split;
mod wordlist;

pub use cipher::Passphrase;
pub use combine::{Difference, Error as CombineError, Level, combine, combine_with_passphrase};
pub use scheme::{Error as SchemeError, Group, Scheme};
pub use secret::{Secret, WrongLength};
pub use share::{Fault, Header, Share, Suspect, Words};
pub use split::{Error as SplitError, Options, split, split_with_passphrase};
