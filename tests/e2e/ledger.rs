//! Two hsmd with one key share its mark through a real etcd of three members. Promise 2. The orders of the steps are
//! tried by the model in `hsmd/src/ledger/model.rs`.
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
use std::time::{Duration, Instant};

use hsm_proto::v1::Reason;
use hsm_tests::authority::uri;
use hsm_tests::binaries::needs;
use hsm_tests::daemon::{ALL_KINDS, grant};
use hsm_tests::etcd::{self, Etcd};
use hsm_tests::namespace::Namespace;
use hsm_tests::pair::{CHAIN, KEY, Pair, precommit, refused, run, succeed, text};
use hsm_tests::process::{PATIENCE, Scratch, wait_for};

/// hsmd's deadline, where none is configured.
const DEADLINE: Duration = Duration::from_secs(3);

fn etcd(scratch: &Scratch) -> Option<Etcd> {
    needs("etcd and etcdctl", etcd::installed())?;
    Some(Etcd::start(scratch.path()))
}

#[test]
fn of_two_signers_that_are_asked_for_different_blocks_at_one_instant_one_signs() {
    let heights = match std::env::var_os("HSMD_SOAK") {
        Some(_) => 10_000,
        None => 400,
    };
    let scratch = Scratch::new();
    let Some(etcd) = etcd(&scratch) else { return };
    let pair = Pair::start(scratch.path(), &etcd);
    let together = Barrier::new(2);
    let race = |signer: usize| {
        let block = u8::try_from(signer).unwrap() + 1;
        let won = |height: &i64| {
            together.wait();
            loop {
                let answer = pair.ask(signer, precommit(*height, block));
                match answer {
                    Ok(()) => break true,
                    // A machine that stalls; the same request may be sent again.
                    _ if refused(&answer, Reason::LedgerUnavailable)
                        || refused(&answer, Reason::DeadlineExceeded) => {}
                    _ => {
                        assert!(refused(&answer, Reason::DoubleSign), "{answer:?}");
                        break false;
                    }
                }
            }
        };
        (1..=heights).filter(won).count()
    };
    let won = thread::scope(|scope| {
        let racers = [0, 1].map(|signer| scope.spawn(move || race(signer)));
        racers.map(|racer| racer.join().unwrap())
    });
    println!("won: {won:?}");
    assert_eq!(
        won[0] + won[1],
        heights as usize,
        "each position was won once"
    );
    assert!(won[0] > 0 && won[1] > 0, "nobody raced: {won:?}");
    assert_eq!(pair.positions(), heights as usize);
    pair.check();
}

#[test]
fn a_repeated_request_gets_the_same_answer_from_either_signer() {
    let scratch = Scratch::new();
    let Some(etcd) = etcd(&scratch) else { return };
    let pair = Pair::start(scratch.path(), &etcd);
    pair.ask(0, precommit(5, 1)).unwrap();
    // The second signer signs the bytes of the first, with the first's timestamp.
    for signer in [1, 0, 1] {
        pair.ask(signer, precommit(5, 1)).unwrap();
        let other = pair.ask(signer, precommit(5, 2));
        assert!(refused(&other, Reason::DoubleSign), "{other:?}");
        let earlier = pair.ask(signer, precommit(4, 1));
        assert!(refused(&earlier, Reason::Regression), "{earlier:?}");
    }
    // A mark is advanced for both.
    succeed(
        &pair.signers[0].daemon,
        &["key", "advance", KEY, "--chain", CHAIN, "--height", "90"],
    );
    let below = pair.ask(1, precommit(90, 1));
    assert!(refused(&below, Reason::Regression), "{below:?}");
    pair.ask(1, precommit(91, 1)).unwrap();
    pair.check();
}

#[test]
fn signing_goes_on_without_one_member_and_stops_within_the_deadline_without_two() {
    let scratch = Scratch::new();
    let Some(mut etcd) = etcd(&scratch) else {
        return;
    };
    let pair = Pair::start(scratch.path(), &etcd);
    let mut height = 0;
    let mut sign = |why: &str| {
        for signer in [0, 1, 0] {
            height += 1;
            wait_for(why, PATIENCE, || {
                let answer = pair.ask(signer, precommit(height, 1));
                assert!(
                    answer.is_ok() || refused(&answer, Reason::LedgerUnavailable),
                    "{answer:?}"
                );
                answer.ok()
            });
        }
        height
    };
    sign("all members");
    let leader = etcd.leader();
    etcd.kill_member((leader + 1) % 3);
    sign("a member killed");
    etcd.start_member((leader + 1) % 3);
    etcd.wait_for_quorum();
    let leader = etcd.leader();
    etcd.kill_member(leader);
    let last = sign("the leader killed");

    etcd.kill_member((leader + 1) % 3);
    for signer in [0, 1] {
        let begun = Instant::now();
        let answer = pair.ask(signer, precommit(last + 1, 1));
        assert!(refused(&answer, Reason::LedgerUnavailable), "{answer:?}");
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    }
    // What was given is given again, and what contradicts it is refused: neither needs a device or the ledger.
    pair.ask(0, precommit(last, 1)).unwrap();
    let other = pair.ask(0, precommit(last, 2));
    assert!(refused(&other, Reason::DoubleSign), "{other:?}");
    etcd.start_member(leader);
    etcd.start_member((leader + 1) % 3);
    sign("all members again");
    pair.check();
}

