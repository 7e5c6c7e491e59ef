//! The administration socket: a UNIX socket, and who may use it.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hsm_proto::v1::enrol_admin_server::EnrolAdminServer;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::UnixListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use super::AdminService;

/// Opens the socket, for its owner and its group. One that a server left behind is replaced.
///
/// # Errors
/// Where something else is at that path, or a running server listens there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("this is no socket: name another path"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::other("a running hsm-enroll listens here")),
            Err(_) => std::fs::remove_file(path)?,
        },
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves root, the server's own user, and the members of the socket's group, until `done`.
pub async fn serve(listener: UnixListener, service: AdminService, done: impl Future<Output = ()>) {
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
            "user {user} may not administer hsm-enroll: root, its own user and its socket's group may"
        )))
    };
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let served = Server::builder()
        .add_service(InterceptedService::new(
            EnrolAdminServer::new(service),
            admit,
        ))
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
