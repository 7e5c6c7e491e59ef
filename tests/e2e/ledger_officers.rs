//! What people do about a key that several hsmd share: a signer whose journal is lost is replaced by the word of officers,
//! and a freeze holds for every signer. On a real etcd. Promises 2 and 3.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::Path;

use hsm_proto::v1::Reason;
use hsm_tests::binaries::needs;
use hsm_tests::daemon::allow_root;
use hsm_tests::etcd::{self, Etcd};
use hsm_tests::officers::Officers;
use hsm_tests::pair::{CHAIN, KEY, Pair, precommit, refused, run, succeed, text};
use hsm_tests::process::{PATIENCE, Scratch, wait_for};
use hsmd::config::{Config, MockDevices};
use hsmd::daemon;
use hsmd::guard::State;
use hsmd::ledger::Ledger;

const MISMATCH: &str = "hsmd_ledger_mismatch{chain=\"chain-s\",key=\"shared\"}";

#[test]
fn signers_go_on_without_a_journal_that_is_lost_when_officers_sign_and_it_never_comes_back() {
    let scratch = Scratch::new();
    let installed = needs("etcd and etcdctl", etcd::installed());
    let officers = needs(
        "ssh-keygen",
        Officers::new(scratch.path(), &["ada", "ben", "cleo"]),
    );
    let (Some(()), Some(officers)) = (installed, officers) else {
        return;
    };
    let etcd = Etcd::start(scratch.path());
    let mut pair = Pair::start_unbound(scratch.path(), &etcd);
    with_officers(&mut pair, &officers);
    // The state of the second signer before it was bound.
    pair.signers[1].daemon.kill();
    let (state, image) = (
        pair.signers[1].daemon.state_directory(),
        scratch.path().join("image"),
    );
    copy(&state, &image);
    pair.signers[1].start();
    let init = ["key", "init", KEY, "--chain", CHAIN, "--height", "0"];
    for (signer, how) in pair.signers.iter().zip(["create", "join"]) {
        succeed(&signer.daemon, &[&init[..], &["--ledger", how]].concat());
    }
    let mut pair = pair.with_public_key();
    pair.ask(0, precommit(1, 1)).unwrap();
    pair.ask(1, precommit(2, 1)).unwrap();
    let answered = pair.signers[0]
        .daemon
        .metric("hsmd_ledger_duration_seconds_count{operation=\"swap\"}");
    assert!(answered.is_some_and(|count| count >= 1.0), "{answered:?}");
    let lost = signer_id(&pair, 1);
    pair.signers[1].daemon.kill();
    etcd.delete_rows();
    let answer = pair.ask(0, precommit(3, 1));
    assert!(refused(&answer, Reason::LedgerBehind), "{answer:?}");
    wait_for("the metric of a mismatch", PATIENCE, || {
        (pair.signers[0].daemon.metric(MISMATCH) == Some(1.0)).then_some(())
    });

    let request = [
        "--signer",
        &lost,
        "--chain-height",
        "8",
        "--margin",
        "5",
        "--signer-is-off",
        "sawn apart",
    ];
    let ask = ["state", "request", "replace-journal", KEY, "--chain", CHAIN];
    let early = run(&pair.signers[0].daemon, &[&ask[..], &request].concat());
    assert!(
        !early.status.success() && text(&early).contains("does not wait for"),
        "{}",
        text(&early)
    );
    let merged = pair.signers[0].reconcile();
    assert!(merged.contains(&lost), "{merged}");
    let document = pair.signers[0]
        .daemon
        .succeed(&[&ask[..], &request].concat(), None);
    let replace = |names: &[&str]| {
        let signed = officers.sign("replace-journal", &document, names);
        let options = signed.iter().map(String::as_str);
        let arguments: Vec<&str> = ["ledger", "replace-journal"]
            .into_iter()
            .chain(options)
            .collect();
        run(&pair.signers[0].daemon, &arguments)
    };
    let few = replace(&["ada"]);
    assert!(!few.status.success(), "{}", text(&few));
    let answer = pair.ask(0, precommit(3, 1));
    assert!(refused(&answer, Reason::LedgerBehind), "{answer:?}");
    let enough = replace(&["ada", "cleo"]);
    assert!(text(&enough).contains("ada and cleo"), "{}", text(&enough));
    let again = replace(&["ada", "cleo"]);
    assert!(
        !again.status.success(),
        "a nonce counts once: {}",
        text(&again)
    );

    let below = pair.ask(0, precommit(13, 1));
    assert!(refused(&below, Reason::Regression), "{below:?}");
    pair.ask(0, precommit(14, 1)).unwrap();
    wait_for("the metric of a ledger in order", PATIENCE, || {
        (pair.signers[0].daemon.metric(MISMATCH) == Some(0.0)).then_some(())
    });
    pair.signers[1].start();
    let answer = pair.ask(1, precommit(15, 1));
    assert!(refused(&answer, Reason::LedgerBehind), "{answer:?}");
    let back = pair.signers[1].reconcile();
    assert!(back.contains("is lost, and the others went on"), "{back}");
    let answer = pair.ask(1, precommit(15, 1));
    assert!(refused(&answer, Reason::LedgerBehind), "{answer:?}");
    pair.ask(0, precommit(15, 2)).unwrap();
    // Nor by a state that knows nothing of the ledger.
    pair.signers[1].daemon.kill();
    let later = scratch.path().join("later");
    std::fs::rename(&state, &later).unwrap();
    copy(&image, &state);
    pair.signers[1].start();
    let join = run(
        &pair.signers[1].daemon,
        &[&init[..], &["--ledger", "join"]].concat(),
    );
    assert!(
        !join.status.success() && text(&join).contains("is lost, and the others went on"),
        "{}",
        text(&join)
    );
    pair.ask(0, precommit(16, 2)).unwrap();
    pair.signers[1].daemon.kill();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&later, &state).unwrap();
    let journal = pair.signers[0].daemon.journal();
    let replaced = journal
        .iter()
        .find(|entry| entry["event"] == "ledger_journal_replaced");
    assert_eq!(replaced.expect("an entry")["signer_id"], lost.as_str());
    pair.check();
}

