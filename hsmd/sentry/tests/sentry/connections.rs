//! Either side may go away and come back.

use std::sync::Arc;

use hsm_proto::v1::Reason;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::house::{House, reached};
use crate::hsmd::{Hsmd, Instead, State, signature};
use crate::node::*;
use crate::pki::Authority;

#[tokio::test]
async fn a_ping_is_answered_while_hsmd_is_away() {
    let mut house = House::new().await;
    house.kill_hsmd().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    node.ping().await;
}

#[tokio::test]
async fn a_vote_asked_for_while_hsmd_restarts_is_signed_within_the_deadline() {
    let mut house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 4500").await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
    house.kill_hsmd().await;
    node.send(vote_request(prevote(8))).await;
    house.start_hsmd().await;
    assert_eq!(signed_vote(node.answer().await).signature, signature(8));
}

#[tokio::test]
async fn a_vote_in_hsmds_hands_when_it_is_killed_is_asked_for_again() {
    let mut house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 4500").await;
    let never = Instead::Wait(Arc::new(Notify::new()));
    house.state.instead.lock().unwrap().push_back(never);
    node.send(vote_request(prevote(8))).await;
    house.arrived(1).await;
    house.kill_hsmd().await;
    house.start_hsmd().await;
    assert_eq!(signed_vote(node.answer().await).signature, signature(8));
    assert_eq!(house.state.signed().len(), 2);
}

#[tokio::test]
async fn an_hsmd_that_is_away_is_a_refusal_at_the_deadline_that_says_so() {
    let mut house = House::new().await;
    house.kill_hsmd().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 200").await;
    let begun = Instant::now();
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert!(begun.elapsed().as_millis() >= 200);
    assert_eq!(error.code, Reason::DeadlineExceeded as i32);
    assert!(error.description.contains(&house.address), "{error:?}");
    assert!(error.description.contains("refused"), "{error:?}");
    house.start_hsmd().await;
    house.connections(1).await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
}

#[tokio::test]
async fn an_hsmd_that_does_not_answer_is_a_refusal_at_the_deadline() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 200").await;
    let never = Instead::Wait(Arc::new(Notify::new()));
    house.state.instead.lock().unwrap().push_back(never);
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert_eq!(error.code, Reason::DeadlineExceeded as i32);
    assert_eq!(node.prevote(8).await.signature, signature(8));
    assert_eq!(*house.state.connections.borrow(), (1, 1));
}

#[tokio::test]
async fn the_known_public_key_is_shown_while_hsmd_is_away_so_that_a_node_can_start() {
    let mut house = House::new().await;
    let (_sentry, listener, mut node) = house.open("0.38", "deadline_ms = 200").await;
    let first = node.ask(public_key_request()).await;
    house.kill_hsmd().await;
    reached(&house.state.connections, |(_, open)| *open == 0).await;
    // The sentry has noticed too once a vote is refused.
    refusal(node.ask(vote_request(prevote(7))).await);
    drop(node);
    let mut node = listener.accept().await;
    assert_eq!(node.ask(public_key_request()).await, first);
}

#[tokio::test]
async fn a_key_that_changed_is_refused_and_nothing_it_signed_reaches_the_node() {
    let mut house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let first = node.ask(public_key_request()).await;
    house.kill_hsmd().await;
    house.state.key.lock().unwrap().public_key = vec![77; 32];
    house.start_hsmd().await;
    for request in [
        vote_request(prevote(7)),
        proposal_request(proposal(7)),
        public_key_request(),
    ] {
        let error = refusal(node.ask(request).await);
        assert_eq!(error.code, Reason::PublicKeyMismatch as i32, "{error:?}");
    }
    house.state.key.lock().unwrap().public_key = vec![8; 32];
    assert_eq!(node.prevote(7).await.signature, signature(7));
    assert_eq!(node.ask(public_key_request()).await, first);
}

#[tokio::test]
async fn a_node_that_starts_after_the_sentry_or_restarts_is_found_within_its_three_seconds() {
    let house = House::new().await;
    let address = format!("unix://{}", house.socket().display());
    let _sentry = house.sentry(&house.config_text("0.38", &[address], ""));
    house.connections(1).await;
    for height in 1..4 {
        let listener = Listener::unix(&house.socket());
        let begun = Instant::now();
        let mut node = listener.accept().await;
        assert!(begun.elapsed().as_secs_f64() < 3.0, "{:?}", begun.elapsed());
        assert_eq!(node.prevote(height).await.signature, signature(height));
    }
}

