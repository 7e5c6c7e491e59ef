//! Who is at the other end: TLS 1.3 with client certificates, and nothing else.
//!
//! A [`Listener`] turns TCP connections into [`Connection`]s whose client has proved, during the
//! handshake, that it holds a key certified by our CA. Each carries its [`Peer`]: the caller that the
//! certificate names, and from when to when it does. Whether it does so *now* is asked at each request,
//! because a connection can outlive the certificate that opened it. [`Certificates`] are our own files,
//! re-read when they change.

mod certificates;
mod connection;
mod listener;
mod peer;
mod revoked;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use certificates::Certificates;
pub use connection::Connection;
pub use listener::Listener;
pub use peer::{IdentityError, Peer};
pub use revoked::Revoked;

/// Why nobody can connect. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate, key or CA file cannot be used.
    #[error("{key} {}: {fault}", path.display())]
    File {
        /// The file's key in the configuration, such as `listen.certificate`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        fault: String,
    },
    /// The address cannot be listened on.
    #[error(
        "listen.address {address}: {error}; is another hsmd running, or the address another host's?"
    )]
    Bind {
        /// The address as configured.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}
