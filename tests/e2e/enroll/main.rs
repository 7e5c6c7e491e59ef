//! A fresh host joins with a token and a fingerprint, renews while it signs, and is revoked; every confusion of
//! tokens; stock clients. Promises 4 and 7.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod stock;
mod tokens;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hsm_proto::v1::{self as wire, Reason};
use hsm_tests::authority::uri;
use hsm_tests::binaries::{binary, needs};
use hsm_tests::client::{Client, reason};
use hsm_tests::daemon::{ALL_KINDS, Daemon, Hsm, allow_root, grant};
use hsm_tests::keyserver::{self, Joined, Keyserver};
use hsm_tests::namespace::Namespace;
use hsm_tests::node::{Address, Connection, Error, Node, block, vote};
use hsm_tests::process::{PATIENCE, Process, Scratch, wait_for};
use tendermint_proto::v0_38::types::SignedMsgType;
use tonic::Status;

const CHAIN: &str = "enroll-1";
const KEY: &str = "val0";
/// Within which a revocation counts everywhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// hsmd with certificates of this keyserver, for sentries a and b, at this address.
fn start_daemon(directory: &Path, keyserver: &Keyserver, address: Ipv4Addr) -> Daemon {
    let name = address.to_string();
    let names = ["--name", "localhost", "--name", &name];
    let signer = keyserver.admit("hsmd", "signer", &names);
    let grants = ["a", "b"].map(|name| grant(&uri("sentry", name), KEY, CHAIN, &ALL_KINDS));
    let mut daemon = Daemon::set_up(directory, Hsm::Mock, &[KEY], &grants.concat());
    let old = std::fs::read_to_string(daemon.config()).unwrap();
    let kept = |line: &&str| {
        !["certificate = ", "private_key = ", "client_ca = "]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let kept: Vec<&str> = old.lines().filter(kept).collect();
    let files = format!(
        "[listen]\ncertificate = {server:?}\nprivate_key = {server:?}\nclient_ca = {ca:?}\n",
        server = signer.path("server.pem"),
        ca = signer.path("ca.pem"),
    );
    let followed = format!(
        "[revocation]\nserver = \"{}\"\nserver_name = {:?}\nca = {:?}\ncertificate = {client:?}\nprivate_key = {client:?}\n\
         alarm_after_ms = 2000\n",
        keyserver.address(),
        keyserver::NAME,
        signer.path("ca.pem"),
        client = signer.path("client.pem"),
    );
    let new = kept.join("\n").replacen("[listen]\n", &files, 1);
    let here = format!("\"127.0.0.1:{}\"", daemon.port());
    let there = format!("\"{address}:{}\"", daemon.port());
    let new = format!("{}\n{followed}", new.replacen(&here, &there, 1));
    std::fs::write(daemon.config(), new).unwrap();
    daemon.init_key(KEY, CHAIN, 0);
    daemon.start();
    daemon
}

fn sentry_config(daemon: &Daemon, address: Ipv4Addr, node: &Address) -> String {
    format!(
        "[tls]\ncertificate = \"client.pem\"\nprivate_key = \"client.pem\"\nca = \"ca.pem\"\n\
         [[chain]]\nchain_id = {CHAIN:?}\ncometbft = \"0.38\"\nnode = \"{node}\"\nkey = {KEY:?}\n\
         [[chain.signer]]\naddress = \"{address}:{}\"\nserver_name = \"{address}\"\n",
        daemon.port()
    )
}

/// A command as it runs on the fresh host.
fn within(namespace: &Namespace, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside
        .args(["netns", "exec", namespace.name()])
        .arg(command.get_program())
        .args(command.get_args());
    inside
}

fn prevote(node: &mut Connection, height: i64) -> Result<(), Error> {
    let vote = vote(SignedMsgType::Prevote, height, 0, Some(block(1)));
    node.sign_vote(CHAIN, &vote).map(drop)
}

fn ask(client: &Client, height: i64) -> Result<(), Status> {
    let request = wire::SignCometbftVoteRequest {
        key: KEY.to_owned(),
        chain_id: CHAIN.to_owned(),
        r#type: wire::VoteType::Prevote.into(),
        height,
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..wire::SignCometbftVoteRequest::default()
    };
    client
        .call(async |mut signer| signer.sign_cometbft_vote(request).await)
        .map(drop)
}

fn client(daemon: &Daemon, address: Ipv4Addr, node: &Joined, certificate: &str) -> Client {
    let address = (address, daemon.port()).into();
    let identity = node.identity(certificate);
    Client::new_at(address, &node.path("ca.pem"), Some(&identity))
}

#[test]
fn a_fresh_host_joins_renews_three_times_while_it_signs_and_is_refused_when_it_is_revoked() {
    let namespace = Namespace::new();
    let Some(namespace) = needs("root and network namespaces", namespace) else {
        return;
    };
    let lifetime = match std::env::var_os("HSMD_SOAK") {
        Some(_) => 60,
        None => 15,
    };
    let scratch = Scratch::new();
    let (directory, outside) = (scratch.path(), namespace.outside());
    let lifetimes = format!("sentry_s = {lifetime}\n");
    let mut keyserver = Keyserver::start(&directory.join("keyserver"), outside, &lifetimes);
    let mut daemon = start_daemon(directory, &keyserver, outside);

    // The register assigns the sentry's configuration; the host gets a token and the fingerprint.
    let node = Node::listen(Address::Unix(directory.join("privval.sock"))).unwrap();
    let config = directory.join("hsm-sentry.toml");
    std::fs::write(&config, sentry_config(&daemon, outside, node.address())).unwrap();
    let inside = namespace.inside_cuttable().to_string();
    let token = keyserver.token("a", "sentry", &["--address", &inside]);
    let mut assign = keyserver.command(&["nodes", "--assign", "a"]);
    assign.arg(&config);
    keyserver.succeed(assign);
    std::fs::remove_file(&config).unwrap();
    let host = Joined(directory.join("fresh-host"));
    keyserver.succeed(within(&namespace, &keyserver.join("a", &token, &host.0)));

    let mut sentry = Command::new(binary("hsm-sentry"));
    let configured = host.path("hsm-sentry.toml");
    sentry
        .args(["run", "--config"])
        .arg(configured)
        .args(allow_root());
    let _sentry = Process::start("sentry", &mut within(&namespace, &sentry), directory);
    let mut renew = Command::new(binary("hsm-enroll"));
    renew
        .args(["renew", "--directory"])
        .arg(&host.0)
        .args(allow_root());
    let _renew = Process::start("renew", &mut within(&namespace, &renew), directory);
    let mut validator = node.accept().unwrap();

    // Votes as fast as they are signed, until the certificate was replaced three times.
    let read = || std::fs::read(host.path("client.pem")).unwrap();
    let (mut certificate, mut renewals, mut height) = (read(), 0, 0);
    let began = Instant::now();
    while renewals < 3 {
        height += 1;
        prevote(&mut validator, height).unwrap_or_else(|error| panic!("at {height}: {error:?}"));
        let now = read();
        renewals += usize::from(now != certificate);
        certificate = now;
        let patience = Duration::from_secs(4 * lifetime);
        assert!(
            began.elapsed() < patience,
            "{renewals} renewals in {patience:?}"
        );
    }
    // The last one is in use, too, when the one before has expired.
    let until = Instant::now() + Duration::from_secs(lifetime / 2);
    while Instant::now() < until {
        height += 1;
        prevote(&mut validator, height).unwrap_or_else(|error| panic!("at {height}: {error:?}"));
    }

    // Another sentry, whose connection is open, goes on when the first is revoked.
    let b = keyserver.admit("b", "sentry", &[]);
    let other = client(&daemon, outside, &b, "client");
    height += 1;
    ask(&other, height).unwrap();
    keyserver.succeed(keyserver.command(&["revoke", "--node", "a"]));
    let revoked = Instant::now();
    let refusal = loop {
        height += 1;
        match prevote(&mut validator, height) {
            Ok(()) => assert!(revoked.elapsed() < REVOKED_WITHIN, "still signed for"),
            Err(error) => break error,
        }
    };
    let took = revoked.elapsed();
    assert!(took < REVOKED_WITHIN, "{took:?}");
    let name = Reason::CertificateRevoked.name();
    assert!(refusal.refusal().contains(name), "{refusal:?}");
    ask(&other, height + 1).unwrap();
    let fetch = [
        &["renew", "--once", "--directory"],
        &[host.0.to_str().unwrap()][..],
    ]
    .concat();
    let mut again = Command::new(binary("hsm-enroll"));
    again.args(fetch);
    let said = keyserver.fail(within(&namespace, &again));
    assert!(said.contains(name), "{said}");
    println!("{height} votes, 3 renewals, refused {took:?} after the revocation");

    // Out of reach, the last list holds, across a restart too, and an alarm is raised.
    keyserver.kill();
    daemon.kill();
    daemon.start();
    let refused = client(&daemon, outside, &host, "client");
    let status = ask(&refused, height + 2).unwrap_err();
    assert_eq!(reason(&status).as_deref(), Some(name), "{status:?}");
    wait_for("an alarm", PATIENCE, || {
        let status = &daemon.status()["revocation"];
        (status["alarm"] == true && status["sequence"] == 2).then_some(())
    });
    assert_eq!(daemon.metric("hsmd_revocation_alarm"), Some(1.0));
    keyserver.serve();
    wait_for("the alarm to end", PATIENCE, || {
        (daemon.status()["revocation"]["alarm"] == false).then_some(())
    });
    let journaled = daemon.journal();
    let is_taken = |entry: &&serde_json::Value| entry.to_string().contains("revocations_taken");
    assert_eq!(journaled.iter().filter(is_taken).count(), 2);
    assert!(
        journaled
            .iter()
            .any(|entry| entry.to_string().contains(name))
    );
}

#[test]
fn one_command_revokes_everyone_and_a_new_token_admits_again() {
    let scratch = Scratch::new();
    let here = Ipv4Addr::LOCALHOST;
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), here, "");
    let daemon = start_daemon(scratch.path(), &keyserver, here);
    let (a, b) = (
        keyserver.admit("a", "sentry", &[]),
        keyserver.admit("b", "sentry", &[]),
    );
    let open = [&a, &b].map(|node| client(&daemon, here, node, "client"));
    ask(&open[0], 1).unwrap();
    ask(&open[1], 2).unwrap();
    let early = keyserver.token("a", "sentry", &[]);
    keyserver.succeed(keyserver.command(&["revoke", "--all"]));
    let revoked = Instant::now();
    // Connections that were opened before.
    let mut height = 2;
    for client in &open {
        let status = loop {
            height += 1;
            match ask(client, height) {
                Ok(()) => assert!(revoked.elapsed() < REVOKED_WITHIN, "still signed for"),
                Err(status) => break status,
            }
        };
        let name = Reason::CertificateRevoked.name();
        assert_eq!(reason(&status).as_deref(), Some(name), "{status:?}");
    }
    let said = keyserver.fail(keyserver.join("a", &early, &a.0));
    assert!(said.contains(Reason::TokenRevoked.name()), "{said}");
    let a = keyserver.admit("a", "sentry", &[]);
    let again = client(&daemon, here, &a, "client");
    wait_for("the new certificate to be taken", PATIENCE, || {
        ask(&again, height).ok()
    });
}

#[test]
fn a_granting_certificate_and_one_of_another_role_sign_nothing() {
    let scratch = Scratch::new();
    let here = Ipv4Addr::LOCALHOST;
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), here, "");
    let daemon = start_daemon(scratch.path(), &keyserver, here);
    let sentry = keyserver.admit("a", "sentry", &[]);
    let operator = keyserver.admit("o", "operator", &[]);
    for (node, certificate, expected) in [
        (&sentry, "grant", Reason::GrantingCertificate),
        (&operator, "client", Reason::WrongRole),
    ] {
        let status = ask(&client(&daemon, here, node, certificate), 1).unwrap_err();
        assert_eq!(
            reason(&status).as_deref(),
            Some(expected.name()),
            "{status:?}"
        );
    }
    // Refusals are recorded without keeping the caller waiting.
    for reason in [Reason::GrantingCertificate, Reason::WrongRole] {
        let named = |entry: &serde_json::Value| entry.to_string().contains(reason.name());
        wait_for(reason.name(), PATIENCE, || {
            daemon.journal().iter().any(named).then_some(())
        });
    }
}
