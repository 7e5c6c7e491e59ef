//! The way of a vote with nothing on it: a UNIX socket, a TCP connection, one flush, a slow device's thread, and
//! back. What this takes, no signer in two processes can be faster than on the same machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::driver::Times;
use crate::limits::{Flusher, time};
use crate::server::pause;

/// About the size of a vote on its way, in bytes.
const MESSAGE: usize = 256;

/// The node's end. The threads behind it end when it is dropped.
pub(crate) struct Bare {
    node: UnixStream,
}

impl Bare {
    pub(crate) fn start(directory: &Path, device: Duration) -> Self {
        let (node, sentry) = UnixStream::pair().expect("a pair of sockets");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let to_daemon = TcpStream::connect(address).expect("a connection");
        let (daemon, _) = listener.accept().expect("a connection");
        to_daemon.set_nodelay(true).expect("a socket option");
        daemon.set_nodelay(true).expect("a socket option");
        let mut flusher = Flusher::new(directory, "bare");
        let (ask, asked) = mpsc::channel::<()>();
        let (answer, answered) = mpsc::channel::<()>();
        std::thread::spawn(move || relay(sentry, to_daemon));
        std::thread::spawn(move || {
            for () in asked {
                pause(device);
                if answer.send(()).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            serve(daemon, || {
                flusher.flush();
                ask.send(()).is_ok() && answered.recv().is_ok()
            });
        });
        Self { node }
    }

    /// One message there and back.
    pub(crate) fn drive(&mut self) -> Times {
        let mut message = [1; MESSAGE];
        time(|| {
            self.node.write_all(&message).expect("a message sent");
            self.node.read_exact(&mut message).expect("a message back");
        })
    }
}

fn relay(mut node: UnixStream, mut daemon: TcpStream) {
    let mut message = [0; MESSAGE];
    while node.read_exact(&mut message).is_ok()
        && daemon.write_all(&message).is_ok()
        && daemon.read_exact(&mut message).is_ok()
        && node.write_all(&message).is_ok()
    {}
}

fn serve(mut sentry: TcpStream, mut work: impl FnMut() -> bool) {
    let mut message = [0; MESSAGE];
    while sentry.read_exact(&mut message).is_ok() && work() && sentry.write_all(&message).is_ok() {}
}
