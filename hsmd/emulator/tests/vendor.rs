//! The vendor's own library drives the emulator, one scenario a group of commands: `tests/vendor/*.py`.

// The lint configuration lets tests panic, but not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use yubihsm_emulator::{Emulator, Settings};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendor");

/// Where `tests/install.sh` puts the library; `None`, with a word about it, where it is missing and need not
/// be there.
fn library() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let library = target.join("yubihsm-python");
    if library.join("yubihsm").is_dir() {
        return Some(library);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "needs the vendor's Python library: run tests/install.sh test"
    );
    println!("skipped: needs the vendor's Python library (tests/install.sh test installs it)");
    None
}

fn run(scenario: &str) {
    let Some(library) = library() else { return };
    let emulator = Emulator::start(Settings::default(), ([127, 0, 0, 1], 0).into()).unwrap();
    let output = Command::new("python3")
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args([
            SCENARIOS,
            &format!("http://{}", emulator.address()),
            scenario,
        ])
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {said}");
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        /// The names of all scenarios that have a test.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios![
    attestation,
    authentication,
    device,
    ec_keys,
    ed25519_keys,
    hmac_keys,
    objects,
    options,
    otp_keys,
    rsa_keys,
    sessions,
    ssh_certificates,
    symmetric_keys,
    wrap,
    wrap_rsa,
];

#[test]
fn every_scenario_has_a_test() {
    for file in std::fs::read_dir(SCENARIOS).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_scenario = path.extension().is_some_and(|ending| ending == "py");
        if is_scenario && !name.starts_with('_') {
            assert!(TESTED.contains(&name), "{name} is in no test");
        }
    }
}
