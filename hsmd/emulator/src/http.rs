//! The connector's HTTP interface: `GET /connector/status` and `POST /connector/api`.
//!
//! Source: the vendor's connector, `api.go` and `main.go` (github.com/Yubico/yubihsm-connector).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::control::{self, ControlSocket};
use crate::device::{Device, Misbehaviour};
use crate::fault::{Fault, Faults};
use crate::latency::Latency;
use crate::state_file::StateFile;

/// A frame's header; the connector refuses what is shorter.
const SHORTEST_FRAME: usize = 3;

/// The connector passes frames on that are a little too long, and the device refuses them.
const OVERLENGTH: usize = 3;

/// A request's body must be there in this time, as the connector wants it.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Pause after a connection could not be accepted (too many open files).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The device behind its connector.
pub(crate) struct Connector {
    /// Held for as long as a command takes: one command at a time.
    seat: Mutex<Seat>,
    clock: Clock,
    latency: watch::Sender<Latency>,
    pub(crate) faults: Arc<Faults>,
    serial: u32,
    request_limit: usize,
}

struct Seat {
    device: Device,
    file: Option<StateFile>,
    /// Revision of the device that is in the file.
    written: u64,
}

/// Why a connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("fault on demand")]
    OnDemand,
}

impl Connector {
    pub(crate) fn new(
        device: Device,
        file: Option<StateFile>,
        clock: &Clock,
        latency: Latency,
        faults: &Arc<Faults>,
    ) -> Self {
        Self {
            serial: device.serial(),
            request_limit: device.buffer_length() + OVERLENGTH,
            clock: clock.clone(),
            latency: watch::Sender::new(latency),
            faults: Arc::clone(faults),
            seat: Mutex::new(Seat {
                written: device.revision(),
                device,
                file,
            }),
        }
    }

    /// How long commands take.
    pub(crate) fn latency(&self) -> Latency {
        self.latency.borrow().clone()
    }

    /// Changes how long commands take, from the next one on.
    pub(crate) fn set_latency(&self, latency: Latency) {
        self.latency.send_replace(latency);
    }

    /// Runs one command on the device, with whatever fault is set.
    async fn command(&self, frame: &[u8]) -> Result<Response<Full<Bytes>>, Closed> {
        let mut seat = self.seat.lock().await;
        let fault = self.faults.next().await;
        if fault == Some(Fault::Disconnect) {
            return Err(Closed::OnDemand);
        }
        if self.faults.take_power_cut() {
            seat.device.power_cycle(self.clock.now());
            // What happens to the file shows at the next command.
            let _ = seat.persist();
            return Err(Closed::OnDemand);
        }
        if self.faults.take_lost_sessions() {
            seat.device.lose_sessions();
        }
        seat.device.misbehave(match fault {
            Some(Fault::Refuse(code)) => Some(Misbehaviour::Refuse(code)),
            Some(Fault::SpoilSignatures) => Some(Misbehaviour::SpoilSignatures),
            _ => None,
        });

        let started = Instant::now();
        let mut answer = seat.device.handle(self.clock.now(), frame);
        tracing::debug!(command = answer.command, length = answer.length, "command");
        if let Err(error) = seat.persist() {
            tracing::error!(%error, "cannot write the state file; the answer is withheld");
            return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR));
        }
        let latency = self.latency.borrow().of(&answer);
        if !latency.is_zero() {
            tokio::time::sleep_until(started + latency).await;
        }
        match fault {
            Some(Fault::LoseAnswers) => return Err(Closed::OnDemand),
            Some(Fault::CorruptAnswers) => {
                if let Some(last) = answer.frame.last_mut() {
                    *last ^= 1;
                }
            }
            _ => {}
        }
        let mut response = Response::new(Full::from(answer.frame));
        let binary = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, binary);
        Ok(response)
    }

    async fn api(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        let body = Limited::new(request.into_body(), self.request_limit).collect();
        let frame = match tokio::time::timeout(READ_LIMIT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => return Ok(refusal(StatusCode::BAD_REQUEST)),
        };
        if frame.len() < SHORTEST_FRAME {
            return Ok(refusal(StatusCode::BAD_REQUEST));
        }
        self.command(&frame).await
    }

    fn status(&self, address: SocketAddr) -> Response<Full<Bytes>> {
        Response::new(Full::from(format!(
            "status=OK\nserial={:010}\nversion={}\npid={}\naddress={}\nport={}\n",
            self.serial,
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            address.ip(),
            address.port(),
        )))
    }

    async fn route(
        &self,
        address: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Closed> {
        match (request.uri().path(), request.method()) {
            ("/connector/status", &Method::GET) => Ok(self.status(address)),
            ("/connector/api", &Method::POST) => self.api(request).await,
            ("/connector/status", _) => Ok(not_allowed("GET")),
            ("/connector/api", _) => Ok(not_allowed("POST")),
            _ => Ok(refusal(StatusCode::NOT_FOUND)),
        }
    }
}

impl Seat {
    /// Writes the state if it changed. After a failure every command tries again first.
    fn persist(&mut self) -> io::Result<()> {
        let revision = self.device.revision();
        if let (Some(file), true) = (&self.file, revision != self.written) {
            file.write(&self.device.state())?;
            self.written = revision;
        }
        Ok(())
    }
}

/// Serves on a thread of its own until `stopped` is dropped.
pub(crate) fn spawn(
    connector: Connector,
    listener: std::net::TcpListener,
    address: SocketAddr,
    mut control: Option<ControlSocket>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener)?;
    let orders = control.as_mut().map(ControlSocket::listener).transpose()?;
    drop(entered);
    let serve = move || {
        let connector = Arc::new(connector);
        runtime.block_on(async {
            tokio::select! {
                () = accept(Arc::clone(&connector), listener, address) => {}
                () = control::serve(orders.flatten(), connector) => {}
                _ = stopped => {}
            }
        });
        drop(control);
    };
    std::thread::Builder::new()
        .name("yubihsm-emulator".to_owned())
        .spawn(serve)
}

async fn accept(connector: Arc<Connector>, listener: TcpListener, address: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(Arc::clone(&connector), stream, address));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(connector: Arc<Connector>, stream: TcpStream, address: SocketAddr) {
    // An answer is one small segment: without this it would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| connector.route(address, request));
    // The yubihsm crate finds only headers that are written as the vendor's connector writes them.
    let served = http1::Builder::new()
        .title_case_headers(true)
        // A client that has said all is answered too.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection closed");
    }
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(status.canonical_reason().unwrap_or_default()));
    *response.status_mut() = status;
    response
}

fn not_allowed(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(method));
    response
}
