//! The vendor's own library drives the emulator, one scenario a group of commands (`tests/vendor/*.py`), and the
//! vendor's own tests of a device pass on it.

// The lint configuration lets tests panic, but not the functions that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use yubihsm_emulator::{Emulator, Firmware, Settings};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendor");

/// Where `tests/install.sh` puts the library; `None`, with a word about it, where it is missing and need not
/// be there.
fn library() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let library = target.join("yubihsm-python");
    if library.join("yubihsm").is_dir() && library.join("vendor").is_dir() {
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

/// The last version of each line. With all of them the whole suite takes minutes.
const OLDER: [Firmware; 4] = [(2, 0, 0), (2, 1, 2), (2, 2, 0), (2, 3, 2)];

/// What tells the lines apart, and takes seconds.
const TELLING: [&str; 5] = ["logs", "auth", "basic", "aes", "delete"];

/// Runs the vendor's tests of a device (`tests/device` of the source package), without the pauses in which a real
/// device would start again.
fn run_vendors_tests(firmware: Firmware, files: &[&str]) {
    let Some(library) = library() else { return };
    let settings = Settings {
        firmware,
        ..Settings::default()
    };
    let emulator = Emulator::start(settings, ([127, 0, 0, 1], 0).into()).unwrap();
    let at_once = "import sys, time; time.sleep = lambda _: None; import pytest; sys.exit(pytest.main(sys.argv[1:]))";
    let files = files.iter().map(|name| match *name {
        "" => "tests/device".to_owned(),
        name => format!("tests/device/test_{name}.py"),
    });
    let output = Command::new("python3")
        .env("PYTHONPATH", &library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(library.join("vendor"))
        .args(["-c", at_once, "-q", "-p", "no:cacheprovider"])
        .arg("--backend")
        .arg(format!("http://{}", emulator.address()))
        .args(files)
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{firmware:?}: {said}");
    assert!(said.contains(" passed"), "{said}");
}

#[test]
fn the_vendors_own_tests_of_a_device_pass() {
    run_vendors_tests(Settings::default().firmware, &[""]);
}

#[test]
fn the_vendors_own_tests_of_a_device_pass_on_older_firmware() {
    let files: &[&str] = match std::env::var_os("HSMD_SOAK") {
        Some(_) => &[""],
        None => &TELLING,
    };
    for firmware in OLDER {
        run_vendors_tests(firmware, files);
    }
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
