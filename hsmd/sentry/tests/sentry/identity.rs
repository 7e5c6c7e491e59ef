//! The sentry's certificate: what is accepted, and what happens when the files change.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use hsm_sentry::config;
use hsm_sentry::tls::{Error, Identity};
use tokio::sync::Notify;

use crate::house::{CALLER, House, reached};
use crate::hsmd::{Instead, signature};
use crate::node::*;
use crate::pki::{Authority, replace};

fn files(house: &House) -> config::Tls {
    config::Tls {
        certificate: house.path().join("sentry.pem"),
        private_key: house.path().join("sentry.key"),
        ca: house.path().join("ca.pem"),
    }
}

#[tokio::test]
async fn changed_certificate_files_replace_the_connection_and_drop_no_request() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 4500").await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
    let until = Arc::new(Notify::new());
    let wait = Instead::Wait(Arc::clone(&until));
    house.state.instead.lock().unwrap().push_back(wait);
    let arrived = *house.state.arrived.borrow();
    node.send(vote_request(prevote(8))).await;
    house.arrived(arrived + 1).await;

    let renewed = house.new_certificate();
    renewed.write(house.path());
    house.connections(2).await;
    until.notify_one();
    assert_eq!(signed_vote(node.answer().await).signature, signature(8));
    // The old connection ends once nothing is in flight on it.
    reached(&house.state.connections, |counts| *counts == (2, 1)).await;
    assert_eq!(node.prevote(9).await.signature, signature(9));
    let (_, last) = house.state.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last, renewed.der);
}

#[tokio::test]
async fn changed_files_that_cannot_be_used_leave_the_old_certificate_in_use() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    // A new certificate whose key is not there yet.
    let renewed = house.new_certificate();
    replace(&house.path().join("sentry.pem"), &renewed.certificate);
    assert_eq!(node.prevote(7).await.signature, signature(7));
    let (_, first) = house.state.asked.lock().unwrap().last().cloned().unwrap();
    assert_ne!(first, renewed.der);
    // Its key arrives.
    renewed.write(house.path());
    reached(&house.state.connections, |counts| *counts == (2, 1)).await;
    assert_eq!(node.prevote(8).await.signature, signature(8));
    let (_, last) = house.state.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last, renewed.der);
}

#[tokio::test]
async fn good_files_name_the_caller() {
    let house = House::new().await;
    let identity = Identity::load(&files(&house)).unwrap();
    assert_eq!(identity.uri, CALLER);
    assert!(!identity.is_expired());
    house.authority.client(&[CALLER], true).write(house.path());
    assert!(Identity::load(&files(&house)).unwrap().is_expired());
}

#[tokio::test]
async fn a_private_key_that_others_may_read_is_refused_with_the_remedy() {
    let house = House::new().await;
    let key = files(&house).private_key;
    for mode in [0o640, 0o604, 0o660, 0o644] {
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let refused = Identity::load(&files(&house)).unwrap_err();
        assert!(matches!(refused, Error::KeyNotPrivate { .. }), "{refused}");
        assert!(refused.to_string().contains("chmod 0600"), "{refused}");
    }
    std::fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    Identity::load(&files(&house)).unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_with_their_name_and_without_their_content() {
    let house = House::new().await;
    let write = |name: &str, content: &str| replace(&house.path().join(name), content);
    let good = house.new_certificate();
    let refused = |file: &str, fault: &str| {
        let refused = Identity::load(&files(&house)).unwrap_err().to_string();
        assert!(
            refused.contains(file) && refused.contains(fault),
            "{refused}"
        );
        assert!(!refused.contains("c2VjcmV0"), "{refused}");
        good.write(house.path());
    };
    write("sentry.key", &house.new_certificate().key);
    refused("sentry.key", "is not the key of");
    write(
        "sentry.key",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    );
    refused("sentry.key", "unsupported kind");
    write("sentry.key", "c2VjcmV0");
    refused("sentry.key", "holds no private key");
    write("sentry.pem", "c2VjcmV0");
    refused("sentry.pem", "holds no certificate");
    std::fs::remove_file(house.path().join("sentry.pem")).unwrap();
    refused("sentry.pem", "cannot be read");
    write("sentry.pem", &"x".repeat(300_000));
    refused("sentry.pem", "too many");
    house.authority.client(&[], false).write(house.path());
    refused("sentry.pem", "has 0 URI names");
    house
        .authority
        .client(&[CALLER, "spiffe://test/sentry/two"], false)
        .write(house.path());
    refused("sentry.pem", "has 2 URI names");
    write("ca.pem", "c2VjcmV0");
    refused("ca.pem", "holds no certificate");
}

#[tokio::test]
async fn a_certificate_that_hsmd_refuses_is_a_refusal_that_says_so() {
    let house = House::new().await;
    Authority::new()
        .client(&[CALLER], false)
        .write(house.path());
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 500").await;
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert!(error.description.contains("alert"), "{error:?}");
    assert_eq!(*house.state.arrived.borrow(), 0);
    // A good one is taken up without a restart.
    house.new_certificate().write(house.path());
    house.connections(1).await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
}
