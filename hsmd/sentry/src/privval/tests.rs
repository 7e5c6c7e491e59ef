use super::*;
use hsm_proto::privval::{PartSetHeader, SignBytesRequest, SignVoteRequest};
use hsm_proto::v1::{GetPublicKeyResponse, KeyAlgorithm, Reason};
use proptest::prelude::*;
use prost_types::Timestamp;

const LINES: [Line; 5] = [
    Line::V0_34,
    Line::V0_37,
    Line::V0_38,
    Line::V0_39,
    Line::V1_0,
];

fn block_id() -> BlockId {
    BlockId {
        hash: vec![1; 32],
        part_set_header: Some(PartSetHeader {
            total: 3,
            hash: vec![2; 32],
        }),
    }
}

/// As a node sends it: nil is a block id whose fields are empty, not a missing one.
fn nil() -> BlockId {
    BlockId {
        hash: Vec::new(),
        part_set_header: Some(PartSetHeader::default()),
    }
}

fn vote(kind: SignedMsgType, block_id: BlockId, extension: &[u8]) -> Vote {
    Vote {
        r#type: kind.into(),
        height: 7,
        block_id: Some(block_id),
        timestamp: Some(Timestamp::default()),
        extension: extension.to_vec(),
        ..Vote::default()
    }
}

fn signed() -> v1::SignCometbftVoteResponse {
    v1::SignCometbftVoteResponse {
        signature: vec![3; 64],
        extension_signature: vec![4; 64],
        timestamp: Some(Timestamp {
            seconds: 9,
            nanos: 1,
        }),
    }
}

/// What the node of each line expects, by `types.SignAndCheckVote`; `Err` is a refusal.
#[test]
fn an_extension_signature_is_asked_for_exactly_where_the_nodes_line_expects_one() {
    use SignedMsgType::{Precommit, Prevote};
    let (a, none): (&[u8], &[u8]) = (b"a", b"");
    let (old, new, v1) = (
        [Line::V0_34, Line::V0_37].as_slice(),
        [Line::V0_38, Line::V0_39].as_slice(),
        [Line::V1_0].as_slice(),
    );
    #[rustfmt::skip]
    let cases = [
        // lines, kind, nil, extension, skip: what is asked for
        (old, Prevote,   false, none, false, Ok(None)),
        (old, Precommit, false, none, false, Ok(None)),
        (old, Precommit, true,  none, false, Ok(None)),
        (old, Precommit, false, a,    false, Err(())),
        (new, Prevote,   false, none, false, Ok(None)),
        (new, Precommit, true,  none, false, Ok(None)),
        (new, Precommit, false, none, false, Ok(Some(none))),
        (new, Precommit, false, a,    false, Ok(Some(a))),
        (new, Precommit, false, a,    true,  Ok(Some(a))),
        (v1,  Prevote,   false, none, false, Ok(None)),
        (v1,  Prevote,   false, none, true,  Ok(None)),
        (v1,  Precommit, true,  none, false, Ok(None)),
        (v1,  Precommit, false, none, false, Ok(Some(none))),
        (v1,  Precommit, false, a,    false, Ok(Some(a))),
        (v1,  Precommit, false, none, true,  Ok(None)),
        (v1,  Precommit, false, a,    true,  Ok(None)),
        // Where there must be none, hsmd is left to refuse it.
        (new, Prevote,   false, a,    false, Ok(Some(a))),
        (new, Precommit, true,  a,    false, Ok(Some(a))),
        (v1,  Prevote,   false, a,    false, Ok(Some(a))),
    ];
    for (lines, kind, is_nil, bytes, skip, expected) in cases {
        let vote = vote(kind, if is_nil { nil() } else { block_id() }, bytes);
        for line in lines {
            let asked = extension(*line, &vote, skip).map_err(drop);
            assert_eq!(asked, expected, "{line} {kind:?} {is_nil} {bytes:?} {skip}");
        }
    }
}

#[test]
fn a_nil_block_is_absent_and_a_partly_filled_one_is_passed_on() {
    let request = |block_id| {
        vote_request(
            "k",
            "c",
            "",
            &vote(SignedMsgType::Prevote, block_id, b""),
            None,
        )
    };
    assert_eq!(request(nil()).block_id, None);
    assert_eq!(request(BlockId::default()).block_id, None);
    let whole = request(block_id()).block_id.unwrap();
    assert_eq!(
        (whole.hash, whole.part_set_total, whole.part_set_hash),
        (vec![1; 32], 3, vec![2; 32])
    );
    let mut partial = block_id();
    partial.hash.clear();
    assert!(request(partial).block_id.is_some());
}

