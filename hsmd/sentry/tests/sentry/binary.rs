//! The command line: exit codes, `check`, signals, metrics.

use std::process::{Child, Command, Output, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{CALLER, House};
use crate::hsmd::signature;
use crate::node::*;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hsm-sentry"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn check(house: &House, config: &str, more: &[&str]) -> Output {
    std::fs::write(house.config_file(), config).unwrap();
    let file = house.config_file();
    let mut arguments = vec!["check", "--config", file.to_str().unwrap()];
    arguments.extend_from_slice(more);
    command(&arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_prints_what_would_run_and_ends_with_0() {
    let house = House::new().await;
    let config = house.config_text("0.38", &["unix:///run/node/privval.sock".to_owned()], "");
    let output = check(&house, &config, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = text(&output.stdout);
    for part in [
        CALLER,
        CHAIN,
        "unix:///run/node/privval.sock",
        "0.38",
        &house.address,
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    let output = check(&house, &config, &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["chains"][0]["cometbft"], "0.38");
    assert_eq!(json["caller"], CALLER);
    assert_eq!(json["chains"][0]["signers"][0]["state"], "usable");
}

#[tokio::test]
async fn check_refuses_a_bad_configuration_with_1_and_the_remedy() {
    let house = House::new().await;
    let good = house.config_text("0.38", &["unix:///run/privval.sock".to_owned()], "");
    let bad = good.replace("unix:///run/privval.sock", "tcp://10.0.0.1:26659");
    let output = check(&house, &bad, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("allow_remote_node"),
        "{output:?}"
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);

    let missing = good.replace("sentry.key", "nothing.key");
    let output = check(&house, &missing, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing.key"), "{output:?}");

    house.authority.client(&[CALLER], true).write(house.path());
    let output = check(&house, &good, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("expired"), "{output:?}");
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["run"][..], &["fly"], &["check", "--config"], &[]] {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn root_and_only_root_is_refused_unless_it_is_allowed() {
    let output = command(&["run", "--config", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let refused = text(&output.stderr).contains("--allow-root");
    assert_eq!(refused, nix::unistd::geteuid().is_root(), "{output:?}");
    let output = command(&["run", "--allow-root", "--config", "/nonexistent"])
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("/nonexistent"), "{output:?}");
}

#[tokio::test]
async fn the_program_signs_shows_metrics_and_ends_with_0_on_sigterm() {
    let house = House::new().await;
    let listener = Listener::unix(&house.socket());
    let node = format!("unix://{}", house.socket().display());
    let port = free_port().await;
    let config = house.config_text("0.38", &[node], "");
    let metrics = format!("{config}[metrics]\nlisten = \"127.0.0.1:{port}\"\n");
    std::fs::write(house.config_file(), metrics).unwrap();
    let file = house.config_file();
    let arguments = ["run", "--allow-root", "--config", file.to_str().unwrap()];
    let mut child = Running(Some(command(&arguments).spawn().unwrap()));

    let mut node = listener.accept().await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
    let scraped = scrape(port).await;
    for line in [
        format!("hsm_sentry_requests_total{{chain=\"{CHAIN}\",kind=\"prevote\",result=\"ok\"}} 1"),
        format!(
            "hsm_sentry_signer_connected{{signer=\"{}\"}} 1",
            house.address
        ),
        "hsm_sentry_build_info{version=".to_owned(),
        "hsm_sentry_node_connected{chain=".to_owned(),
        "hsm_sentry_request_duration_seconds_bucket{".to_owned(),
        "hsm_sentry_certificate_not_after_timestamp_seconds".to_owned(),
    ] {
        assert!(scraped.contains(&line), "{line}\n{scraped}");
    }

    let child = child.0.take().unwrap();
    let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = ended.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(node.is_closed().await);
    // Nothing secret is logged.
    let key = std::fs::read_to_string(house.path().join("sentry.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!text(&output.stderr).contains(secret));
}

/// Killed where the test fails before its end.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) async fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}
