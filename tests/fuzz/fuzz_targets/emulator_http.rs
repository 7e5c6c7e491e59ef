//! Bytes on a connection to the emulated YubiHSM2's connector: they are answered or the connection is closed, and the
//! connector serves on.

#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use yubihsm_emulator::{Emulator, Settings};

/// Nothing takes longer but a hang.
const PATIENCE: Duration = Duration::from_secs(20);

static EMULATOR: LazyLock<Emulator> =
    LazyLock::new(|| Emulator::start(Settings::default(), ([127, 0, 0, 1], 0).into()).unwrap());

/// Sends all of it, and reads until the connection is closed.
fn exchange(sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(EMULATOR.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The connector may have closed already: it need not read what comes after a fault.
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("a hang: {error}"),
    }
    answer
}

fuzz_target!(|sent: &[u8]| {
    exchange(sent);
    let status = exchange(b"GET /connector/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status.starts_with(b"HTTP/1.1 200 OK\r\n"));
});