#[test]
fn a_public_key_takes_the_form_of_the_nodes_line() {
    /// `cometbft.privval.v1.PubKeyResponse`, where number 1 is reserved.
    #[derive(Clone, PartialEq, prost::Message)]
    struct V1PubKeyResponse {
        #[prost(bytes = "vec", tag = "3")]
        pub_key_bytes: Vec<u8>,
        #[prost(string, tag = "4")]
        pub_key_type: String,
    }
    let (ed25519, secp256k1) = (vec![5; 32], vec![6; 33]);
    for (algorithm, bytes, name) in [
        (KeyAlgorithm::Ed25519, &ed25519, "ed25519"),
        (KeyAlgorithm::Secp256k1, &secp256k1, "secp256k1"),
    ] {
        let key = GetPublicKeyResponse {
            algorithm: algorithm.into(),
            public_key: bytes.clone(),
            ..GetPublicKeyResponse::default()
        };
        for line in LINES {
            let answer = public_key(line, &key).unwrap();
            let wire = answer.encode_to_vec();
            if line == Line::V1_0 {
                let read = V1PubKeyResponse::decode(wire.as_slice()).unwrap();
                assert_eq!((&read.pub_key_bytes, &*read.pub_key_type), (bytes, name));
                assert_eq!(answer.pub_key, None);
                continue;
            }
            use tendermint_proto::v0_38::{crypto::public_key::Sum, privval::PubKeyResponse};
            let read = PubKeyResponse::decode(wire.as_slice()).unwrap();
            let sum = match algorithm {
                KeyAlgorithm::Ed25519 => Sum::Ed25519(bytes.clone()),
                _ => Sum::Secp256k1(bytes.clone()),
            };
            assert_eq!(read.pub_key.unwrap().sum, Some(sum), "{line}");
            assert!(answer.pub_key_bytes.is_empty() && answer.pub_key_type.is_empty());
        }
    }
    let unknown = GetPublicKeyResponse {
        algorithm: 9,
        ..GetPublicKeyResponse::default()
    };
    assert_eq!(
        public_key(Line::V0_38, &unknown).unwrap_err().reason,
        Reason::Internal
    );
}

#[test]
fn an_answer_is_never_longer_than_a_node_reads() {
    for length in [0, 100, 9_000, 10_239, 10_240, 500_000] {
        let vote = vote(SignedMsgType::Precommit, block_id(), &vec![7; length]);
        let message = signed_vote(vote, signed());
        assert!(message.encoded_len() <= LONGEST_WRITE, "{length}");
        let Some(Sum::SignedVoteResponse(response)) = message.sum else {
            panic!("not a vote");
        };
        let vote = response.vote.unwrap();
        assert_eq!(
            (vote.signature, vote.extension_signature),
            (vec![3; 64], vec![4; 64])
        );
        assert!(vote.extension.len() == length || length > 9_000);
    }
}

#[test]
fn a_faulty_answer_of_hsmd_never_reaches_the_node() {
    assert_eq!(complete_vote(&signed(), true), Ok(()));
    let without = |change: fn(&mut v1::SignCometbftVoteResponse)| {
        let mut answer = signed();
        change(&mut answer);
        answer
    };
    for (answer, with_extension) in [
        (signed(), false),
        (without(|it| it.extension_signature.clear()), true),
        (without(|it| it.signature.clear()), true),
        (without(|it| it.timestamp = None), true),
    ] {
        let refusal = complete_vote(&answer, with_extension).unwrap_err();
        assert_eq!(refusal.reason, Reason::Internal);
    }
}

#[test]
fn every_request_that_a_node_can_make_has_a_refusal_that_the_node_decodes() {
    use tendermint_proto::v0_38::privval::{Message as Theirs, message::Sum as Their};
    let refusal = Refusal::new(Reason::Regression, "lower than 8");
    for kind in [
        Kind::PublicKey,
        Kind::Prevote,
        Kind::Precommit,
        Kind::Vote,
        Kind::Proposal,
    ] {
        let wire = kind.refused(&refusal).encode_to_vec();
        let error = match Theirs::decode(wire.as_slice()).unwrap().sum.unwrap() {
            Their::PubKeyResponse(response) => response.error,
            Their::SignedVoteResponse(response) => response.error,
            Their::SignedProposalResponse(response) => response.error,
            other => panic!("{other:?}"),
        };
        let error = error.unwrap();
        assert_eq!(error.code, Reason::Regression as i32);
        assert_eq!(error.description, "REGRESSION: lower than 8");
    }
}

