//! The officers: who they are, and how many of them must have signed a document before it counts.
//!
//! A document is TOML, bound to a deployment, a nonce and an expiry ([`Document`]). Each officer signs it with
//! `ssh-keygen -Y sign -n NAMESPACE` (OpenSSH `PROTOCOL.sshsig`), under the namespace of its kind, so that a
//! signature for one kind is worth nothing for another. [`Officers::authorise`] is the only way to an
//! [`Authorised`] statement.

mod authorise;
mod document;
mod error;
mod list;
mod statements;
#[cfg(test)]
mod tests;

pub use authorise::{Authorised, Context};
pub use document::{Document, MAX_DOCUMENT, Nonce, Statement};
pub(crate) use document::{hex, unix};
pub use error::Error;
pub use list::{MAX_OFFICERS, Officer, Officers};
pub use statements::{AcceptTail, RebindAnchor, RecoverKey, ReplaceJournal, SetOfficers, Thaw};
