//! Ed25519 signatures a second over the connector's HTTP: our emulator, as released, beside the MockHsm of the
//! `yubihsm` crate, which builds only with debug assertions (this program's profile: release with them). Both are
//! asked by the same client, the `yubihsm` crate, in turns. Each figure is a line `name value unit`, each
//! comparison a line `ratio name value`.
//!
//! Usage: emulator-bench PATH_OF_YUBIHSM_EMULATOR

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use yubihsm::asymmetric::Algorithm;
use yubihsm::connector::http::Server;
use yubihsm::object::Label;
use yubihsm::{Capability, Client, Connector, Credentials, Domain, HttpConfig};

/// Sessions at once, each on a connection of its own.
const SESSIONS: [usize; 2] = [1, 4];
/// How often the contenders take turns, and for how long.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
/// The key, and what it signs: about a vote.
const KEY: u16 = 7;
const MESSAGE: [u8; 120] = [9; 120];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "mockhsm", port] => mockhsm(port.parse().expect("a port")),
        [_, emulator] => compare(emulator),
        _ => panic!("usage: emulator-bench PATH_OF_YUBIHSM_EMULATOR"),
    }
}

fn compare(emulator: &str) {
    let contenders = [
        ("emulator", Served::emulator(emulator)),
        ("mockhsm", Served::mockhsm()),
    ];
    for (_, served) in &contenders {
        let generated = served.client().generate_asymmetric_key(
            KEY,
            Label::default(),
            Domain::DOM1,
            Capability::SIGN_EDDSA,
            Algorithm::Ed25519,
        );
        generated.expect("a key");
    }
    for sessions in SESSIONS {
        let mut measured = [Measured::default(); 2];
        for _ in 0..TURNS {
            for ((_, served), measured) in contenders.iter().zip(&mut measured) {
                measured.add(served, sessions);
            }
        }
        for ((name, _), measured) in contenders.iter().zip(&measured) {
            measured.print(&format!("{name}_ed25519_{sessions}_sessions"));
        }
        let [ours, theirs] = measured.map(|measured| measured.rate());
        println!(
            "ratio emulator_to_mockhsm_{sessions}_sessions_rate {:.2}",
            ours / theirs
        );
    }
    bare();
}

/// What one core signs with nothing around it.
fn bare() {
    let key = SigningKey::from_bytes(&[5; 32]);
    let begun = Instant::now();
    let mut count = 0.0;
    while begun.elapsed() < TURN {
        std::hint::black_box(key.sign(&MESSAGE));
        count += 1.0;
    }
    println!(
        "limit_bare_ed25519_rate {:.0} 1/s",
        count / begun.elapsed().as_secs_f64()
    );
}

/// A connector in a process of its own.
struct Served {
    child: Child,
    port: u16,
}

impl Served {
    fn emulator(path: &str) -> Self {
        let mut child = Command::new(path)
            .args(["--listen", "127.0.0.1:0"])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let port = log
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, address) = line.split_once("address=127.0.0.1:")?;
                address.split_whitespace().next()?.parse().ok()
            })
            .expect("the port in the emulator's log");
        Self { child, port }
    }

    fn mockhsm() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["mockhsm", &port.to_string()])
            .spawn()
            .expect("MockHsm starts");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { child, port }
    }

    fn client(&self) -> Client {
        let connector = Connector::http(&HttpConfig {
            port: self.port,
            ..HttpConfig::default()
        });
        Client::open(connector, Credentials::default(), false).expect("a session")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mockhsm(port: u16) {
    let config = HttpConfig {
        port,
        ..HttpConfig::default()
    };
    let server = Server::new(&config, Connector::mockhsm()).expect("MockHsm listens");
    // It answers one request after the other and ends with the first connection that breaks: go on.
    loop {
        let _ = server.handle_request();
    }
}

/// Sums over the turns.
#[derive(Clone, Copy, Default)]
struct Measured {
    signatures: f64,
    seconds: f64,
    /// Processor time of the server and of the client, in seconds.
    server: f64,
    client: f64,
}

impl Measured {
    fn add(&mut self, served: &Served, sessions: usize) {
        let clients: Vec<Client> = (0..sessions).map(|_| served.client()).collect();
        let (server, client) = (
            processor_time(served.child.id()),
            processor_time(std::process::id()),
        );
        let begun = Instant::now();
        let signed = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter()
                .map(|client| scope.spawn(move || sign_until(client, begun + TURN)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a client"))
                .sum::<f64>()
        });
        self.signatures += signed;
        self.seconds += begun.elapsed().as_secs_f64();
        self.server += processor_time(served.child.id()) - server;
        self.client += processor_time(std::process::id()) - client;
    }

    fn rate(&self) -> f64 {
        self.signatures / self.seconds
    }

    fn print(&self, name: &str) {
        println!("{name}_rate {:.0} 1/s", self.rate());
        println!(
            "{name}_processor_server {:.4} ms",
            self.server / self.signatures * 1e3
        );
        println!(
            "{name}_processor_client {:.4} ms",
            self.client / self.signatures * 1e3
        );
    }
}

fn sign_until(client: &Client, end: Instant) -> f64 {
    let mut signed = 0.0;
    while Instant::now() < end {
        client.sign_ed25519(KEY, &MESSAGE[..]).expect("a signature");
        signed += 1.0;
    }
    signed
}

/// The processor time that a process has used so far, in seconds: proc(5), user and system ticks of 10 ms.
fn processor_time(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process's figures");
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().expect("a number"))
        .collect();
    fields.iter().sum::<f64>() / 100.0
}