#[test]
fn sign_bytes_of_any_fork_is_told_from_its_number_and_its_bytes_are_not_read() {
    // 1.0: value = 1. Celestia: chain_id = 1, raw_bytes = 2, unique_id = 3.
    for wire in [
        &b"\x4a\x04\x0a\x02hi"[..],
        b"\x4a\x0b\x0a\x01c\x12\x02hi\x1a\x02id",
    ] {
        let message = Message::decode(wire).unwrap();
        assert_eq!(
            message.sum,
            Some(Sum::SignBytesRequest(SignBytesRequest {}))
        );
        assert_eq!(Kind::of(&message), Kind::SignBytes);
    }
    let refused = Kind::SignBytes.refused(&Refusal::new(Reason::KindNotGranted, "never"));
    let Some(Sum::SignBytesResponse(response)) = refused.sum else {
        panic!("another answer");
    };
    assert_eq!(
        response.error.unwrap().description,
        "KIND_NOT_GRANTED: never"
    );
}

#[test]
fn a_request_that_no_line_knows_is_answered_with_an_empty_message() {
    let later = Message::decode(&b"\x6a\x02\x08\x01"[..]).unwrap();
    assert_eq!(Kind::of(&later), Kind::Unknown);
    let refusal = Refusal::new(Reason::KindNotGranted, "never");
    assert_eq!(Kind::of(&later).refused(&refusal), Message::default());
}

#[test]
fn a_proposal_that_claims_another_type_is_refused() {
    let mut proposal = Proposal {
        r#type: SignedMsgType::Proposal.into(),
        ..Proposal::default()
    };
    assert!(proposal_request("k", "c", "", &proposal).is_ok());
    proposal.r#type = SignedMsgType::Precommit.into();
    let refusal = proposal_request("k", "c", "", &proposal).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidField);
}

