//! The client side of the administration socket.

use std::path::Path;

use hsm_proto::v1::admin_client::AdminClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Error;

/// Connects to the running daemon; `None` where none listens.
///
/// # Errors
///
/// Where the socket is there and may not be used.
pub(super) async fn find(socket: &Path) -> Result<Option<AdminClient<Channel>>, Error> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(socket).await {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
        Err(error) => {
            let hint = "run this as hsmd's user, as root, or as a member of the socket's group";
            return Err(format!("{}: {error}: {hint}", socket.display()).into());
        }
    }
    let socket = socket.to_owned();
    let channel = Endpoint::from_static("http://hsmd.invalid")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }))
        .await?;
    Ok(Some(
        AdminClient::new(channel).max_decoding_message_size(usize::MAX),
    ))
}

/// Connects to the running daemon.
///
/// # Errors
///
/// Where none runs.
pub(super) async fn connect(socket: &Path) -> Result<AdminClient<Channel>, Error> {
    find(socket).await?.ok_or_else(|| {
        let socket = socket.display();
        format!("no hsmd listens on {socket}: start it with `hsmd run`, or correct admin.socket")
            .into()
    })
}

/// A status of the daemon as a sentence.
pub(super) fn sentence(status: &tonic::Status) -> Error {
    status.message().to_owned().into()
}
