//! The gRPC services: over mutual TLS `Signer` for sentries, `RemoteAdmin` for operators and `JournalReader` for
//! auditors; `Admin` on a UNIX socket.

mod admin;
pub mod admin_socket;
pub(crate) mod documents;
mod failure;
mod remote;
mod signer;
mod status;

pub use admin::{About, AdminService};
pub use remote::{JournalReaderService, RemoteAdminService};
pub use signer::SignerService;
pub(crate) use signer::peer;
