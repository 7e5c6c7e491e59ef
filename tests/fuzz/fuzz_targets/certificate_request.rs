//! A certificate request (PKCS#10, DER) and an admission token: what is taken is a P-256 key, or 43 characters.

#![no_main]

use hsm_device::Algorithm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match hsm_enroll::request::proven_key(bytes) {
        Ok(key) => assert_eq!(key.algorithm(), Algorithm::P256),
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && hsm_enroll::token::hash(text).is_ok()
    {
        assert_eq!(text.len(), 43);
    }
});
