//! What fails around a request, and that it heals without a restart of anything else. Promise 8.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use hsm_proto::v1::Reason;
use hsm_tests::binaries::needs;
use hsm_tests::client::{Client, ServingStatus};
use hsm_tests::node::{Error, block, vote};
use hsm_tests::process::{PATIENCE, wait_for};
use hsm_tests::sign_bytes;

use hsm_tests::validator::{CHAIN, SENTRY, Transport, Validator};
use tendermint_proto::v0_38::privval::PingRequest;
use tendermint_proto::v0_38::privval::message::Sum;
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};

/// What a node waits for its signer, after which it drops the connection.
const NODES_PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn without_hsmd_a_request_is_refused_within_the_nodes_patience_and_the_connection_heals() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut validator = Validator::start(transport);
        validator.daemon.kill();
        let asked = vote(Prevote, 1, 0, None);
        let begun = Instant::now();
        let refused = validator.connection.sign_vote(CHAIN, &asked);
        assert!(begun.elapsed() < NODES_PATIENCE, "{:?}", begun.elapsed());
        match refused {
            Err(Error::Refused(refusal)) => {
                assert_eq!(refusal.code, i32::from(Reason::DeadlineExceeded))
            }
            other => panic!("{other:?}"),
        }
        let pong = validator
            .connection
            .ask(Sum::PingRequest(PingRequest {}))
            .expect("the connection stays up");
        assert!(matches!(pong, Sum::PingResponse(_)));
        validator.daemon.start();
        validator
            .connection
            .sign_vote(CHAIN, &asked)
            .expect("it signs again");
    }
}

#[test]
fn a_request_waits_for_an_hsmd_that_is_being_restarted() {
    let mut validator = Validator::start(Transport::Unix);
    validator.daemon.kill();
    std::thread::scope(|scope| {
        let Validator {
            connection, daemon, ..
        } = &mut validator;
        let answer = scope
            .spawn(move || connection.sign_vote(CHAIN, &vote(Precommit, 1, 0, Some(block(1)))));
        daemon.start();
        answer
            .join()
            .unwrap()
            .expect("a signature within the deadline");
    });
}

#[test]
fn a_sentry_that_was_killed_connects_again() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut validator = Validator::start(transport);
        let asked = vote(Prevote, 1, 0, None);
        let first = validator.connection.sign_vote(CHAIN, &asked).unwrap();
        validator.sentry.kill();
        validator.sentry.start();
        validator.connection = validator.node.accept().expect("the sentry returns");
        assert_eq!(
            validator.connection.sign_vote(CHAIN, &asked).unwrap(),
            first
        );
    }
}

#[test]
fn new_certificates_are_taken_into_use_without_dropping_a_connection() {
    let mut validator = Validator::start(Transport::Unix);
    validator
        .connection
        .sign_vote(CHAIN, &vote(Prevote, 1, 0, None))
        .unwrap();
    let port = validator.daemon.port();
    let series = format!("hsm_sentry_signer_connections_total{{signer=\"127.0.0.1:{port}\"}}");

    let _server = validator.daemon.authority().signer("hsmd");
    wait_for("hsmd to read its new certificate", PATIENCE, || {
        validator
            .daemon
            .process()
            .log()
            .contains("changed certificate files are in use")
            .then_some(())
    });
    validator
        .connection
        .sign_vote(CHAIN, &vote(Prevote, 2, 0, None))
        .expect("the connection stays up");
    assert_eq!(
        validator.sentry.metric(&series),
        Some(1.0),
        "the sentry connected anew"
    );

    // hsmd judges a client's certificate at each request, so the sentry shows a new one at once: it connects
    // to hsmd anew, and the node notices nothing.
    let _client = validator.daemon.authority().sentry(SENTRY);
    wait_for("the sentry to show its new certificate", PATIENCE, || {
        (validator.sentry.metric(&series) == Some(2.0)).then_some(())
    });
    validator
        .connection
        .sign_vote(CHAIN, &vote(Prevote, 3, 0, None))
        .expect("the connection stays up");
}

#[test]
fn a_request_in_flight_when_hsmd_is_told_to_stop_is_answered_and_the_journal_ends_cleanly() {
    let mut validator = Validator::start(Transport::Unix);
    let config = validator.daemon.config();
    let fast = std::fs::read_to_string(&config).unwrap();
    let slow = fast.replace(
        "backend = \"mock\"\n",
        "backend = \"mock\"\nlatency = \"vendor\"\n",
    );
    assert_ne!(slow, fast);
    std::fs::write(&config, slow).unwrap();
    assert!(validator.daemon.process().terminate().success());
    validator.daemon.start();
    // Looks at the key first, which takes the device a few commands.
    validator
        .connection
        .sign_vote(CHAIN, &vote(Prevote, 1, 0, None))
        .expect("a signature");
    let count = |entries: &[serde_json::Value], event| {
        let events = entries.iter().map(|entry| &entry["event"]);
        events.filter(|name| *name == event).count()
    };
    let reserved = |entries: &[_]| count(entries, "reserved");
    let before = reserved(&validator.daemon.journal());
    std::thread::scope(|scope| {
        let Validator {
            connection, daemon, ..
        } = &mut validator;
        let asked = scope.spawn(|| connection.sign_vote(CHAIN, &vote(Prevote, 2, 0, None)));
        wait_for("the reservation", PATIENCE, || {
            (reserved(&daemon.journal()) > before).then_some(())
        });
        assert!(!asked.is_finished(), "the device was too fast");
        assert!(daemon.process().terminate().success());
        asked.join().unwrap().expect("the signature");
    });
    let entries = validator.daemon.journal();
    assert_eq!(count(&entries, "signed"), reserved(&entries));
    assert_eq!(entries.last().unwrap()["event"], "daemon_stopped");
}

