//! The gRPC server that sentries reach.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hsm_proto::v1::journal_reader_server::JournalReaderServer;
use hsm_proto::v1::remote_admin_server::RemoteAdminServer;
use hsm_proto::v1::signer_server::SignerServer;
use tonic::codegen::http;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::util::MapResponseLayer;

use super::Error;
use crate::line::{Line, Refusal};
use crate::metrics::Metrics;
use crate::service::{self, AdminService, JournalReaderService, RemoteAdminService, SignerService};
use crate::transport::Listener;

/// The longest request that is read, in bytes: twice the longest extension that hsmd takes, so that one
/// that is a little too long is refused by name.
const LONGEST_REQUEST: usize = 64 << 10;
/// The same of an operator's, in bytes: longer evidence is given on the signer's own host.
const LONGEST_ADMIN_REQUEST: usize = 256 << 10;
/// Requests at once on one connection; with [`LONGEST_REQUEST`], what it can have held in memory.
const MAX_REQUESTS: u32 = 256;
/// How long a request may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(2);

/// Serves signer, administration, journal, health and, where asked for, reflection until `done`.
pub(super) async fn serve_signer(
    listener: Listener,
    line: Arc<Line>,
    admin: Arc<AdminService>,
    health: HealthServer<impl Health>,
    reflection: bool,
    done: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (metrics, answered_within) = (line.metrics().clone(), line.deadline());
    let journal = JournalReaderService::new(line.clone(), admin.state_dir().to_owned());
    let remote = RemoteAdminServer::new(RemoteAdminService::new(admin))
        .max_decoding_message_size(LONGEST_ADMIN_REQUEST);
    let signer =
        SignerServer::new(SignerService::new(line)).max_decoding_message_size(LONGEST_REQUEST);
    let reflection = reflection.then(|| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(hsm_proto::v1::DESCRIPTORS)
            .build_v1()
    });
    let reflection = reflection.transpose().unwrap_or_else(|error| {
        tracing::error!(%error, "the reflection service is off");
        None
    });
    Server::builder()
        .max_concurrent_streams(MAX_REQUESTS)
        .timeout(ARRIVAL + answered_within)
        .layer(MapResponseLayer::new(move |answer| {
            explain_unreadable(&metrics, answer)
        }))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(signer)
        .add_service(remote)
        .add_service(JournalReaderServer::new(journal))
        .add_service(InterceptedService::new(health, identified))
        .add_optional_service(reflection.map(|it| InterceptedService::new(it, identified)))
        .serve_with_incoming_shutdown(listener.incoming(), done)
        .await?;
    Ok(())
}

/// Admits callers of any role whose certificate is valid at this moment.
#[allow(clippy::result_large_err, reason = "as tonic's interceptors are")]
fn identified(request: Request<()>) -> Result<Request<()>, Status> {
    let refused = |refusal: Refusal| refusal.status();
    let peer = service::peer(&request)?;
    peer.caller_at(SystemTime::now())
        .map_err(|error| refused(error.into()))?;
    Ok(request)
}

/// Every refusal of ours has details. An error without them was made before a service saw the request: it
/// was no message, or too long, or too slow, or there is no such call. It is counted, and gets a reason.
fn explain_unreadable<B>(metrics: &Metrics, mut answer: http::Response<B>) -> http::Response<B> {
    let unexplained = Status::from_header_map(answer.headers())
        .filter(|status| status.code() != Code::Ok && status.details().is_empty());
    if let Some(status) = unexplained {
        metrics.unreadable_request();
        // It replaces the headers of the same names. Should it fail, the first status stands.
        if let Some(explained) = Refusal::explained(&status) {
            let _ = explained.add_header(answer.headers_mut());
        }
    }
    answer
}