#[tokio::test]
async fn a_truncated_frame_ends_the_connection_and_the_sentry_dials_again() {
    let house = House::new().await;
    let (_sentry, listener, mut node) = house.open("0.38", "").await;
    node.send_raw(b"\x64only part of 100 bytes").await;
    drop(node);
    assert_eq!(
        listener.accept().await.prevote(7).await.signature,
        signature(7)
    );
}

#[tokio::test]
async fn a_frame_in_pieces_is_no_truncated_frame() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    for byte in b"\x02\x3a\x00" {
        node.send_raw(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(node.answer().await.sum.is_some());
}

#[tokio::test]
async fn an_oversized_frame_or_a_prefix_without_end_closes_the_connection_and_the_sentry_dials_again()
 {
    let house = House::new().await;
    let (_sentry, listener, mut node) = house.open("0.38", "").await;
    // 1 MiB and one byte, announced; eleven bytes that all say that more follow.
    for bytes in [&b"\x81\x80\x40"[..], &[0xff; 11]] {
        node.send_raw(bytes).await;
        assert!(node.is_closed().await);
        node = listener.accept().await;
    }
    assert_eq!(node.prevote(7).await.signature, signature(7));
}

/// cometbft-p2p 0.3 panics on this first message; the sentry must outlive it.
#[tokio::test]
async fn a_malformed_handshake_on_tcp_is_survived() {
    use tokio::io::AsyncWriteExt;
    let house = House::new().await;
    let (listener, address) = Listener::tcp().await;
    let _sentry = house.sentry(&house.config_text("0.38", &[address], ""));
    let Listener::Tcp(raw) = &listener else {
        panic!("TCP");
    };
    // 34 bytes of message: 33 times the key of an unknown field without its value, then field 1's key alone.
    let mut malformed = vec![34];
    malformed.extend_from_slice(&[0x10; 33]);
    malformed.push(0x0a);
    for _ in 0..2 {
        let (mut stream, _) = raw.accept().await.unwrap();
        stream.write_all(&malformed).await.unwrap();
    }
    assert_eq!(
        listener.accept().await.prevote(7).await.signature,
        signature(7)
    );
}

#[tokio::test]
async fn an_hsmd_of_another_authority_is_not_asked() {
    let house = House::new().await;
    let impostor_state = State::new();
    let impostor = Hsmd::start(
        &Authority::new(),
        "127.0.0.1:0",
        Arc::clone(&impostor_state),
    )
    .await;
    let listener = Listener::unix(&house.socket());
    let node = format!("unix://{}", house.socket().display());
    let config = house.config_text("0.38", &[node], "deadline_ms = 300");
    let address = impostor.address.to_string();
    let _sentry = house.sentry(&config.replace(&house.address, &address));
    let mut node = listener.accept().await;
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert!(
        error.description.contains("invalid peer certificate"),
        "{error:?}"
    );
    assert_eq!(*impostor_state.arrived.borrow(), 0);
}

#[tokio::test]
async fn an_hsmd_with_another_name_is_not_asked() {
    let house = House::new().await;
    let listener = Listener::unix(&house.socket());
    let node = format!("unix://{}", house.socket().display());
    let config = house.config_text("0.38", &[node], "deadline_ms = 300");
    let _sentry = house.sentry(&config.replace("hsmd.test", "other.test"));
    let error = refusal(listener.accept().await.ask(vote_request(prevote(7))).await);
    assert!(
        error.description.contains("not valid for name"),
        "{error:?}"
    );
    assert_eq!(*house.state.arrived.borrow(), 0);
}

#[tokio::test]
async fn shutting_down_answers_what_was_asked_and_then_ends() {
    let house = House::new().await;
    let (mut sentry, _listener, mut node) = house.open("0.38", "").await;
    let until = Arc::new(Notify::new());
    let wait = Instead::Wait(Arc::clone(&until));
    house.state.instead.lock().unwrap().push_back(wait);
    node.send(vote_request(prevote(7))).await;
    house.arrived(1).await;
    drop(sentry.shutdown.take());
    until.notify_one();
    assert_eq!(signed_vote(node.answer().await).signature, signature(7));
    assert!(node.is_closed().await);
    sentry.stop().await.unwrap();
}