#[test]
fn a_key_that_is_frozen_in_its_row_is_refused_by_every_signer_until_it_is_thawed_there() {
    let scratch = Scratch::new();
    let Some(()) = needs("etcd and etcdctl", etcd::installed()) else {
        return;
    };
    let etcd = Etcd::start(scratch.path());
    let mut pair = Pair::start(scratch.path(), &etcd);
    pair.ask(0, precommit(1, 1)).unwrap();
    in_place_of(&mut pair, Order::Freeze);
    // At once, by the row itself; the other learns it when it starts.
    let answer = pair.ask(0, precommit(2, 1));
    assert!(refused(&answer, Reason::KeyFrozen), "{answer:?}");
    pair.signers[1].start();
    for signer in [0, 1] {
        let answer = pair.ask(signer, precommit(2, 1));
        assert!(refused(&answer, Reason::KeyFrozen), "{answer:?}");
        // What was given before neither.
        wait_for("the row to be followed", PATIENCE, || {
            refused(&pair.ask(signer, precommit(1, 1)), Reason::KeyFrozen).then_some(())
        });
    }
    pair.signers[1].daemon.kill();
    pair.signers[0].daemon.kill();
    pair.signers[0].start();
    let answer = pair.ask(0, precommit(2, 1));
    assert!(
        refused(&answer, Reason::KeyFrozen),
        "after a restart: {answer:?}"
    );

    in_place_of(&mut pair, Order::Thaw);
    pair.signers[1].start();
    pair.ask(1, precommit(2, 1)).unwrap();
    wait_for("the row to be followed", PATIENCE, || {
        pair.ask(0, precommit(3, 1)).ok()
    });
    pair.check();
}

