//! `make bench`: votes through the real hsm-sentry and hsmd beside tmkms, in turns in one run, with the raw
//! limits of the machine. Each figure is a line `name value unit`, each comparison a line `ratio name value`.
//! Names after `--` choose parts: `compare`, `callers`, `slow_device`, `capacity`, `long_journal`, `ledger`, `decision`.
//!
//! | module | role |
//! |---|---|
//! | `driver` | plays nodes that ask for votes as fast as they get them, and takes the times |
//! | `server` | hsmd with a software key, which exists only here: this program, started again as `serve` |
//! | `tmkms` | tmkms with softsign, to compare with |
//! | `bare` | what the way through two processes and one flush costs with nothing on it |
//! | `limits` | what disk and processor could do at best |
//! | `ledger` | a mark shared through etcd, beside the bare transaction and one flush |
//! | `callers` | callers at once over gRPC, beside the same server without its guard (`unguarded`) |
//! | `long_journal` | start and verification with 10 million entries |
//! | `capacity` | start time and memory with 10,000 keys |
//! | `decision` | the policy's decision with 10,000 grants, beside the bare call |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]

mod bare;
mod callers;
mod capacity;
mod decision;
mod driver;
mod ledger;
mod limits;
mod long_journal;
mod server;
mod tmkms;
mod unguarded;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bare::Bare;
use driver::{Nodes, Times};
use hsm_tests::http;
use hsm_tests::process::Scratch;
use limits::Flusher;
use server::{Serve, Server};

/// Chains at once, in the larger of the two loads.
const CHAINS: usize = 64;
/// How often the contenders take turns.
const TURNS: usize = 3;
/// How long each turn is.
const TURN: Duration = Duration::from_secs(4);
/// The latency of the slow device, and for how many heights, of two votes each, it is asked.
const SLOW_DEVICE: Duration = Duration::from_millis(100);
const SLOW_HEIGHTS: usize = 100;

/// Measures something, with its state on this disk.
type Part = fn(&Path);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, config, latency] = arguments.as_slice()
        && let Some(what) = [Serve::Whole, Serve::Unguarded]
            .into_iter()
            .find(|what| what.name() == command)
    {
        let latency = Duration::from_millis(latency.parse().expect("milliseconds"));
        server::serve(what, Path::new(config), latency);
        return;
    }
    // State is where a checkout is, on a disk: temporary directories may be in memory.
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(disk).expect("the directory for state");
    let named: Vec<&String> = arguments
        .iter()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let parts: [(&str, Part); 7] = [
        ("compare", compare),
        ("callers", callers::measure),
        ("slow_device", slow_device),
        ("capacity", capacity::measure),
        ("long_journal", long_journal::measure),
        ("ledger", ledger::measure),
        ("decision", decision::measure),
    ];
    for (name, measure) in parts {
        if named.is_empty() || named.iter().any(|wanted| *wanted == name) {
            measure(disk);
        }
    }
}

/// hsmd against tmkms, with 1 chain and with many.
fn compare(disk: &Path) {
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let ours = Server::start(sockets.path(), state.path(), CHAINS, Duration::ZERO);
    let mut hsmd = Nodes::listen(sockets.path(), "hsmd", CHAINS);
    let mut sentry = ours.start_sentry(sockets.path(), &hsmd);
    hsmd.accept();
    let mut tmkms = Nodes::listen(sockets.path(), "tmkms", CHAINS);
    let _tmkms = tmkms::start(sockets.path(), state.path(), &tmkms);
    tmkms.accept();

    let processes = [
        ("hsmd", ours.id()),
        ("sentry", sentry.process().id()),
        ("node", std::process::id()),
    ];
    let mut flush = Times::empty();
    let mut crypto = Times::empty();
    for (chains, load) in [(1, "1_chain"), (CHAINS, "64_chains")] {
        let mut times = [Times::empty(), Times::empty()];
        let mut processor = [0.0; 3];
        let before = Stages::read(ours.metrics_port());
        for _ in 0..TURNS {
            let used = processes.map(|(_, id)| limits::processor_time(id));
            times[0].extend(hsmd.drive(chains, TURN));
            for (sum, ((_, id), used)) in processor.iter_mut().zip(processes.iter().zip(used)) {
                *sum += limits::processor_time(*id) - used;
            }
            times[1].extend(tmkms.drive(chains, TURN));
            flush.extend(limits::flush(state.path(), TURN / 4));
            crypto.extend(limits::sign_and_verify(TURN / 4));
        }
        times[0].print(&format!("hsmd_{load}"));
        times[1].print(&format!("tmkms_{load}"));
        Stages::read(ours.metrics_port()).print_since(&before, load, &times[0]);
        for ((process, _), seconds) in processes.iter().zip(processor) {
            println!(
                "hsmd_{load}_processor_{process} {:.4} ms",
                seconds * 1e3 / times[0].count()
            );
        }
        println!(
            "ratio hsmd_to_tmkms_{load}_rate {:.2}",
            times[0].rate() / times[1].rate()
        );
        println!(
            "ratio hsmd_to_tmkms_{load}_p99 {:.2}",
            times[0].quantile(0.99) / times[1].quantile(0.99)
        );
    }
    flush.print("limit_flush");
    crypto.print("limit_sign_and_verify");
}

