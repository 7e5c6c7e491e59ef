//! The HTTP/2 connection to one hsmd, kept up in a task of its own and shared by all chains that use it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hsm_proto::v1::ListKeysRequest;
use hsm_proto::v1::signer_client::SignerClient;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;

use crate::backoff::Backoff;
use crate::config::SignerAddress;
use crate::metrics::Metrics;
use crate::pin::{Listing, Pins};
use crate::refusal::Refusal;
use crate::tls::Identity;

/// For TCP, TLS and the first call together.
const CONNECT: Duration = Duration::from_secs(2);

/// For the driver of a broken connection to say why.
const DRIVER_ENDS: Duration = Duration::from_millis(100);

/// How often hsmd is asked again what it grants, where a chain pins a ledger.
const LIST_AGAIN: Duration = Duration::from_secs(2);

/// A peer that is gone without a word is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Whether hsmd can be asked at present.
#[derive(Clone)]
pub(crate) enum Link {
    Up(Connection),
    /// Why not.
    Down(Arc<str>),
}

/// One connection to hsmd.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Counts from 1; a later connection has a higher number.
    pub(crate) number: u64,
    pub(crate) client: Client,
    /// What hsmd grants us, as it said last.
    pub(crate) listing: Listing,
}

/// hsmd's gRPC client over one connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) signer: SignerClient<Http2>,
    http2: Http2,
}

/// hyper's request sender in the shape that tonic wants.
#[derive(Clone)]
pub(crate) struct Http2(SendRequest<Body>);