/// A property over the messages of one module of tendermint-proto: what its node sends is understood field by
/// field, and what we answer is understood by it.
macro_rules! speaks_the_language_of {
    ($name:ident, $version:ident $(, $extension:ident)?) => {
        mod $name {
            use super::*;
            use tendermint_proto::$version::{privval, types};

            fn block_id() -> impl Strategy<Value = Option<types::BlockId>> {
                let hash = || prop::collection::vec(any::<u8>(), 0..33);
                prop::option::of((hash(), any::<u32>(), hash()).prop_map(|(hash, total, parts)| {
                    types::BlockId {
                        hash,
                        part_set_header: Some(types::PartSetHeader { total, hash: parts }),
                    }
                }))
            }

            fn timestamp() -> impl Strategy<Value = Option<tendermint_proto::google::protobuf::Timestamp>> {
                prop::option::of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| {
                    tendermint_proto::google::protobuf::Timestamp { seconds, nanos }
                }))
            }

            fn same_block(ours: Option<&v1::BlockId>, theirs: Option<&types::BlockId>) -> bool {
                let theirs = theirs.cloned().unwrap_or_default();
                let header = theirs.part_set_header.unwrap_or_default();
                let ours = ours.cloned().unwrap_or_default();
                (ours.hash, ours.part_set_total, ours.part_set_hash)
                    == (theirs.hash, header.total, header.hash)
            }

            proptest! {
                #[test]
                fn votes(
                    kind in 0..3_i32, height: i64, round: i32, block_id in block_id(),
                    timestamp in timestamp(), address: [u8; 20], index: i32,
                    bytes in prop::collection::vec(any::<u8>(), 0..300), chain_id in ".{0,50}",
                ) {
                    let _ = &bytes;
                    let theirs = types::Vote {
                        r#type: kind, height, round, block_id, timestamp,
                        validator_address: address.to_vec(), validator_index: index, signature: vec![],
                        $($extension: bytes.clone(), extension_signature: vec![],)?
                    };
                    let sum = privval::message::Sum::SignVoteRequest(privval::SignVoteRequest {
                        vote: Some(theirs.clone()), chain_id: chain_id.clone(),
                    });
                    let wire = privval::Message { sum: Some(sum) }.encode_to_vec();
                    let ours = match Message::decode(wire.as_slice()).unwrap().sum {
                        Some(Sum::SignVoteRequest(SignVoteRequest {
                            vote: Some(vote), chain_id: chain, skip_extension_signing: false,
                        })) if chain == chain_id => vote,
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    let request = vote_request("key", &chain_id, "", &ours, Some(ours.extension.as_slice()));
                    prop_assert_eq!(
                        (request.r#type, request.height, request.round),
                        (theirs.r#type, theirs.height, theirs.round)
                    );
                    prop_assert!(same_block(request.block_id.as_ref(), theirs.block_id.as_ref()));
                    prop_assert_eq!(
                        request.timestamp.map(|it| (it.seconds, it.nanos)),
                        theirs.timestamp.map(|it| (it.seconds, it.nanos))
                    );
                    $(prop_assert_eq!(request.$extension, Some(bytes.clone()));)?

                    let wire = signed_vote(ours, signed()).encode_to_vec();
                    let answer = match privval::Message::decode(wire.as_slice()).unwrap().sum {
                        Some(privval::message::Sum::SignedVoteResponse(answer)) => answer,
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    prop_assert_eq!(answer.error, None);
                    let mut expected = theirs;
                    expected.signature = vec![3; 64];
                    expected.timestamp = Some(
                        tendermint_proto::google::protobuf::Timestamp { seconds: 9, nanos: 1 },
                    );
                    $(
                        expected.$extension = bytes;
                        expected.extension_signature = vec![4; 64];
                    )?
                    prop_assert_eq!(answer.vote, Some(expected));
                }

                #[test]
                fn proposals(
                    height: i64, round: i32, pol_round: i32, block_id in block_id(), timestamp in timestamp(),
                ) {
                    let theirs = types::Proposal {
                        r#type: 32, height, round, pol_round, block_id, timestamp, signature: vec![],
                    };
                    let sum = privval::message::Sum::SignProposalRequest(privval::SignProposalRequest {
                        proposal: Some(theirs.clone()), chain_id: "c".to_owned(),
                    });
                    let wire = privval::Message { sum: Some(sum) }.encode_to_vec();
                    let ours = match Message::decode(wire.as_slice()).unwrap().sum {
                        Some(Sum::SignProposalRequest(request)) => request.proposal.unwrap(),
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    let request = proposal_request("key", "c", "", &ours).unwrap();
                    prop_assert_eq!(
                        (request.height, request.round, request.pol_round),
                        (height, round, pol_round)
                    );
                    prop_assert!(same_block(request.block_id.as_ref(), theirs.block_id.as_ref()));

                    let answer = v1::SignCometbftProposalResponse {
                        signature: vec![3; 64],
                        timestamp: Some(Timestamp { seconds: 9, nanos: 1 }),
                    };
                    let wire = signed_proposal(ours, answer).encode_to_vec();
                    let answer = match privval::Message::decode(wire.as_slice()).unwrap().sum {
                        Some(privval::message::Sum::SignedProposalResponse(answer)) => answer,
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    };
                    let mut expected = theirs;
                    expected.signature = vec![3; 64];
                    expected.timestamp = Some(
                        tendermint_proto::google::protobuf::Timestamp { seconds: 9, nanos: 1 },
                    );
                    prop_assert_eq!(answer.proposal, Some(expected));
                }
            }
        }
    };
}

speaks_the_language_of!(a_node_of_0_34_is_understood_and_understands, v0_34);
speaks_the_language_of!(a_node_of_0_37_is_understood_and_understands, v0_37);
speaks_the_language_of!(
    a_node_of_0_38_is_understood_and_understands,
    v0_38,
    extension
);

/// tendermint-proto has no 1.0; the one field that 1.0 adds to a request is on the wire as number 3.
#[test]
fn a_node_of_1_0_may_leave_out_the_extension_signature() {
    let message = Message::decode(&b"\x1a\x06\x12\x02ab\x18\x01"[..]).unwrap();
    let Some(Sum::SignVoteRequest(request)) = message.sum else {
        panic!("another request");
    };
    assert!(request.skip_extension_signing);
    assert_eq!(request.chain_id, "ab");
}

fn complete_vote(
    signed: &v1::SignCometbftVoteResponse,
    with_extension: bool,
) -> Result<(), Refusal> {
    complete(
        &signed.signature,
        &signed.extension_signature,
        with_extension,
        signed.timestamp.as_ref(),
    )
}