#[test]
fn a_signer_that_is_cut_off_from_etcd_refuses_within_the_deadline_and_the_other_goes_on() {
    let Some(namespace) = needs("root and network namespaces", Namespace::new()) else {
        return;
    };
    let scratch = Scratch::new();
    if needs("etcd and etcdctl", etcd::installed()).is_none() {
        return;
    }
    let etcd = Etcd::start_at(scratch.path(), &namespace.outside().to_string());
    let mut pair = Pair::start(scratch.path(), &etcd);
    pair.signers[1].move_into(&namespace);
    pair.ask(1, precommit(1, 1)).unwrap();
    namespace.cut();
    let begun = Instant::now();
    let answer = pair.ask(1, precommit(2, 2));
    assert!(refused(&answer, Reason::LedgerUnavailable), "{answer:?}");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    // It gives again what it gave, and nothing new; the other has its quorum.
    pair.ask(1, precommit(1, 1)).unwrap();
    pair.ask(0, precommit(2, 1)).unwrap();
    pair.ask(0, precommit(3, 1)).unwrap();
    let answer = pair.ask(1, precommit(3, 2));
    assert!(refused(&answer, Reason::LedgerUnavailable), "{answer:?}");
    namespace.heal();
    wait_for("the way to etcd", PATIENCE, || {
        let answer = pair.ask(1, precommit(3, 2));
        let healed = refused(&answer, Reason::DoubleSign);
        assert!(
            healed || refused(&answer, Reason::LedgerUnavailable),
            "{answer:?}"
        );
        healed.then_some(())
    });
    pair.ask(1, precommit(4, 1)).unwrap();
    pair.check();
}

/// Both refuse; one merges, and both still refuse; the other merges, and both sign.
fn refused_until_both_have_merged(pair: &Pair, height: i64, expected: &str) {
    for signer in [0, 1] {
        let answer = pair.ask(signer, precommit(height, 1));
        let status = pair.signers[signer].ledger_status();
        assert!(
            refused(&answer, Reason::LedgerBehind),
            "{answer:?}: {status}"
        );
        assert!(status.contains(expected), "{status}");
        assert!(status.contains("hsmd ledger reconcile"), "{status}");
    }
    let first = pair.signers[0].reconcile();
    assert!(first.contains("being reconciled"), "{first}");
    for signer in [0, 1] {
        let answer = pair.ask(signer, precommit(height, 1));
        assert!(refused(&answer, Reason::LedgerBehind), "{answer:?}");
    }
    let second = pair.signers[1].reconcile();
    assert!(!second.contains("NOT SIGNING"), "{second}");
    for signer in [0, 1] {
        let earlier = pair.ask(signer, precommit(height - 1, 9));
        assert!(refused(&earlier, Reason::DoubleSign), "{earlier:?}");
    }
    pair.ask(1, precommit(height, 1)).unwrap();
    pair.ask(0, precommit(height + 1, 1)).unwrap();
    pair.check();
}

/// Both sign up to height 4, in turns. Returns when each has seen what the other signed.
fn sign_some(pair: &Pair, from: i64) {
    for height in from..from + 4 {
        let signer = usize::from(height % 2 == 0);
        pair.ask(signer, precommit(height, 1)).unwrap();
    }
    for signer in &pair.signers {
        wait_for("the other's marks in the journal", PATIENCE, || {
            let state = signer.daemon.state();
            let last = state["keys"][0]["chains"][0]["last"]["height"].as_i64();
            (last == Some(from + 3)).then_some(())
        });
    }
}

#[test]
fn a_ledger_restored_from_a_backup_is_refused_until_every_journal_was_merged() {
    let scratch = Scratch::new();
    let Some(mut etcd) = etcd(&scratch) else {
        return;
    };
    let mut pair = Pair::start(scratch.path(), &etcd);
    sign_some(&pair, 1);
    let backup = etcd.back_up("backup");
    sign_some(&pair, 5);
    etcd.restore(&backup, "first");
    refused_until_both_have_merged(&pair, 9, "was seen");

    // With its revision bumped beyond what was seen, the row itself is what went back.
    let backup = etcd.back_up("second backup");
    sign_some(&pair, 11);
    for signer in &mut pair.signers {
        signer.daemon.kill();
    }
    etcd.restore(&backup, "first");
    etcd.bump_revision(20);
    for signer in &mut pair.signers {
        signer.start();
    }
    refused_until_both_have_merged(&pair, 15, "the row stands at");
}

