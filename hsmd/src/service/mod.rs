//! The gRPC services: `Signer` for sentries over mutual TLS, `Admin` for operators on a UNIX socket.

mod admin;
pub mod admin_socket;
pub(crate) mod documents;
mod signer;

pub use admin::{About, AdminService};
pub use signer::SignerService;
pub(crate) use signer::peer;
