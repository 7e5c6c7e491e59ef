//! Tokens, and what joining leaves behind.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use hsm_proto::v1::Reason;
use hsm_tests::binaries::binary;
use hsm_tests::keyserver::{self, Keyserver};
use hsm_tests::process::{PATIENCE, Scratch, wait_for};

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
