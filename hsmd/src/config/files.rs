//! Whether a file that the configuration names can be used.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Why a file cannot be used, and what to do.
pub(crate) struct FileFault {
    pub(crate) fault: String,
    pub(crate) remedy: String,
}

/// The file exists, is a regular file and can be read by this process.
pub(super) fn readable(path: &Path) -> Result<(), FileFault> {
    open(path).map(drop)
}

/// As [`readable`], and nobody but its owner and root can read or change it.
pub(crate) fn private(path: &Path) -> Result<(), FileFault> {
    let metadata = open(path)?;
    let excess = metadata.mode() & if is_credential(path) { 0o007 } else { 0o077 };
    if excess == 0 {
        return Ok(());
    }
    Err(FileFault {
        fault: format!(
            "holds a secret, but its mode {:04o} opens it to group or others",
            metadata.mode() & 0o7777
        ),
        remedy: format!("chmod 0600 {}", path.display()),
    })
}

/// Whether the file is a systemd credential and this process is not the service, which alone can see it.
pub(crate) fn is_elsewhere(path: &Path) -> bool {
    path.starts_with("/run/credentials") && std::env::var_os(CREDENTIALS).is_none()
}

/// systemd gives a credential to the service's user by an access control list, which the group bits of
/// the mode then stand for; the directory is closed to everybody else.
fn is_credential(path: &Path) -> bool {
    std::env::var_os(CREDENTIALS)
        .is_some_and(|directory| !directory.is_empty() && path.starts_with(directory))
}

fn open(path: &Path) -> Result<std::fs::Metadata, FileFault> {
    // The type is asked before the file is opened: opening a FIFO waits for its other end.
    let metadata = std::fs::metadata(path).and_then(|metadata| {
        if metadata.is_file() {
            File::open(path)?;
        }
        Ok(metadata)
    });
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(metadata),
        Ok(_) => Err(FileFault {
            fault: "is not a regular file".to_owned(),
            remedy: "name a file".to_owned(),
        }),
        Err(error) => Err(FileFault {
            fault: format!("cannot be read: {error}"),
            remedy: "create it, or correct the path (relative paths begin at the configuration's \
                     directory), and let hsmd's user read it"
                .to_owned(),
        }),
    }
}
