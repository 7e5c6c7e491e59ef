//! hsmd under load from many callers is killed with SIGKILL at random moments, also while it starts. No
//! position ever gets two messages, and no signature that left lacks its entry. Promises 1, 2 and 8.
//!
//! What a killed process wrote is in the page cache, so a kill alone says nothing of the disk: kills that
//! power cuts follow are in `hsmd/src/guard/tests/power_cuts.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hsm_tests::audit::Received;
use hsm_tests::client::{Client, reason};
use hsm_tests::fleet::{Ask, Fleet, Line, Step, ask};
use hsm_tests::process::PATIENCE;
use tonic::Response;

/// Kills of one deployment; the long form takes many deployments, since each restart reads all its journal.
const KILLS: usize = 50;
const SENTRIES: usize = 6;
/// The most answers that callers get before a kill, together.
const MOST_ANSWERS: usize = 200;
/// The longest that a start is left alone before a kill: about as long as it takes.
const LONGEST_START: Duration = Duration::from_millis(80);

#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    at_start: usize,
    answers: AtomicUsize,
    signatures: AtomicUsize,
    positions: usize,
}

#[test]
fn hsmd_killed_at_any_moment_never_signs_twice_and_what_left_has_its_entry() {
    let given = std::env::var("HSMD_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("HSMD_SEED={seed}");
    let deployments = match std::env::var_os("HSMD_SOAK") {
        Some(_) => 20,
        None => 1,
    };
    for deployment in 0..deployments {
        let random = Rng::with_seed(seed.wrapping_add(deployment));
        println!("{:?}", kill_often(random));
    }
}

fn kill_often(mut random: Rng) -> Seen {
    let mut fleet = Fleet::start(SENTRIES);
    let mut seen = Seen::default();
    let heights = [(); 4].map(|()| AtomicI64::new(1));
    while seen.kills < KILLS {
        let clients = fleet.clients();
        thread::scope(|scope| {
            let Fleet {
                lines,
                received,
                daemon,
                ..
            } = &mut fleet;
            let (lines, received) = (&*lines, &*received);
            for client in &clients {
                let caller = Caller {
                    client,
                    lines,
                    heights: &heights,
                    received,
                    seen: &seen,
                };
                let random = random.fork();
                scope.spawn(move || caller.ask_until_killed(random));
            }
            seen.wait_for_answers(random.usize(..MOST_ANSWERS));
            daemon.kill();
        });
        seen.kills += 1;
        while random.usize(..3) == 0 {
            fleet.daemon.start_without_waiting();
            thread::sleep(LONGEST_START.mul_f64(random.f64()));
            fleet.daemon.kill();
            seen.kills += 1;
            seen.at_start += 1;
        }
        fleet.daemon.start();
        seen.positions = fleet.check();
    }
    assert!(
        seen.at_start > 0 && fleet.received.positions() > KILLS,
        "{seen:?}"
    );
    seen
}

impl Seen {
    /// Until there are so many more; not for ever, since callers end only with hsmd.
    fn wait_for_answers(&self, more: usize) {
        let enough = self.answers.load(Ordering::Relaxed) + more;
        let begun = Instant::now();
        while self.answers.load(Ordering::Relaxed) < enough && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Caller<'a> {
    client: &'a Client,
    lines: &'a [Line],
    heights: &'a [AtomicI64],
    received: &'a Received,
    seen: &'a Seen,
}

impl Caller<'_> {
    fn ask_until_killed(&self, mut random: Rng) {
        loop {
            let number = random.usize(..self.lines.len());
            let (line, height) = (&self.lines[number], &self.heights[number]);
            let wanted = choose(&mut random, height);
            let answered = self.client.call(|mut signer| async move {
                let asked = ask(&mut signer, line, wanted, self.received);
                asked.await.map(Response::new)
            });
            match answered {
                Ok(()) => {
                    self.seen.signatures.fetch_add(1, Ordering::Relaxed);
                    height.fetch_max(wanted.height, Ordering::Relaxed);
                }
                // A refusal says why; a broken connection does not.
                Err(status) if reason(&status).is_none() => return,
                Err(_) => {}
            }
            self.seen.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Something at or just above the last height that was signed, most of it in conflict with what other
/// callers ask for.
fn choose(random: &mut Rng, height: &AtomicI64) -> Ask {
    let step = [Step::Proposal, Step::Prevote, Step::Precommit][random.usize(..3)];
    let lowest = u8::from(step == Step::Proposal);
    Ask {
        step,
        height: height.load(Ordering::Relaxed) + i64::from(random.usize(..3) > 0),
        round: random.i32(0..2),
        block: random.u8(lowest..3),
        seconds: random.i64(0..2),
    }
}
