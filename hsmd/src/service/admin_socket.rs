//! The administration socket: a UNIX socket, and who may use it.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hsm_proto::v1::admin_server::AdminServer;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::UnixListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use std::sync::Arc;

use super::AdminService;

/// The longest request, in bytes: a state file or a policy, and what is around it.
const LONGEST_REQUEST: usize = hsm_policy::state_files::MAX_FILE + (64 << 10);
const _: () = assert!(hsm_policy::grants::MAX_POLICY <= hsm_policy::state_files::MAX_FILE);

/// Opens the socket, for its owner and its group. One that a daemon left behind is replaced.
///
/// # Errors
///
/// Where something else is at that path, or a running daemon listens there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("this is no socket: name another path"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                return Err(io::Error::other(
                    "a running hsmd listens here: stop it first",
                ));
            }
            Err(_) => std::fs::remove_file(path)?,
        },
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves root, the daemon's own user, and the members of the socket's group, until `done`.
pub async fn serve(
    listener: UnixListener,
    service: Arc<AdminService>,
    done: impl Future<Output = ()>,
) {
    let own = Uid::effective();
    let group = listener
        .local_addr()
        .ok()
        .and_then(|address| std::fs::metadata(address.as_pathname()?).ok())
        .map(|socket| Gid::from_raw(socket.gid()));
    let admit = move |request: Request<()>| {
        let credentials = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|peer| peer.peer_cred)
            .ok_or_else(|| Status::unauthenticated("a peer without credentials"))?;
        let user = Uid::from_raw(credentials.uid());
        let peer_group = Gid::from_raw(credentials.gid());
        let member = group.is_some_and(|group| peer_group == group || belongs(user, group));
        if user.is_root() || user == own || member {
            return Ok(request);
        }
        Err(Status::permission_denied(format!(
            "user {user} may not administer hsmd: root, user {own} and group {} may",
            group.map_or_else(|| "(none)".to_owned(), |group| group.to_string())
        )))
    };
    let service = AdminServer::from_arc(service).max_decoding_message_size(LONGEST_REQUEST);
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let served = Server::builder()
        .add_service(InterceptedService::new(service, admit))
        .serve_with_incoming_shutdown(incoming, done)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the administration socket is closed");
    }
}

/// Whether the system's user database has the user in the group.
fn belongs(user: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(user) else {
        return false;
    };
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, "precious").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

        let socket = directory.path().join("admin.sock");
        let listening = bind(&socket).unwrap();
        let refused = bind(&socket).unwrap_err().to_string();
        assert!(refused.contains("running hsmd"), "{refused}");
        drop(listening);
        bind(&socket).unwrap();
        let mode = std::fs::metadata(&socket).unwrap().mode();
        assert_eq!(mode & 0o777, 0o660);
    }
}
