//! A request as gRPC delivers it: the first byte says whether a vote or a proposal follows.

#![no_main]

use hsm_proto::v1::{SignCometbftProposalRequest, SignCometbftVoteRequest};
use hsmd::line::{Request, Wire};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|sent: &[u8]| {
    let Some((kind, body)) = sent.split_first() else {
        return;
    };
    let wire = match kind % 2 {
        0 => SignCometbftVoteRequest::decode(body).map(Wire::Vote),
        _ => SignCometbftProposalRequest::decode(body).map(Wire::Proposal),
    };
    let Ok(wire) = wire else { return };
    assert!(!wire.kind().is_empty());
    let caller = "spiffe://example.org/sentry/a".parse().unwrap();
    if let Err(refusal) = Request::new(caller, wire) {
        let text = refusal.status().message().len();
        assert!((1..2000).contains(&text), "{text} bytes");
    }
});
