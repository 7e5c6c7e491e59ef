//! A client certificate (DER) whose chain was verified: it names one caller of our trust domain, or nobody.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use hsm_policy::identity::TrustDomain;
use hsmd::transport::Peer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|certificate: &[u8]| {
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let peer = Peer::new(([127, 0, 0, 1], 1).into(), certificate, &trust_domain);
    assert!(!peer.caller_name().is_empty());
    for year in [1971, 2026, 9999] {
        let now = UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952);
        match peer.caller_at(now) {
            Ok(caller) => assert_eq!(caller.trust_domain(), &trust_domain),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
