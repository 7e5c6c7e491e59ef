//! What is not signed is refused, and the connection stays up.

use hsm_proto::privval::message::Sum;
use hsm_proto::privval::*;
use hsm_proto::v1::Reason;
use tonic::Code;

use crate::house::House;
use crate::hsmd::{Instead, signature};
use crate::node::*;

#[tokio::test]
async fn a_refusal_of_hsmd_reaches_the_node_with_reason_and_sentence() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    for (code, reason) in [
        (Code::FailedPrecondition, Reason::DoubleSign),
        (Code::FailedPrecondition, Reason::Regression),
        (Code::PermissionDenied, Reason::ChainNotGranted),
        (Code::InvalidArgument, Reason::ExtensionNotAllowed),
        (Code::Unauthenticated, Reason::CertificateExpired),
        (Code::Internal, Reason::DeviceFault),
    ] {
        for request in [vote_request(prevote(7)), proposal_request(proposal(7))] {
            let refuse = Instead::Refuse(code, reason);
            house.state.instead.lock().unwrap().push_back(refuse);
            let error = refusal(node.ask(request).await);
            assert_eq!(error.code, reason as i32);
            let expected = format!("{}: as the test wants", reason.name());
            assert_eq!(error.description, expected);
        }
        assert_eq!(node.prevote(8).await.signature, signature(8));
    }
    // Each refusal was final: none was asked twice.
    assert_eq!(house.state.signed().len(), 18);
}

#[tokio::test]
async fn a_passing_fault_of_hsmd_is_tried_again_within_the_deadline() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    for (code, reason) in [
        (Code::Unavailable, Reason::DeviceUnavailable),
        (Code::ResourceExhausted, Reason::JournalOverloaded),
        (Code::Unavailable, Reason::ShuttingDown),
    ] {
        let refuse = Instead::Refuse(code, reason);
        house.state.instead.lock().unwrap().push_back(refuse);
        assert_eq!(node.prevote(7).await.signature, signature(7), "{reason:?}");
    }
    assert_eq!(house.state.signed().len(), 6);
}

#[tokio::test]
async fn a_fault_that_does_not_pass_is_refused_at_the_deadline_with_hsmds_reason() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "deadline_ms = 300").await;
    for _ in 0..20 {
        let refuse = Instead::Refuse(Code::Unavailable, Reason::JournalUnavailable);
        house.state.instead.lock().unwrap().push_back(refuse);
    }
    let error = refusal(node.ask(vote_request(prevote(7))).await);
    assert_eq!(error.code, Reason::JournalUnavailable as i32);
    house.state.instead.lock().unwrap().clear();
    assert_eq!(node.prevote(7).await.signature, signature(7));
}

#[tokio::test]
async fn sign_bytes_is_refused_and_never_forwarded() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("1.0", "").await;
    // SignBytesRequest of 1.0, and Celestia's SignRawBytesRequest under the same number.
    for body in [
        &b"\x4a\x04\x0a\x02hi"[..],
        b"\x4a\x0b\x0a\x01c\x12\x02hi\x1a\x02id",
    ] {
        let mut frame = vec![u8::try_from(body.len()).unwrap()];
        frame.extend_from_slice(body);
        node.send_raw(&frame).await;
        let error = refusal(node.answer().await);
        assert_eq!(error.code, Reason::KindNotGranted as i32);
        assert!(error.description.contains("never signed"), "{error:?}");
    }
    assert_eq!(*house.state.arrived.borrow(), 0);
    node.ping().await;
}

#[tokio::test]
async fn another_chain_than_the_configured_one_is_refused_without_asking_hsmd() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let chain_id = "other-chain".to_owned();
    for request in [
        Sum::PubKeyRequest(PubKeyRequest {
            chain_id: chain_id.clone(),
        }),
        Sum::SignVoteRequest(SignVoteRequest {
            vote: Some(prevote(7)),
            chain_id: chain_id.clone(),
            skip_extension_signing: false,
        }),
        Sum::SignProposalRequest(SignProposalRequest {
            proposal: Some(proposal(7)),
            chain_id,
        }),
    ] {
        let error = refusal(node.ask(request).await);
        assert!(error.description.contains("\"other-chain\""), "{error:?}");
        assert!(error.description.contains(CHAIN), "{error:?}");
    }
    assert_eq!(*house.state.arrived.borrow(), 0);
}

#[tokio::test]
async fn a_request_without_a_vote_or_of_another_type_is_refused() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let empty = Sum::SignVoteRequest(SignVoteRequest {
        vote: None,
        chain_id: CHAIN.to_owned(),
        skip_extension_signing: false,
    });
    let mut disguised = proposal(7);
    disguised.r#type = SignedMsgType::Precommit.into();
    for request in [empty, proposal_request(disguised)] {
        let error = refusal(node.ask(request).await);
        assert_eq!(error.code, Reason::InvalidField as i32);
    }
    assert_eq!(*house.state.arrived.borrow(), 0);
}

#[tokio::test]
async fn an_extension_on_a_line_that_has_none_points_at_the_configuration() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.37", "").await;
    let error = refusal(node.ask(vote_request(precommit(7, b"price"))).await);
    assert_eq!(error.code, Reason::ExtensionNotAllowed as i32);
    assert!(error.description.contains("cometbft"), "{error:?}");
}

/// The node would end itself over the missing extension signature.
#[tokio::test]
async fn a_faulty_answer_of_hsmd_is_refused() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let forget = Instead::ForgetExtension;
    house.state.instead.lock().unwrap().push_back(forget);
    let error = refusal(node.ask(vote_request(precommit(7, b"price"))).await);
    assert_eq!(error.code, Reason::Internal as i32);
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_nothing_on_a_connection_that_stays_up() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    // A field of a later line; an answer instead of a request; an empty message; no protobuf at all.
    for frame in [
        &b"\x04\x6a\x02\x08\x01"[..],
        b"\x02\x42\x00",
        b"\x00",
        b"\x03\xff\xff\xff",
    ] {
        node.send_raw(frame).await;
        assert_eq!(node.answer().await, Message::default(), "{frame:?}");
    }
    assert_eq!(node.prevote(7).await.signature, signature(7));
}

#[tokio::test]
async fn on_tcp_too_what_is_no_request_is_answered_with_nothing_and_sign_bytes_refused() {
    let house = House::new().await;
    let (listener, address) = Listener::tcp().await;
    let _sentry = house.sentry(&house.config_text("1.0", &[address], ""));
    let mut node = listener.accept().await;
    let error = refusal(node.ask(Sum::SignBytesRequest(SignBytesRequest {})).await);
    assert_eq!(error.code, Reason::KindNotGranted as i32);
    let answer = node.ask(Sum::PingResponse(PingResponse {})).await;
    assert_eq!(answer, Message::default());
    node.ping().await;
}
