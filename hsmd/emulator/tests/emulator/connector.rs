//! The HTTP interface, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use yubihsm_emulator::{Emulator, Error, Fault, Firmware, Settings};

use crate::{PATIENCE, any_port, start};

/// Sends one request on a connection of its own and returns the answer's status line, head and body.
fn exchange(emulator: &Emulator, request: &[u8]) -> (String, String, Vec<u8>) {
    let mut stream = TcpStream::connect(emulator.address()).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.lines().next().unwrap().to_owned();
    (status, head, answer[end + 4..].to_vec())
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn api(emulator: &Emulator, frame: &[u8]) -> (String, Vec<u8>) {
    let (status, _, body) = exchange(emulator, &request("POST", "/connector/api", frame));
    (status, body)
}

#[test]
fn the_status_is_written_as_the_vendors_connector_writes_it() {
    let emulator = start();
    let (status, _, body) = exchange(&emulator, &request("GET", "/connector/status", b""));
    assert_eq!(status, "HTTP/1.1 200 OK");
    let expected = format!(
        "status=OK\nserial=4200000000\nversion={}\npid={}\naddress=127.0.0.1\nport={}\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        emulator.address().port()
    );
    assert_eq!(String::from_utf8(body).unwrap(), expected);
}

#[test]
fn headers_are_capitalised_for_clients_that_look_for_content_length() {
    let emulator = start();
    let (_, head, _) = exchange(&emulator, &request("POST", "/connector/api", &[1, 0, 0]));
    assert!(head.contains("Content-Length: 3"), "{head}");
    assert!(
        head.contains("Content-Type: application/octet-stream"),
        "{head}"
    );
}

#[test]
fn device_information_has_two_pages_from_firmware_2_4_on() {
    let pages = |firmware: Firmware| {
        let settings = Settings {
            firmware,
            ..Settings::default()
        };
        let emulator = Emulator::start(settings, any_port()).unwrap();
        [
            api(&emulator, &[6, 0, 0]).1,
            api(&emulator, &[6, 0, 1, 1]).1,
        ]
    };
    let [first, second] = pages((2, 4, 1));
    assert_eq!(
        first[..12],
        [0x86, 0, 64, 2, 4, 1, 0xfa, 0x56, 0xea, 0x00, 62, 2]
    );
    let every_algorithm: Vec<u8> = (1..=55).collect();
    assert_eq!(first[12..], every_algorithm);
    assert_eq!(second, b"\x86\x00\x08EMULATOR");
    let [first, second] = pages((2, 3, 2));
    assert_eq!(first[3..6], [2, 3, 2]);
    assert_eq!(second, [0x7f, 0, 1, 2]);
}

#[test]
fn other_paths_methods_and_lengths_are_refused() {
    let emulator = start();
    let cases = [
        ("GET", "/", 0, "404"),
        ("POST", "/connector/status", 0, "405"),
        ("GET", "/connector/api", 0, "405"),
        ("POST", "/connector/api", 0, "400"),
        ("POST", "/connector/api", 2, "400"),
        ("POST", "/connector/api", 3136 + 4, "400"),
    ];
    for (method, path, length, expected) in cases {
        let (status, ..) = exchange(&emulator, &request(method, path, &vec![1; length]));
        assert!(
            status.contains(expected),
            "{method} {path} with {length} bytes: {status}"
        );
    }
    assert_eq!(
        api(&emulator, &[1; 3136 + 3]).1,
        [0x7f, 0, 1, 8],
        "too long for the device only"
    );
}

#[test]
fn a_client_that_has_closed_its_side_is_answered() {
    let emulator = start();
    let mut stream = TcpStream::connect(emulator.address()).unwrap();
    stream
        .write_all(b"GET /connector/status HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn a_command_that_hangs_is_run_when_it_is_let_go_though_its_client_has_gone() {
    // Up to 2.3.0 a new device records who opens a session.
    let settings = Settings {
        firmware: (2, 3, 0),
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, any_port()).unwrap();
    let used = || api(&emulator, &[6, 0, 0]).1[11];
    let before = used();
    emulator.inject(Fault::Hang);
    let create_session = [&[3, 0, 10, 0, 1][..], &[7; 8]].concat();
    let mut stream = TcpStream::connect(emulator.address()).unwrap();
    stream
        .write_all(&request("POST", "/connector/api", &create_session))
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let waited = stream.read(&mut [0]).unwrap_err();
    assert_eq!(waited.kind(), std::io::ErrorKind::WouldBlock);
    drop(stream);
    emulator.clear_faults();
    let deadline = Instant::now() + PATIENCE;
    while used() == before {
        assert!(Instant::now() < deadline, "it was not run");
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let refused = Emulator::start(Settings::default(), ([0, 0, 0, 0], 0).into()).unwrap_err();
    assert!(matches!(refused, Error::NotLoopback(_)), "{refused}");
}

#[test]
fn a_dropped_emulator_frees_its_port() {
    let emulator = start();
    let address = emulator.address();
    drop(emulator);
    TcpStream::connect(address).unwrap_err();
}

#[test]
fn arbitrary_bodies_get_a_device_error_or_an_http_error() {
    let emulator = start();
    let body = proptest::collection::vec(any::<u8>(), 0..64);
    proptest!(ProptestConfig::with_cases(200), |(body in body)| {
        let (status, answer) = api(&emulator, &body);
        prop_assert!(status.contains("200") || status.contains("400"), "{}", status);
        if status.contains("200") {
            let length = usize::from(u16::from_be_bytes([answer[1], answer[2]]));
            prop_assert_eq!(answer.len(), 3 + length);
        }
    });
    assert_eq!(
        api(&emulator, &[1, 0, 0]).1,
        [0x81, 0, 0],
        "it is still there"
    );
}
