//! How far long work is, on standard error, where that is a terminal.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use hsm_journal::Progress;

/// What is done sooner is not reported.
const FIRST: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(500);

/// Does the work, and says how much of `total` is done; 0: how much that is, is not known.
pub(super) fn show<T>(total: u64, work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress::default();
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        if std::io::stderr().is_terminal() {
            scope.spawn(|| report(total, &progress, ended));
        }
        let result = work(&progress);
        drop(done);
        result
    })
}

fn report(total: u64, progress: &Progress, ended: mpsc::Receiver<()>) {
    let begin = Instant::now();
    let mut wait = FIRST;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = AGAIN;
        let done = progress.done();
        let rate = done as f64 / begin.elapsed().as_secs_f64();
        match done.saturating_mul(100).checked_div(total) {
            Some(percent) => eprint!("\r{percent:>3} %, {rate:.0}/s "),
            None => eprint!("\r{done}, {rate:.0}/s "),
        }
    }
    eprint!("\r\x1b[K");
}
