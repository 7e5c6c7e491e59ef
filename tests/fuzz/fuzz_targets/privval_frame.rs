//! What a node sends on its privval socket: cut into frames, and each frame decoded.

#![no_main]

use hsm_proto::privval;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

// hsm-sentry keeps its frames to itself.
#[allow(dead_code)]
#[path = "../../../hsmd/sentry/src/frame.rs"]
mod frame;

fuzz_target!(|sent: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut framed = frame::Framed::new(tokio::io::join(sent, tokio::io::sink()));
        let mut taken = 0;
        while let Ok(Some(body)) = framed.read().await {
            assert!(body.len() <= frame::LONGEST_READ);
            taken += 1 + body.len();
            assert!(taken <= sent.len());
            if let Ok(message) = privval::Message::decode(body) {
                let again = privval::Message::decode(message.encode_to_vec().as_slice());
                assert_eq!(again, Ok(message));
            }
        }
    });
});
