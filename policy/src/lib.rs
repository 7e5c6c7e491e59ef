//! Pure decisions: who may have what signed, what conflicts with what, sign bytes per chain.
//!
//! Nothing here opens a file or a socket, reads a clock or waits: everything that a decision rests on is
//! an argument. The modules in the order in which a request meets them:
//!
//! - [`identity`]: the caller, from the URI in its certificate.
//! - [`revocation`]: whether that certificate was revoked since it was issued.
//! - [`cometbft`]: a vote or a proposal in checked types, and the bytes that are signed for it.
//! - [`grants`]: the policy document, and whether it permits the message.
//! - [`conflict`]: whether the message conflicts with what was signed before.
//!
//! Beside them, for what only people may decide:
//!
//! - [`officers`]: who they are, and whether enough of them signed a document.
//!
//! And for keys that come from another signer, or go to one:
//!
//! - [`state_files`]: what it kept of what it signed.

#![forbid(unsafe_code)]

pub mod cometbft;
pub mod conflict;
pub mod grants;
pub mod identity;
pub mod officers;
pub mod revocation;
pub mod state_files;

/// Text from outside as an error shows it: quoted, escaped, and cut where it is long.
fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    match text.char_indices().nth(SHOWN_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => {
            let start = text.get(..end).unwrap_or_default();
            format!("{start:?}... ({} bytes)", text.len())
        }
    }
}
