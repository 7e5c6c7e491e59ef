//! A consensus key on secp256k1: the node is shown it as what it is, and every signature is one that CometBFT
//! accepts, whichever of the two a device makes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use hsm_device::Algorithm;
use hsm_tests::node::{block, proposal, vote};
use hsm_tests::sign_bytes;
use hsm_tests::validator::{CHAIN, Setup, Transport, Validator};
use tendermint_proto::v0_38::crypto::public_key;
use tendermint_proto::v0_38::privval::PubKeyRequest;
use tendermint_proto::v0_38::privval::message::Sum;
use tendermint_proto::v0_38::types::SignedMsgType::{Precommit, Prevote};

/// The mock tosses a coin for s, as the device does: that none of so many is high has a chance of 2^-60.
const HEIGHTS: i64 = 15;

#[test]
fn a_secp256k1_key_signs_with_a_low_s_at_every_height() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let mut validator = Validator::start_with(&Setup {
            algorithm: Algorithm::Secp256k1,
            ..Setup::new(transport)
        });
        let key = public_key(&mut validator);
        let node = &mut validator.connection;
        for height in 1..=HEIGHTS {
            let asked = proposal(height, 0, block(1));
            let signed = node.sign_proposal(CHAIN, &asked).unwrap();
            let bytes = sign_bytes::proposal(CHAIN, &asked);
            assert_good(&key, &bytes, &signed.signature);

            let asked = vote(Prevote, height, 0, None);
            let signed = node.sign_vote(CHAIN, &asked).unwrap();
            assert_good(&key, &sign_bytes::vote(CHAIN, &asked), &signed.signature);

            let mut asked = vote(Precommit, height, 0, Some(block(1)));
            asked.extension = b"an extension".to_vec();
            let signed = node.sign_vote(CHAIN, &asked).unwrap();
            assert_good(&key, &sign_bytes::vote(CHAIN, &asked), &signed.signature);
            let bytes = sign_bytes::extension(CHAIN, height, 0, &asked.extension);
            assert_good(&key, &bytes, &signed.extension_signature);

            // ECDSA is not deterministic: the same answer is the one that was kept.
            let again = node.sign_vote(CHAIN, &asked).unwrap();
            assert_eq!(again, signed);
        }
    }
}

fn public_key(validator: &mut Validator) -> Vec<u8> {
    let request = PubKeyRequest {
        chain_id: CHAIN.to_owned(),
    };
    let answer = validator.connection.ask(Sum::PubKeyRequest(request));
    match answer.unwrap() {
        Sum::PubKeyResponse(answer) => match answer.pub_key.and_then(|key| key.sum) {
            Some(public_key::Sum::Secp256k1(bytes)) => {
                assert_eq!(bytes.len(), 33);
                bytes
            }
            other => panic!("no secp256k1 key: {other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_good(key: &[u8], message: &[u8], signature: &[u8]) {
    assert!(
        sign_bytes::verifies_secp256k1(key, message, signature),
        "a bad signature {}",
        hex::encode(signature)
    );
}