#[test]
fn hsmd_freeze_holds_for_every_signer_of_the_ledger_and_so_does_what_officers_thaw() {
    let scratch = Scratch::new();
    let installed = needs("etcd and etcdctl", etcd::installed());
    let officers = needs(
        "ssh-keygen",
        Officers::new(scratch.path(), &["ada", "ben", "cleo"]),
    );
    let (Some(()), Some(officers)) = (installed, officers) else {
        return;
    };
    let etcd = Etcd::start(scratch.path());
    let mut pair = Pair::start_unbound(scratch.path(), &etcd);
    with_officers(&mut pair, &officers);
    let init = ["key", "init", KEY, "--chain", CHAIN, "--height", "0"];
    for (signer, how) in pair.signers.iter().zip(["create", "join"]) {
        succeed(&signer.daemon, &[&init[..], &["--ledger", how]].concat());
    }
    let pair = pair.with_public_key();
    pair.ask(0, precommit(1, 1)).unwrap();
    let first = &pair.signers[0].daemon;
    succeed(first, &["freeze", KEY, "--reason", "a sentry was stolen"]);
    for signer in [0, 1] {
        let answer = pair.ask(signer, precommit(2, 1));
        assert!(refused(&answer, Reason::KeyFrozen), "{answer:?}");
    }
    let request = [
        "state",
        "request",
        "thaw",
        KEY,
        "--the-cause-is-over",
        "it is back",
    ];
    let document = first.succeed(&request, None);
    let thaw = |names: &[&str]| {
        let signed = officers.sign("thaw", &document, names);
        let options = signed.iter().map(String::as_str);
        let arguments: Vec<&str> = ["thaw"].into_iter().chain(options).collect();
        run(first, &arguments)
    };
    let few = thaw(&["ben"]);
    assert!(!few.status.success(), "{}", text(&few));
    let answer = pair.ask(1, precommit(2, 1));
    assert!(refused(&answer, Reason::KeyFrozen), "{answer:?}");
    let enough = thaw(&["ben", "cleo"]);
    assert!(enough.status.success(), "{}", text(&enough));
    pair.ask(0, precommit(2, 1)).unwrap();
    wait_for("the row to be followed", PATIENCE, || {
        pair.ask(1, precommit(3, 1)).ok()
    });
    pair.check();
}

/// What is done to the row.
enum Order {
    Freeze,
    Thaw,
}

/// Stops the second signer, and does on its state what a daemon would.
fn in_place_of(pair: &mut Pair, order: Order) {
    let daemon = &mut pair.signers[1].daemon;
    daemon.kill();
    let config =
        Config::load(&daemon.config(), MockDevices::Allowed).expect("a good configuration");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let guard = daemon::open_guard(&config).expect("the journal opens");
        let ledger = Ledger::new(config.ledger.as_ref(), &guard, config.deadline).expect("a way");
        let place = guard.inspect(State::in_ledgers).expect("a guard").remove(0);
        match order {
            Order::Freeze => {
                assert!(ledger.freeze(&guard, &place, "").await.is_err());
                assert!(
                    ledger
                        .freeze(&guard, &place, &"a".repeat(201))
                        .await
                        .is_err()
                );
                ledger
                    .freeze(&guard, &place, "the device is suspect")
                    .await
                    .expect("a freeze");
                // The reason given first stays.
                ledger
                    .freeze(&guard, &place, "another")
                    .await
                    .expect("a freeze");
                let frozen = guard.inspect(|state| {
                    let known = state.mark(&place.0, &place.1).expect("a mark");
                    known.ledger.as_ref().and_then(|it| it.frozen.clone())
                });
                assert_eq!(
                    frozen.expect("a guard").as_deref(),
                    Some("the device is suspect")
                );
            }
            Order::Thaw => ledger.thaw(&guard, &place).await.expect("a thaw"),
        }
        guard.close().expect("the journal closes");
    });
}

/// Makes both states anew, with officers.
fn with_officers(pair: &mut Pair, officers: &Officers) {
    let list = officers.list();
    let init = [
        "state",
        "init",
        "--threshold",
        "2",
        "--officers",
        list.to_str().expect("UTF-8"),
    ];
    for signer in &mut pair.signers {
        signer.daemon.kill();
        std::fs::remove_dir_all(signer.daemon.state_directory()).expect("the state");
        signer.daemon.succeed(&init, allow_root());
        let document = signer.daemon.policy_request();
        let signed = officers.sign("policy", &document, &["ada", "ben"]);
        let load = signed.iter().map(String::as_str);
        let load: Vec<&str> = ["policy", "load"].into_iter().chain(load).collect();
        signer.daemon.succeed(&load, allow_root());
        signer.start();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn signer_id(pair: &Pair, signer: usize) -> String {
    let status = pair.signers[signer].ledger_status();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("this signer"));
    line.expect("an id").trim().to_owned()
}
