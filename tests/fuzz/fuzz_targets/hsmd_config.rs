//! hsmd's configuration file: refused with a text, or accepted; never a panic.

#![no_main]

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use hsmd::config::{Config, MockDevices};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// The files that the seeds name: it is checked that they exist.
const NAMED: [&str; 7] = [
    "policy.toml",
    "server.pem",
    "server.key",
    "ca.pem",
    "module.so",
    "pin",
    "password",
];

thread_local! {
    static DIRECTORY: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|text: &str| {
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| {
            let directory = TempDir::new_in("/dev/shm").unwrap();
            for name in NAMED {
                let file = directory.path().join(name);
                fs::write(&file, "").unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            }
            directory
        });
        let file = directory.path().join("hsmd.toml");
        fs::write(&file, text).unwrap();
        if let Err(error) = Config::load(&file, MockDevices::Allowed) {
            assert!(!error.to_string().is_empty());
        }
    });
});
