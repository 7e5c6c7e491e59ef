//! Bytes on the emulated YubiHSM2's control socket: every line gets one, and the socket serves on.

#![no_main]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use yubihsm_emulator::{Emulator, Settings};

/// Nothing takes longer but a hang.
const PATIENCE: Duration = Duration::from_secs(20);

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap().keep();
    let settings = Settings {
        control: Some(directory.join("control.sock")),
        ..Settings::default()
    };
    let socket = settings.control.clone().unwrap();
    // It runs for as long as the fuzzer does.
    std::mem::forget(Emulator::start(settings, ([127, 0, 0, 1], 0).into()).unwrap());
    socket
});

fn exchange(sent: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&*SOCKET).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A line that is no text ends the connection before all is read.
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("a hang: {error}"),
    }
    answers
}

fuzz_target!(|sent: &[u8]| {
    let answers = exchange(sent);
    for answer in BufReader::new(answers.as_slice()).lines() {
        let answer = answer.unwrap();
        assert!(
            answer == "ok" || answer.starts_with("ok fault=") || answer.starts_with("error: "),
            "{answer}"
        );
    }
    let status = exchange(b"status\n");
    assert!(status.starts_with(b"ok fault="), "{status:?}");
});
