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

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hsm_proto::v1::{self as wire, Reason};
use hsm_tests::authority::uri;
use hsm_tests::binaries::{binary, needs, tests_folder};
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
    for client in &open {
        let mut height = 3;
        let status = loop {
            match ask(client, height) {
                Ok(()) => assert!(revoked.elapsed() < REVOKED_WITHIN, "still signed for"),
                Err(status) => break status,
            }
            height += 1;
        };
        let name = Reason::CertificateRevoked.name();
        assert_eq!(reason(&status).as_deref(), Some(name), "{status:?}");
    }
    let said = keyserver.fail(keyserver.join("a", &early, &a.0));
    assert!(said.contains(Reason::TokenRevoked.name()), "{said}");
    let a = keyserver.admit("a", "sentry", &[]);
    let again = client(&daemon, here, &a, "client");
    wait_for("the new certificate to be taken", PATIENCE, || {
        ask(&again, 1_000_000).ok()
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
    let journal = daemon.journal();
    for reason in [Reason::GrantingCertificate, Reason::WrongRole] {
        let named = |entry: &serde_json::Value| entry.to_string().contains(reason.name());
        assert!(journal.iter().any(named), "{}", reason.name());
    }
}

#[test]
fn every_wrong_use_of_a_token_is_refused_with_its_own_reason_and_journaled() {
    let scratch = Scratch::new();
    let here = Ipv4Addr::LOCALHOST;
    let mut keyserver = Keyserver::start(&scratch.path().join("keyserver"), here, "");
    let folder = |name: &str| scratch.path().join(name);
    let mut expected = Vec::new();
    let mut refused = |keyserver: &Keyserver, node: &str, token: &Path, reason: Reason| {
        let said = keyserver.fail(keyserver.join(node, token, &folder("refused")));
        assert!(said.contains(reason.name()), "{}: {said}", reason.name());
        assert!(!folder("refused").join("grant.pem").exists());
        expected.push(reason.name().to_owned());
    };

    // From another address, and for another node: it stays good for its own.
    let elsewhere = keyserver.token("a", "sentry", &["--address", "192.0.2.1"]);
    refused(&keyserver, "a", &elsewhere, Reason::TokenAddress);
    let token = keyserver.token("a", "sentry", &["--address", "127.0.0.1"]);
    refused(&keyserver, "b", &token, Reason::TokenNode);
    keyserver.succeed(keyserver.join("a", &token, &folder("a")));
    // Twice, and after a crash.
    refused(&keyserver, "a", &token, Reason::TokenSpent);
    keyserver.kill();
    keyserver.serve();
    refused(&keyserver, "a", &token, Reason::TokenSpent);
    // One that was not used survives the crash.
    let kept = keyserver.token("c", "sentry", &[]);
    keyserver.kill();
    keyserver.serve();
    keyserver.succeed(keyserver.join("c", &kept, &folder("c")));
    // After its time.
    let short = keyserver.token("a", "sentry", &["--valid", "1"]);
    wait_for("the token to expire", PATIENCE, || {
        let open = &keyserver.json(&["nodes"])["nodes"][0]["open_tokens"];
        // The one for another address is still open.
        (*open == 1).then_some(())
    });
    refused(&keyserver, "a", &short, Reason::TokenExpired);
    // One that was never made, and another server than the pinned one.
    let unknown = folder("unknown");
    std::fs::copy(&short, &unknown).unwrap();
    let text = std::fs::read_to_string(&unknown).unwrap();
    let first = if text.starts_with('A') { "B" } else { "A" };
    std::fs::write(&unknown, format!("{first}{}", &text[1..])).unwrap();
    refused(&keyserver, "a", &unknown, Reason::TokenUnknown);
    let mut pinned = Command::new(binary("hsm-enroll"));
    pinned.args(["join", "--server", &keyserver.address(), "--node", "a"]);
    pinned.args(["--server-name", keyserver::NAME]);
    pinned.args(["--ca-fingerprint", &"0".repeat(64), "--token-file"]);
    pinned.arg(&kept).arg("--directory").arg(folder("refused"));
    let said = keyserver.fail(pinned);
    assert!(said.contains("pinned fingerprint"), "{said}");

    keyserver.stop();
    assert_eq!(keyserver.refusals(), expected);
    let tokens = std::fs::read_to_string(&token).unwrap();
    for entry in keyserver.journal() {
        assert!(
            !entry.to_string().contains(tokens.trim()),
            "a token in {entry}"
        );
    }
}

#[test]
fn of_two_joins_with_one_token_at_the_same_instant_one_succeeds() {
    const RACERS: usize = 6;
    let scratch = Scratch::new();
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), Ipv4Addr::LOCALHOST, "");
    for round in 0..3 {
        let token = keyserver.token("a", "sentry", &[]);
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let folder = scratch.path().join(format!("racer-{round}-{racer}"));
                let mut join = keyserver.join("a", &token, &folder);
                join.stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            let output = racer.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                won += 1;
            } else {
                assert!(said.contains(Reason::TokenSpent.name()), "{said}");
            }
        }
        assert_eq!(won, 1);
    }
    let journal = keyserver.journal();
    let joined = journal
        .iter()
        .filter(|entry| entry["event"] == "node_joined");
    assert_eq!(joined.count(), 3);
}

#[test]
fn a_node_that_joins_again_voids_what_it_had_before() {
    let scratch = Scratch::new();
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), Ipv4Addr::LOCALHOST, "");
    let first = keyserver.admit("a", "sentry", &[]);
    let stolen = scratch.path().join("stolen");
    std::fs::rename(&first.0, &stolen).unwrap();
    let renew = |folder: &Path| {
        let mut command = Command::new(binary("hsm-enroll"));
        command.args(["renew", "--once", "--directory"]).arg(folder);
        command
    };
    keyserver.succeed(renew(&stolen));
    let second = keyserver.admit("a", "sentry", &[]);
    let said = keyserver.fail(renew(&stolen));
    assert!(said.contains(Reason::GrantSuperseded.name()), "{said}");
    keyserver.succeed(renew(&second.0));
    assert_eq!(keyserver.refusals(), [Reason::GrantSuperseded.name()]);
}

