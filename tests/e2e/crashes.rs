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
use std::time::Duration;

use fastrand::Rng;
use hsm_tests::client::reason;
use hsm_tests::fleet::{Ask, Fleet, Step, ask};
use tonic::Response;

/// Kills of one deployment; the long form takes many deployments, since each restart reads all its journal.
const KILLS: usize = 50;
const SENTRIES: usize = 6;
/// The longest that callers are served, and that a start is left alone, before a kill. A start takes about
/// as long as the second.
const LONGEST_LOAD: Duration = Duration::from_millis(400);
const LONGEST_START: Duration = Duration::from_millis(80);

#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    at_start: usize,
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
    let heights: Vec<AtomicI64> = fleet.lines.iter().map(|_| AtomicI64::new(1)).collect();
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
                let (random, heights, signatures) = (random.fork(), &heights, &seen.signatures);
                scope.spawn(move || {
                    let mut random = random;
                    loop {
                        let line = random.usize(..lines.len());
                        let wanted = choose(&mut random, &heights[line]);
                        let answered = client.call(|mut signer| async move {
                            ask(&mut signer, &lines[line], wanted, received)
                                .await
                                .map(Response::new)
                        });
                        match answered {
                            Ok(()) => {
                                signatures.fetch_add(1, Ordering::Relaxed);
                                heights[line].fetch_max(wanted.height, Ordering::Relaxed);
                            }
                            // A refusal says why; a broken connection does not.
                            Err(status) if reason(&status).is_none() => break,
                            Err(_) => {}
                        }
                    }
                });
            }
            thread::sleep(LONGEST_LOAD.mul_f64(random.f64()));
            daemon.kill();
            seen.kills += 1;
        });
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
