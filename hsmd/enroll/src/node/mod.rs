//! The node's side: joining once, and renewing for as long as it lives.
//!
//! Everything lies in one folder. A certificate stands behind its private key in one file, so that both change with one
//! rename: whoever reads the file has a pair that fits.
//!
//! | file | |
//! |---|---|
//! | `node.toml` | who the node is, and where hsm-enroll is |
//! | `ca.pem` | the root, as it was pinned |
//! | `issuer.pem` | the certificate of the key that issues, and signs lists of revocations |
//! | `grant.pem` | the granting certificate and its key |
//! | `client.pem`, `server.pem` | what the role has |
//! | `assigned.toml` | which assigned files are here, and their version; the files stand beside it |

mod files;
mod folder;
mod join;
mod link;
mod renew;

pub use folder::{Folder, Settings};
pub use join::{Invitation, join};
pub use link::Server;
pub use renew::{Outcome, renew, run};

/// What a node keeps in its folder for itself: no assigned file has such a name.
pub const OWN_FILES: [&str; 7] = [
    folder::SETTINGS,
    folder::CA,
    folder::ISSUER,
    folder::GRANT,
    folder::CLIENT,
    folder::SERVER,
    files::ASSIGNED,
];

/// Whether a file of this name can be assigned: one that neither leaves the folder nor replaces what a node keeps there.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    hsm_policy::identity::is_name(name)
        && name.len() <= 64
        && !name.starts_with('.')
        && !OWN_FILES.contains(&name)
}

/// Why a node did not get what it wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// hsm-enroll refuses.
    #[error("hsm-enroll refuses: {0}")]
    Refused(String),
    /// It does not answer, or not as it should.
    #[error("hsm-enroll at {server}: {fault}")]
    Server {
        /// Where it is.
        server: String,
        /// What happened.
        fault: String,
    },
    /// A file of the folder.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// What hsm-enroll sent is not what was asked for.
    #[error("hsm-enroll sent what cannot be used: {0}")]
    Answer(String),
    /// A key could not be made.
    #[error("no key was made: {0}")]
    Key(#[from] rcgen::Error),
}
