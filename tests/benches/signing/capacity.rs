//! The released binary with 10,000 keys known to guard and policy. Its device is out of reach: keys are looked
//! up when they are first used, so that hsmd serves before its device does.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hsm_tests::authority::Authority;
use hsm_tests::binaries::binary;
use hsm_tests::daemon::allow_root;
use hsm_tests::process::{PATIENCE, Process, Scratch, free_port, wait_for};

use crate::server::{make_known, write_config};

const KEYS: usize = 10_000;
/// How many starts are measured.
const STARTS: usize = 3;

pub(crate) fn measure(disk: &Path) {
    let (sockets, state) = (Scratch::new(), Scratch::new_in(disk));
    let authority = Authority::new(state.path(), "ca");
    let keys: Vec<String> = (0..KEYS).map(|index| format!("key-{index}")).collect();
    let ports = [free_port(), free_port()];
    let config = write_config(sockets.path(), state.path(), &authority, ports, &keys);
    make_known(&config, &keys);
    let mut slowest = Duration::ZERO;
    let (mut resident, mut peak) = (0.0_f64, 0.0_f64);
    for _ in 0..STARTS {
        let (mut process, took) = start_released(&config, ports[1], state.path());
        slowest = slowest.max(took);
        resident = resident.max(memory(process.id(), "VmRSS:"));
        peak = peak.max(memory(process.id(), "VmHWM:"));
        // A crash: the next start replays without the help of a clean end.
        process.kill();
    }
    println!("hsmd_10000_keys_start {:.3} s", slowest.as_secs_f64());
    println!("hsmd_10000_keys_resident {resident:.1} MiB");
    println!("hsmd_10000_keys_resident_peak {peak:.1} MiB");
}

/// Starts the released binary, and tells how long it took until it served.
pub(crate) fn start_released(
    config: &Path,
    metrics_port: u16,
    directory: &Path,
) -> (Process, Duration) {
    let mut command = Command::new(binary("hsmd"));
    command
        .args(["run", "--config"])
        .arg(config)
        .args(allow_root());
    let begun = Instant::now();
    let mut process = Process::start("hsmd", &mut command, directory);
    wait_for("hsmd to serve", PATIENCE, || {
        process.assert_running();
        hsm_tests::http::get(metrics_port, "/metrics").map(drop)
    });
    (process, begun.elapsed())
}

/// A figure of a process's memory (proc(5)), in MiB.
fn memory(id: u32, name: &str) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process's status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("the figure");
    let kibibytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kibibytes / 1024.0
}
