//! What is signed comes back as the node expects it.

use hsm_proto::privval::message::Sum;
use hsm_proto::privval::{PartSetHeader, SignVoteRequest, SignedProposalResponse, public_key};
use hsm_proto::v1;

use crate::house::House;
use crate::hsmd::{Asked, extension_signature, first_timestamp, signature};
use crate::node::*;

#[tokio::test]
async fn a_vote_comes_back_signed_and_otherwise_as_it_was_sent() {
    let house = House::new().await;
    for line in ["0.34", "0.37", "0.38", "0.39", "1.0"] {
        let (sentry, _listener, mut node) = house.open(line, "").await;
        let vote = node.prevote(7).await;
        let mut expected = prevote(7);
        expected.signature = signature(7);
        // What was signed may be an earlier answer, with its timestamp.
        expected.timestamp = Some(first_timestamp());
        assert_eq!(vote, expected, "{line}");
        sentry.stop().await.unwrap();
    }
    let Some(Asked::Vote(request)) = house.state.signed().pop() else {
        panic!("nothing was asked");
    };
    assert_eq!((&*request.key, &*request.chain_id), ("main", CHAIN));
    assert_eq!((request.height, request.round, request.r#type), (7, 2, 1));
    assert_eq!(request.timestamp, prevote(7).timestamp);
    let block = v1::BlockId {
        hash: vec![1; 32],
        part_set_total: 1,
        part_set_hash: vec![2; 32],
    };
    assert_eq!(request.block_id, Some(block));
}

#[tokio::test]
async fn a_proposal_comes_back_signed_and_otherwise_as_it_was_sent() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let answer = node.ask(proposal_request(proposal(8))).await;
    let mut expected = proposal(8);
    expected.signature = signature(8);
    expected.timestamp = Some(first_timestamp());
    let response = SignedProposalResponse {
        proposal: Some(expected),
        error: None,
    };
    assert_eq!(answer.sum, Some(Sum::SignedProposalResponse(response)));
    let signed = house.state.signed();
    let [Asked::Proposal(request)] = signed.as_slice() else {
        panic!("another request");
    };
    assert_eq!(
        (request.height, request.round, request.pol_round),
        (8, 2, -1)
    );
}

#[tokio::test]
async fn extensions_are_signed_as_the_line_wants_it() {
    let house = House::new().await;
    let mut nil = precommit(9, b"");
    nil.block_id = Some(hsm_proto::privval::BlockId {
        hash: Vec::new(),
        part_set_header: Some(PartSetHeader::default()),
    });
    for (line, vote, skip, expected) in [
        ("0.37", precommit(9, b""), false, Vec::new()),
        (
            "0.38",
            precommit(9, b"price"),
            false,
            extension_signature(b"price"),
        ),
        ("0.39", precommit(9, b""), false, extension_signature(b"")),
        ("0.38", nil.clone(), false, Vec::new()),
        ("0.38", prevote(9), false, Vec::new()),
        (
            "1.0",
            precommit(9, b"price"),
            false,
            extension_signature(b"price"),
        ),
        ("1.0", precommit(9, b""), true, Vec::new()),
    ] {
        let (sentry, _listener, mut node) = house.open(line, "").await;
        let request = SignVoteRequest {
            vote: Some(vote.clone()),
            chain_id: CHAIN.to_owned(),
            skip_extension_signing: skip,
        };
        let signed = signed_vote(node.ask(Sum::SignVoteRequest(request)).await);
        assert_eq!(signed.extension_signature, expected, "{line} {vote:?}");
        assert_eq!(signed.extension, vote.extension);
        sentry.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_extension_longer_than_a_node_reads_back_is_signed_all_the_same() {
    let house = House::new().await;
    let (_sentry, _listener, mut node) = house.open("0.38", "").await;
    let extension = vec![5; 32 * 1024];
    let signed = signed_vote(node.ask(vote_request(precommit(9, &extension))).await);
    assert_eq!(signed.extension_signature, extension_signature(&extension));
    let signed = house.state.signed();
    let [Asked::Vote(request)] = signed.as_slice() else {
        panic!("another request");
    };
    assert_eq!(request.extension, Some(extension));
}

#[tokio::test]
async fn the_public_key_has_the_form_of_the_line_and_is_asked_for_once_a_connection() {
    let house = House::new().await;
    for (count, line) in ["0.34", "0.38", "1.0"].into_iter().enumerate() {
        let (sentry, _listener, mut node) = house.open(line, "").await;
        for _ in 0..3 {
            let Some(Sum::PubKeyResponse(response)) = node.ask(public_key_request()).await.sum
            else {
                panic!("another answer");
            };
            assert_eq!(response.error, None);
            if line == "1.0" {
                assert_eq!(response.pub_key, None);
                assert_eq!(response.pub_key_bytes, vec![8; 32]);
                assert_eq!(response.pub_key_type, "ed25519");
            } else {
                let sum = response.pub_key.unwrap().sum;
                assert_eq!(sum, Some(public_key::Sum::Ed25519(vec![8; 32])));
                assert!(response.pub_key_bytes.is_empty());
            }
        }
        assert_eq!(*house.state.arrived.borrow(), count + 1);
        sentry.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_on_tcp_is_served_through_secret_connection() {
    let house = House::new().await;
    let (listener, address) = Listener::tcp().await;
    let _sentry = house.sentry(&house.config_text("0.38", &[address], ""));
    let mut node = listener.accept().await;
    node.ping().await;
    assert_eq!(node.prevote(7).await.signature, signature(7));
    // Several SecretConnection frames of 1024 bytes there and back.
    let extension = vec![6; 5_000];
    let signed = signed_vote(node.ask(vote_request(precommit(8, &extension))).await);
    assert_eq!(signed.extension_signature, extension_signature(&extension));
    assert_eq!(signed.extension, extension);
    // Node and sentry find each other again.
    drop(node);
    assert_eq!(
        listener.accept().await.prevote(9).await.signature,
        signature(9)
    );
}

#[tokio::test]
async fn many_chains_share_one_connection_to_hsmd() {
    let house = House::new().await;
    let sockets: Vec<_> = (0..20)
        .map(|number| house.path().join(format!("{number}.sock")))
        .collect();
    let listeners: Vec<_> = sockets.iter().map(|path| Listener::unix(path)).collect();
    let nodes: Vec<_> = sockets
        .iter()
        .map(|path| format!("unix://{}", path.display()))
        .collect();
    let _sentry = house.sentry(&house.config_text("0.38", &nodes, ""));
    let mut nodes = Vec::new();
    for listener in &listeners {
        nodes.push(listener.accept().await);
    }
    for (height, node) in (1..).zip(&mut nodes) {
        node.send(vote_request(prevote(height))).await;
    }
    for (height, node) in (1..).zip(&mut nodes) {
        assert_eq!(
            signed_vote(node.answer().await).signature,
            signature(height)
        );
    }
    assert_eq!(*house.state.connections.borrow(), (1, 1));
}
