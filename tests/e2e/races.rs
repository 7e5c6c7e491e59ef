//! Several sentries ask for conflicting messages at one position at the same instant: one gets a signature.
//! Promise 2. The same on the guard alone, more often: `hsmd/src/guard/tests/races.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::sync::Barrier;
use std::thread;

use hsm_proto::v1::Reason;
use hsm_tests::client::{Client, reason};
use hsm_tests::fleet::{Ask, Fleet, Step, ask};
use tonic::{Response, Status};

const SENTRIES: u8 = 4;

#[test]
fn of_sentries_that_ask_for_different_blocks_at_one_instant_one_gets_a_signature() {
    let rounds = match std::env::var_os("HSMD_SOAK") {
        Some(_) => 100_000,
        None => 2_000,
    };
    let fleet = Fleet::start(usize::from(SENTRIES));
    let heights = rounds / fleet.lines.len();
    let together = Barrier::new(usize::from(SENTRIES));
    let won: Vec<usize> = thread::scope(|scope| {
        let racers: Vec<_> = (1..)
            .zip(fleet.clients())
            .map(|(block, client)| {
                let (fleet, together) = (&fleet, &together);
                scope.spawn(move || {
                    let race = |height| {
                        together.wait();
                        all_lines(fleet, &client, height, block)
                    };
                    (1..=heights as i64).map(race).sum()
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    println!("won: {won:?}");
    assert_eq!(
        won.iter().sum::<usize>(),
        rounds,
        "each position was won once"
    );
    assert!(
        won.iter().filter(|won| **won > 0).count() > 1,
        "nobody raced: {won:?}"
    );
    assert_eq!(fleet.received.positions(), rounds);
    assert_eq!(fleet.check(), rounds);
}

/// Asks for this block on all lines at once. Returns how many signatures came.
fn all_lines(fleet: &Fleet, client: &Client, height: i64, block: u8) -> usize {
    let wanted = Ask {
        step: Step::Precommit,
        height,
        round: 0,
        block,
        seconds: 0,
    };
    let won = client.call(|signer| async move {
        let [a, b, c, d] = fleet.lines.each_ref().map(|line| {
            let mut signer = signer.clone();
            async move {
                loop {
                    match ask(&mut signer, line, wanted, &fleet.received).await {
                        // A machine that stalls; the same request may be sent again.
                        Err(status) if is(&status, Reason::DeadlineExceeded) => {}
                        outcome => break outcome,
                    }
                }
            }
        });
        let outcomes = <[_; 4]>::from(tokio::join!(a, b, c, d));
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        for status in outcomes.into_iter().filter_map(Result::err) {
            assert!(is(&status, Reason::DoubleSign), "{status:?}");
        }
        Ok(Response::new(won))
    });
    won.unwrap()
}

fn is(status: &Status, expected: Reason) -> bool {
    reason(status).as_deref() == Some(expected.name())
}