/// What a signature costs beyond a slow device and one flush, and what the way there and back costs with
/// nothing on it. All take turns at the pace of the device: disk, processor and network are slower after a rest.
fn slow_device(disk: &Path) {
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let ours = Server::start(sockets.path(), state.path(), 1, SLOW_DEVICE);
    let mut nodes = Nodes::listen(sockets.path(), "slow", 1);
    let _sentry = ours.start_sentry(sockets.path(), &nodes);
    nodes.accept();
    let mut way = Bare::start(state.path(), SLOW_DEVICE);
    let mut flusher = Flusher::new(state.path(), "flush");
    let [mut votes, mut bare, mut flush] = [const { Times::empty() }; 3];
    let before = Stages::read(ours.metrics_port());
    for _ in 0..SLOW_HEIGHTS {
        votes.extend(nodes.drive_height());
        for _ in 0..2 {
            bare.extend(way.drive());
            server::pause(SLOW_DEVICE);
            flush.extend(limits::time(|| flusher.flush()));
        }
    }
    Stages::read(ours.metrics_port()).print_since(&before, "100ms_device", &votes);
    votes.print("hsmd_100ms_device");
    bare.print("limit_100ms_device_bare_way");
    flush.print("limit_flush_each_100ms");
    let device = SLOW_DEVICE.as_secs_f64() * 1e3;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let beyond = |times: &Times| times.quantile(quantile) - device - flush.quantile(quantile);
        let (ours, bare) = (beyond(&votes), beyond(&bare));
        println!("hsmd_beyond_100ms_device_and_flush_{name} {ours:.3} ms");
        println!("limit_beyond_100ms_device_and_flush_{name} {bare:.3} ms");
    }
}

/// hsmd's own view of where the time goes.
struct Stages(Vec<(&'static str, f64, f64)>);

impl Stages {
    const NAMES: [&'static str; 6] = [
        "identity", "request", "permit", "reserve", "device", "reply",
    ];

    fn read(port: u16) -> Self {
        let value = |suffix: &str, stage: &str| {
            let series = format!("hsmd_stage_duration_seconds_{suffix}{{stage=\"{stage}\"}}");
            http::metric(port, &series).unwrap_or(0.0)
        };
        Self(
            Self::NAMES
                .map(|stage| (stage, value("sum", stage), value("count", stage)))
                .to_vec(),
        )
    }

    /// Prints the mean of every stage since `before`, and what the rest of the way costs: node, sentry, TLS.
    fn print_since(&self, before: &Self, load: &str, times: &Times) {
        let mut inside = 0.0;
        for ((stage, sum, count), (_, earlier_sum, earlier_count)) in self.0.iter().zip(&before.0) {
            let mean = (sum - earlier_sum) / (count - earlier_count).max(1.0) * 1e3;
            inside += mean;
            println!("hsmd_{load}_stage_{stage}_mean {mean:.4} ms");
        }
        println!(
            "hsmd_{load}_outside_stages_mean {:.4} ms",
            times.mean() - inside
        );
    }
}

/// The path of a socket that a node listens on.
fn socket(directory: &Path, name: &str, index: usize) -> PathBuf {
    directory.join(format!("{name}{index}.sock"))
}

/// The id of a chain, which is also its key's name.
fn chain_id(index: usize) -> String {
    format!("bench-{index}")
}
