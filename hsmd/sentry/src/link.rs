//! The HTTP/2 connection to one hsmd, kept up in a task of its own and shared by all chains that use it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
use tonic::body::Body;

use crate::backoff::Backoff;
use crate::config::SignerAddress;
use crate::metrics::Metrics;
use crate::tls::Identity;

/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(2);

/// A peer that is gone without a word is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A connection that ended sooner was not a good one: a TLS 1.3 server refuses a client's certificate only
/// after the client takes the handshake for done.
const SETTLED: Duration = Duration::from_secs(3);

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
    pub(crate) client: SignerClient<Http2>,
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
    metrics: Arc<Metrics>,
) {
    let mut backoff = Backoff::new();
    let mut number = 0;
    loop {
        let tls = Arc::clone(&identity.borrow_and_update().client);
        let lost = match timeout(CONNECT, connect(&address, tls)).await {
            Ok(Ok((http2, mut driver))) => {
                number += 1;
                let since = Instant::now();
                publish(&link, &address, number, http2);
                metrics.signer_connected(&address.address, true);
                tracing::info!(signer = address.address, number, "connected to hsmd");
                let lost = tokio::select! {
                    ended = &mut driver => ended.unwrap_or_else(|error| error.to_string()),
                    changed = identity.changed() => match changed {
                        Ok(()) => continue,
                        // The process is stopping; what is in flight may finish.
                        Err(_) => driver.await.unwrap_or_else(|error| error.to_string()),
                    },
                };
                if since.elapsed() >= SETTLED {
                    backoff = Backoff::new();
                }
                lost
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no connection within {} s", CONNECT.as_secs()),
        };
        give_up(&link, &address, &lost, &metrics);
        tokio::select! {
            () = sleep(backoff.next()) => {}
            _ = identity.changed() => {}
        }
    }
}

fn publish(link: &watch::Sender<Link>, address: &SignerAddress, number: u64, http2: Http2) {
    let name = address.server_name.to_str();
    // An IPv6 address stands in brackets in a URI.
    let host = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.into_owned()
    };
    let origin = Uri::try_from(format!("https://{host}")).unwrap_or_default();
    let client = SignerClient::with_origin(http2.clone(), origin);
    link.send_replace(Link::Up(Connection {
        number,
        client,
        http2,
    }));
}

/// Notes that the last attempt failed, save where an older connection still lives.
fn give_up(link: &watch::Sender<Link>, address: &SignerAddress, why: &str, metrics: &Metrics) {
    link.send_if_modified(|link| {
        let news = match link {
            Link::Up(connection) if !connection.http2.0.is_closed() => return false,
            Link::Up(_) => true,
            Link::Down(earlier) => **earlier != *why,
        };
        if news {
            tracing::warn!(signer = address.address, why, "no connection to hsmd");
        }
        metrics.signer_connected(&address.address, false);
        *link = Link::Down(why.into());
        news
    });
}

/// The sender of requests, and the task that moves them: it ends with a sentence on why the connection did.
async fn connect(
    address: &SignerAddress,
    tls: Arc<rustls::ClientConfig>,
) -> Result<(Http2, JoinHandle<String>), String> {
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
    Ok((Http2(sender), driver))
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
