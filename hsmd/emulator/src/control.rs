//! The control socket: what a test changes on a running emulator from outside of its process.
//!
//! A UNIX socket that only its owner may open. Each line is an order, and is answered with one line, `ok` or
//! `error: ...`.
//!
//! | order | effect |
//! |---|---|
//! | `fault FAULT` | as [`crate::Emulator::inject`], with the fault as text |
//! | `clear` | as [`crate::Emulator::clear_faults`] |
//! | `latency PROFILE` | from the next command on, commands take as long as this profile says |
//! | `status` | `ok fault=FAULT latency=PROFILE`, with `none` for no fault |

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::fault::Faults;
use crate::http::Connector;

/// No order is longer, in bytes.
const LONGEST_ORDER: u64 = 4096;

/// A bound socket, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    listener: Option<StdListener>,
}

impl ControlSocket {
    /// Binds the socket for its owner alone. A socket that nobody listens on any more is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let listener = match StdListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                std::fs::remove_file(path)?;
                StdListener::bind(path)?
            }
            bound => bound?,
        };
        let socket = Self {
            path: path.to_owned(),
            listener: Some(listener),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    /// The listener, once; must be called within a runtime.
    pub(crate) fn listener(&mut self) -> io::Result<Option<UnixListener>> {
        let Some(listener) = self.listener.take() else {
            return Ok(None);
        };
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Some)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // If it is gone already, that was the intention.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_abandoned(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Serves every connection to the socket.
pub(crate) async fn serve(listener: Option<UnixListener>, connector: Arc<Connector>) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(obey(stream, Arc::clone(&connector)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(crate::http::ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn obey(stream: UnixStream, connector: Arc<Connector>) {
    let (orders, mut answers) = stream.into_split();
    let mut orders = BufReader::new(orders);
    loop {
        let mut order = String::new();
        match (&mut orders)
            .take(LONGEST_ORDER)
            .read_line(&mut order)
            .await
        {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let answer = match execute(order.trim(), &connector) {
            Ok(answer) => format!("{answer}\n"),
            Err(problem) => format!("error: {problem}\n"),
        };
        if answers.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn execute(order: &str, connector: &Connector) -> Result<String, String> {
    let faults: &Faults = &connector.faults;
    let (verb, value) = order.split_once(' ').unwrap_or((order, ""));
    match (verb, value) {
        ("fault", text) => {
            let fault = text.parse().map_err(|error| format!("{error}"))?;
            faults.inject(fault);
        }
        ("clear", "") => faults.clear(),
        ("latency", text) => {
            let latency = text.parse().map_err(|error| format!("{error}"))?;
            connector.set_latency(latency);
        }
        ("status", "") => {
            let fault = faults.lasting().map(|fault| fault.to_string());
            let fault = fault.as_deref().unwrap_or("none");
            return Ok(format!("ok fault={fault} latency={}", connector.latency()));
        }
        _ => {
            return Err(format!(
                "no order {order:?}: fault FAULT, clear, latency PROFILE, status"
            ));
        }
    }
    Ok("ok".to_owned())
}