#[test]
fn another_cluster_and_a_missing_row_are_refused_until_every_journal_was_merged() {
    let scratch = Scratch::new();
    let Some(mut etcd) = etcd(&scratch) else {
        return;
    };
    let pair = Pair::start(scratch.path(), &etcd);
    let backup = etcd.back_up("backup");
    sign_some(&pair, 1);
    etcd.restore(&backup, "second");
    refused_until_both_have_merged(&pair, 5, "etcd's cluster is");

    sign_some(&pair, 7);
    etcd.delete_rows();
    refused_until_both_have_merged(&pair, 11, "row is missing");
}

#[test]
fn a_known_key_is_bound_at_its_mark_and_a_ledger_is_asked_for_by_its_id() {
    let scratch = Scratch::new();
    let Some(etcd) = etcd(&scratch) else { return };
    let pair = Pair::start_unbound(scratch.path(), &etcd);
    let bind = ["ledger", "bind", KEY, "--chain", CHAIN];
    let bound = |daemon, how: &str| run(daemon, &[&bind[..], &[how]].concat());
    pair.signers[0].daemon.init_key(KEY, CHAIN, 10);
    let pair = pair.with_public_key();
    let [a, b] = &pair.signers;
    let other = pair.ask_with_ledger(0, precommit(11, 1), &"0".repeat(32));
    let reason = hsm_tests::client::reason(&other.unwrap_err());
    assert_eq!(reason.as_deref(), Some(Reason::LedgerMismatch.name()));
    pair.ask(0, precommit(11, 1)).unwrap();

    let nothing = bound(&a.daemon, "join");
    assert!(!nothing.status.success() && text(&nothing).contains("no ledger"));
    assert!(bound(&a.daemon, "create").status.success());
    assert!(text(&bound(&a.daemon, "create")).contains("is bound to ledger"));
    b.daemon.init_key(KEY, CHAIN, 5);
    let second = bound(&b.daemon, "create");
    assert!(
        !second.status.success() && text(&second).contains("join it"),
        "{}",
        text(&second)
    );
    assert!(bound(&b.daemon, "join").status.success());

    let id = a.ledger_id();
    assert_eq!((id.len(), &id), (32, &b.ledger_id()));
    // The mark of the first binds the second.
    let other = pair.ask(1, precommit(11, 2));
    assert!(refused(&other, Reason::DoubleSign), "{other:?}");
    pair.ask_with_ledger(1, precommit(12, 1), &id).unwrap();
    let wrong = pair.ask_with_ledger(0, precommit(13, 1), &"0".repeat(32));
    let reason = hsm_tests::client::reason(&wrong.unwrap_err());
    assert_eq!(reason.as_deref(), Some(Reason::LedgerMismatch.name()));
    pair.check();
}

#[test]
fn a_signer_that_is_killed_at_any_moment_comes_back_to_what_the_ledger_holds() {
    let scratch = Scratch::new();
    let Some(etcd) = etcd(&scratch) else { return };
    let mut pair = Pair::start(scratch.path(), &etcd);
    for height in 1..=6 {
        thread::scope(|scope| {
            let (pair, height) = (&pair, height);
            let asked = scope.spawn(move || pair.ask(0, precommit(height, 1)));
            let other = pair.ask(1, precommit(height, 2));
            let answer = asked.join().unwrap();
            assert!(answer.is_ok() != other.is_ok(), "{answer:?} {other:?}");
        });
        pair.signers[0].daemon.kill();
        pair.signers[0].start();
    }
    assert_eq!(pair.positions(), 6);
    pair.check();
}

#[test]
fn a_height_that_the_policy_refuses_raises_no_signers_mark() {
    let scratch = Scratch::new();
    let Some(etcd) = etcd(&scratch) else { return };
    let mut pair = Pair::start(scratch.path(), &etcd);
    let limits = "max_height_jump = 10\nmax_heights_per_second = 0.000001\n";
    for signer in &pair.signers {
        let draft = grant(&uri("sentry", "s"), KEY, CHAIN, &ALL_KINDS) + limits;
        signer.daemon.load_policy(&draft);
    }
    pair.ask(0, precommit(10, 1)).unwrap();
    pair.ask(1, precommit(20, 1)).unwrap();
    // The first has used up what it may rise by, and learns of height 20 by this very request.
    let answer = pair.ask(0, precommit(30, 1));
    assert!(refused(&answer, Reason::HeightRate), "{answer:?}");
    // Another start, and what may rise by so much at once is new.
    pair.signers[1].daemon.kill();
    pair.signers[1].start();
    pair.ask(1, precommit(21, 1)).unwrap();
    pair.check();
}
