//! Another signer's state file: read without a panic, and what is read never permits what an earlier mark forbids.

#![no_main]

use hsm_policy::cometbft::{ChainId, Message};
use hsm_policy::conflict::{Mark, merge};
use hsm_policy::state_files::{self, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(chain) = ChainId::new("chain-1") else {
        unreachable!()
    };
    let fresh = Mark {
        initial_height: 3,
        last: None,
    };
    for format in [Format::Cometbft, Format::Tmkms, Format::Horcrux] {
        let signed = match state_files::read_foreign(format, bytes, &chain) {
            Ok(signed) => signed,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        if let Some(last) = &signed.imported.last
            && !last.sign_bytes.is_empty()
        {
            let message = Message::from_sign_bytes(&last.sign_bytes).expect("checked");
            assert_eq!(message.position(), last.position);
            assert_eq!(message.chain_id(), &chain);
        }
        let (mark, _) = merge(&fresh, signed.imported);
        assert!(mark.initial_height >= 3);
        // What is written of it is read, and forbids at least as much.
        let text = state_files::write_foreign(format, &mark, Some(&[1; 64])).expect("foreign");
        let again = state_files::read_foreign(format, text.as_bytes(), &chain).expect("own text");
        assert!(again.height() >= mark.height());
    }
    if let Ok(keys) = state_files::read(bytes) {
        let text = state_files::write(&[7; 16], &keys);
        assert_eq!(state_files::read(text.as_bytes()).expect("own text"), keys);
    }
});