#[test]
fn a_disk_that_takes_no_more_stops_signing_until_it_does_and_hsmd_goes_on() {
    let found = Command::new("prlimit").arg("--version").output().ok();
    if needs("prlimit, of util-linux", found).is_none() {
        return;
    }
    let mut validator = Validator::start(Transport::Unix);
    let fault = "hsmd_journal_fault";
    wait_for("the first metrics", PATIENCE, || {
        (validator.daemon.metric(fault) == Some(0.0)).then_some(())
    });
    // The log has reached the limit too, so that hsmd cannot even say what it lacks.
    let log = validator.directory().join("hsmd.log");
    let mut log = OpenOptions::new().append(true).open(log).unwrap();
    let full = usize::try_from(LARGEST).unwrap();
    log.write_all(&vec![b'\n'; full]).unwrap();
    limit_files(&mut validator, &LARGEST.to_string());
    // Until the segment has reached the limit, its frames overwrite what is within.
    let (height, refusal) = (1..)
        .find_map(|height| {
            let asked = vote(Prevote, height, 0, None);
            match validator.connection.sign_vote(CHAIN, &asked) {
                Ok(_) => None,
                Err(Error::Refused(refusal)) => Some((height, refusal)),
                Err(other) => panic!("{other}"),
            }
        })
        .unwrap();
    assert_eq!(refusal.code, i32::from(Reason::JournalUnavailable));
    assert!(refusal.description.contains("hsmd status"), "{refusal:?}");

    let status = validator.daemon.command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("NOT SIGNING: cannot write"), "{status}");
    wait_for("the fault in the metrics", PATIENCE, || {
        (validator.daemon.metric(fault) == Some(1.0)).then_some(())
    });
    assert_health(&validator, ServingStatus::NotServing);
    let durable = validator.daemon.journal();
    let asked = vote(Prevote, height + 1, 0, None);
    let refused = validator.connection.sign_vote(CHAIN, &asked).unwrap_err();
    assert!(
        refused
            .refusal()
            .contains(Reason::JournalUnavailable.name())
    );
    assert_eq!(validator.daemon.journal(), durable);

    limit_files(&mut validator, "unlimited");
    let signed = wait_for("hsmd to sign again", PATIENCE, || {
        validator.connection.sign_vote(CHAIN, &asked).ok()
    });
    let bytes = sign_bytes::vote(CHAIN, &signed);
    let key = validator.public_key();
    assert!(sign_bytes::verifies(
        key.as_bytes(),
        &bytes,
        &signed.signature
    ));
    wait_for("the fault's end in the metrics", PATIENCE, || {
        (validator.daemon.metric(fault) == Some(0.0)).then_some(())
    });
    assert_health(&validator, ServingStatus::Serving);
    validator.daemon.process().assert_running();
}

/// What the standard health service says of the signer, and of the whole server.
#[track_caller]
fn assert_health(validator: &Validator, expected: ServingStatus) {
    let authority = validator.daemon.authority();
    let sentry = authority.sentry(SENTRY);
    let client = Client::new(
        validator.daemon.port(),
        &authority.certificate(),
        Some(&sentry),
    );
    for service in ["", "hsm.v1.Signer"] {
        wait_for("the health to follow", PATIENCE, || {
            (client.health(service).expect("an answer") == expected).then_some(())
        });
    }
}

/// The size, in bytes, that no file of hsmd may grow beyond: less than a segment.
const LARGEST: u64 = 64 << 10;

/// Sets the limit that anybody may raise again, in the running hsmd.
fn limit_files(validator: &mut Validator, bytes: &str) {
    let hsmd = validator.daemon.process().id().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &hsmd, &format!("--fsize={bytes}:unlimited")])
        .output()
        .unwrap();
    assert!(limited.status.success(), "{limited:?}");
}

#[test]
fn a_node_that_closes_its_connection_is_dialled_again() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut validator = Validator::start(transport);
        for height in 1..=3 {
            validator
                .connection
                .sign_vote(CHAIN, &vote(Prevote, height, 0, None))
                .unwrap();
            let (unused, _) = std::os::unix::net::UnixStream::pair().unwrap();
            validator.connection =
                hsm_tests::node::Connection::Unix(std::io::BufReader::new(unused));
            validator.connection = validator.node.accept().expect("the sentry returns");
        }
    }
}