/// Keeps a connection up, publishes it to `link`, and replaces it when the identity changes: the new one is
/// published before the old one is given up, and the old one ends when its last request is answered.
pub(crate) async fn keep_up(
    address: SignerAddress,
    mut identity: watch::Receiver<Identity>,
    link: watch::Sender<Link>,
    mut pins: Pins,
    metrics: Arc<Metrics>,
) {
    let mut backoff = Backoff::new();
    let mut number = 0;
    let mut told = String::new();
    loop {
        let tls = Arc::clone(&identity.borrow_and_update().client);
        let lost = match timeout(CONNECT, connect(&address, tls)).await {
            Ok(Ok((client, listing, driver))) => {
                number += 1;
                backoff = Backoff::new();
                told.clear();
                metrics.signer_connected(&address.address, true);
                tracing::info!(signer = address.address, number, "connected to hsmd");
                let connection = Connection {
                    number,
                    client,
                    listing,
                };
                match hold(connection, driver, &mut identity, &link, &mut pins).await {
                    Some(lost) => lost,
                    None => continue,
                }
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no connection within {} s", CONNECT.as_secs()),
        };
        if lost != told {
            tracing::warn!(
                signer = address.address,
                why = lost,
                "no new connection to hsmd"
            );
        }
        if give_up(&link, &lost) {
            metrics.signer_connected(&address.address, false);
            pins.lost();
        }
        told = lost;
        tokio::select! {
            () = sleep(backoff.next()) => {}
            Ok(()) = identity.changed() => {}
        }
    }
}

/// Publishes a connection, and what hsmd grants over it whenever that changes, until the connection is lost: why.
/// `None` where the identity changed.
async fn hold(
    mut connection: Connection,
    mut driver: JoinHandle<String>,
    identity: &mut watch::Receiver<Identity>,
    link: &watch::Sender<Link>,
    pins: &mut Pins,
) -> Option<String> {
    loop {
        pins.judge(&connection.listing);
        link.send_replace(Link::Up(connection.clone()));
        tokio::select! {
            ended = &mut driver => {
                return Some(ended.unwrap_or_else(|error| error.to_string()));
            }
            Ok(()) = identity.changed() => return None,
            listing = other_listing(&connection), if pins.any() => connection.listing = listing,
        }
    }
}

/// Waits until hsmd grants us something else than before. No answer is no news: whether hsmd still lives is seen
/// otherwise, and each request names the ledger that it wants.
async fn other_listing(connection: &Connection) -> Listing {
    loop {
        sleep(LIST_AGAIN).await;
        let listed = timeout(CONNECT, list(connection.client.signer.clone())).await;
        if let Ok(Ok(listing)) = listed
            && listing != connection.listing
        {
            return listing;
        }
    }
}

/// Connects, asks what hsmd grants us, and disconnects.
///
/// # Errors
///
/// Why hsmd was not reached, for people.
pub(crate) async fn list_once(
    address: &SignerAddress,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Listing, String> {
    match timeout(CONNECT, connect(address, tls)).await {
        Ok(connected) => connected.map(|(_, listing, _)| listing),
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}

/// Notes that there is no connection, save where an older one still lives.
fn give_up(link: &watch::Sender<Link>, why: &str) -> bool {
    link.send_if_modified(|link| {
        if matches!(link, Link::Up(connection) if !connection.client.http2.0.is_closed()) {
            return false;
        }
        *link = Link::Down(why.into());
        true
    })
}

/// The sender of requests, what hsmd grants us, and the task that moves requests: it ends with a sentence on why
/// the connection did.
async fn connect(
    address: &SignerAddress,
    tls: Arc<rustls::ClientConfig>,
) -> Result<(Client, Listing, JoinHandle<String>), String> {
    let tcp = TcpStream::connect(&address.address)
        .await
        .map_err(|error| format!("TCP: {error}"))?;
    tcp.set_nodelay(true)
        .map_err(|error| format!("TCP: {error}"))?;
    let stream = TlsConnector::from(tls)
        .connect(address.server_name.clone(), tcp)
        .await
        .map_err(|error| format!("TLS: {}", causes(&error)))?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP/2: {}", causes(&error)))?;
    let driver = tokio::spawn(async move {
        match connection.await {
            Ok(()) => "hsmd closed the connection".to_owned(),
            Err(error) => causes(&error),
        }
    });
    let http2 = Http2(sender);
    let signer = SignerClient::with_origin(http2.clone(), origin(address));
    first_call(signer.clone(), driver)
        .await
        .map(|(listing, driver)| (Client { signer, http2 }, listing, driver))
}

/// Shows that hsmd takes our certificate: a TLS 1.3 server refuses it only after the client takes the handshake
/// for done, and a connection that is refused so must not replace one that works.
async fn first_call(
    signer: SignerClient<Http2>,
    driver: JoinHandle<String>,
) -> Result<(Listing, JoinHandle<String>), String> {
    match list(signer).await {
        Ok(listing) => {
            match &listing {
                Ok(grants) => {
                    for grant in grants.iter() {
                        let kinds = grant.kinds.join(", ");
                        let (key, chain) = (&grant.key, &grant.chain_id);
                        tracing::info!(key, chain, kinds, "granted by hsmd");
                    }
                }
                // The node gets the same refusal, with its reason, for each request.
                Err(refusal) => tracing::error!(%refusal, "hsmd refuses this sentry"),
            }
            Ok((listing, driver))
        }
        // If the connection broke, its driver knows why: the server's alert.
        Err(status) => match timeout(DRIVER_ENDS, driver).await {
            Ok(Ok(why)) => Err(why),
            _ => Err(format!("{:?}: {}", status.code(), status.message())),
        },
    }
}

/// What hsmd grants us, or its refusal.
///
/// # Errors
///
/// The transport's status where hsmd did not answer.
async fn list(mut signer: SignerClient<Http2>) -> Result<Listing, Status> {
    match signer.list_keys(ListKeysRequest {}).await {
        Ok(granted) => Ok(Ok(granted.into_inner().keys.into())),
        Err(status) => Refusal::from_status(&status).map(Err).ok_or(status),
    }
}

fn origin(address: &SignerAddress) -> Uri {
    let name = address.server_name.to_str();
    // An IPv6 address stands in brackets in a URI.
    let host = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.into_owned()
    };
    Uri::try_from(format!("https://{host}")).unwrap_or_default()
}

/// An error with its causes: the alert that says why hsmd does not want us stands at the end.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl tower_service::Service<Request<Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
