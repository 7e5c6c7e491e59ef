//! hsm-sentry's configuration file: refused with a text, or accepted; never a panic.

#![no_main]

use std::path::Path;

use hsm_sentry::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(Path::new("/nowhere/sentry.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
});
