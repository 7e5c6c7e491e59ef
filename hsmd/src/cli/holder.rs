//! Who holds the state: the running daemon or, where none runs, its files.

use hsm_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use super::{Configured, Error, admin};
use crate::guard::Guard;
use crate::{daemon, hardening};

/// The state's holder. The journal's lock keeps the two apart.
pub(super) enum Holder {
    /// The running daemon.
    Daemon(AdminClient<Channel>),
    /// Nobody: the journal was opened, and is to be closed.
    Files(Box<Guard>),
}

/// Finds the daemon, or opens the journal.
///
/// # Errors
///
/// Where the socket may not be used, or the journal cannot be opened.
pub(super) async fn find(configured: &Configured, allow_root: bool) -> Result<Holder, Error> {
    let config = configured.load_to_look()?;
    if let Some(client) = admin::find(&config.admin_socket).await? {
        return Ok(Holder::Daemon(client));
    }
    hardening::refuse_root(allow_root)?;
    hardening::harden()?;
    let guard = daemon::open_guard(&config)?;
    Ok(Holder::Files(Box::new(guard)))
}
