//! Clients that are not ours: openssl, and gRPC for Python.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use hsm_tests::authority::uri;
use hsm_tests::binaries::{needs, tests_folder};
use hsm_tests::keyserver::{Joined, Keyserver};
use hsm_tests::process::Scratch;

use super::{CHAIN, KEY, start_daemon};

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
