//! The URI in a client certificate: one caller has one form.

#![no_main]

use hsm_policy::identity::Caller;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|uri: &str| {
    if let Ok(caller) = uri.parse::<Caller>() {
        assert_eq!(caller.to_string(), uri);
    }
});