#[test]
fn assigned_files_are_signed_and_replaced_and_never_a_nodes_own() {
    let scratch = Scratch::new();
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), Ipv4Addr::LOCALHOST, "");
    let node = keyserver.admit("a", "sentry", &[]);
    let assign = |files: &[(&str, &str)]| {
        let mut command = keyserver.command(&["nodes", "--assign", "a"]);
        for (name, content) in files {
            let path = scratch.path().join(name);
            std::fs::write(&path, content).unwrap();
            command.arg(path);
        }
        command
    };
    let renew = || {
        let mut command = Command::new(binary("hsm-enroll"));
        command
            .args(["renew", "--once", "--directory"])
            .arg(&node.0);
        command
    };
    keyserver.succeed(assign(&[("one.toml", "first"), ("two.toml", "second")]));
    keyserver.succeed(renew());
    let read = |name: &str| std::fs::read_to_string(node.path(name)).ok();
    assert_eq!(read("one.toml").as_deref(), Some("first"));
    keyserver.succeed(assign(&[("one.toml", "changed")]));
    keyserver.succeed(renew());
    assert_eq!(
        (read("one.toml").as_deref(), read("two.toml")),
        (Some("changed"), None)
    );
    for own in ["client.pem", "grant.pem", "node.toml", ".hidden"] {
        let said = keyserver.fail(assign(&[(own, "x")]));
        assert!(said.contains("no file name"), "{said}");
    }
    // Signed by another key.
    let other = Keyserver::start(&scratch.path().join("other"), Ipv4Addr::LOCALHOST, "");
    std::fs::copy(other.directory().join("ca.pem"), node.path("issuer.pem")).unwrap();
    let said = keyserver.fail(renew());
    assert!(said.contains("did not sign"), "{said}");
}

#[test]
fn openssl_verifies_what_is_issued_and_a_stock_grpc_client_signs_with_it() {
    let scratch = Scratch::new();
    let here = Ipv4Addr::LOCALHOST;
    let keyserver = Keyserver::start(&scratch.path().join("keyserver"), here, "");
    let daemon = start_daemon(scratch.path(), &keyserver, here);
    let a = keyserver.admit("a", "sentry", &[]);
    let signer = Joined(scratch.path().join("node-hsmd"));
    let Some(()) = needs("openssl", runs("openssl", &["version"])) else {
        return;
    };
    for (file, purpose, uri_san) in [
        (a.path("client.pem"), "sslclient", uri("sentry", "a")),
        (a.path("grant.pem"), "sslclient", uri("grant", "a")),
        (
            signer.path("client.pem"),
            "sslclient",
            uri("signer", "hsmd"),
        ),
        (
            signer.path("server.pem"),
            "sslserver",
            uri("signer", "hsmd"),
        ),
    ] {
        let verify = |purpose: &str| {
            let mut command = Command::new("openssl");
            command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
            command.arg(a.path("ca.pem")).arg(&file);
            command.output().unwrap()
        };
        let output = verify(purpose);
        assert!(output.status.success(), "{}: {output:?}", file.display());
        let other = if purpose == "sslclient" {
            "sslserver"
        } else {
            "sslclient"
        };
        assert!(!verify(other).status.success(), "{}", file.display());
        let mut shown = Command::new("openssl");
        shown
            .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
            .arg(&file);
        let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
        assert_eq!(shown.matches("URI:").count(), 1, "{shown}");
        assert!(shown.contains(&format!("URI:{uri_san}")), "{shown}");
        assert_eq!(
            shown.contains("DNS:localhost"),
            purpose == "sslserver",
            "{shown}"
        );
    }
    let Some(library) = needs("gRPC for Python", grpc_python()) else {
        return;
    };
    let stubs = scratch.path().join("stubs");
    std::fs::create_dir(&stubs).unwrap();
    let mut python = Command::new("python3");
    python
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg(tests_folder().join("grpc/sign.py"));
    python
        .arg(tests_folder().with_file_name("proto"))
        .arg(&stubs);
    python.arg(format!("localhost:{}", daemon.port()));
    python.arg(&a.0).args([KEY, CHAIN]);
    let output = python.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(hex::decode(printed.trim()).unwrap().len(), 64, "{printed}");
}

fn runs(program: &str, arguments: &[&str]) -> Option<()> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then_some(())
}

/// Where `tests/install.sh` puts it.
fn grpc_python() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let library = target.join("grpc-python");
    library.join("grpc_tools").is_dir().then_some(library)
}

#[test]
fn the_ca_may_be_an_intermediate_under_an_offline_root() {
    let scratch = Scratch::new();
    let Some(()) = needs("openssl", runs("openssl", &["version"])) else {
        return;
    };
    let keyserver = Keyserver::start_under_root(&scratch.path().join("keyserver"));
    let node = keyserver.admit("a", "sentry", &[]);
    let chain = std::fs::read_to_string(node.path("client.pem")).unwrap();
    assert_eq!(
        chain.matches("BEGIN CERTIFICATE").count(),
        2,
        "leaf and intermediate"
    );
    let mut verify = Command::new("openssl");
    verify
        .args(["verify", "-x509_strict", "-CAfile"])
        .arg(node.path("ca.pem"));
    verify
        .arg("-untrusted")
        .arg(node.path("issuer.pem"))
        .arg(node.path("client.pem"));
    let output = verify.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
