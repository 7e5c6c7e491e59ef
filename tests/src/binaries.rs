//! Where the binaries of this workspace and the components from outside are found.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cometbft::Line;

/// A binary of this workspace, from the profile directory that the running test or bench was built into.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of the running executable");
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not beside {}: run `make build` first",
            this.display()
        )
    })
}

/// The `tests` folder of the checkout.
#[must_use]
pub fn tests_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A component that `tests/install.sh` installs. Where it is missing, the calling test fails in CI, and is
/// skipped on a developer's machine: it prints so and returns.
///
/// # Panics
///
/// If the component is missing and the variable CI is set.
pub fn needs<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "needs {what}: run tests/install.sh"
        );
        // Not by `eprintln!`, which the test runner keeps back where a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: needs {what} (tests/install.sh installs it)"
        );
    }
    found
}

/// The `cometbft` binary of a line.
#[must_use]
pub fn cometbft(line: Line) -> Option<PathBuf> {
    existing(
        tests_folder()
            .join("cometbft/bin")
            .join(line.name())
            .join("cometbft"),
    )
}

/// The ABCI application of `tests/cometbft/app`.
#[must_use]
pub fn abci_app() -> Option<PathBuf> {
    existing(tests_folder().join("cometbft/bin/app"))
}

/// The checker of exported logs, of `tests/log`.
#[must_use]
pub fn log_checker() -> Option<PathBuf> {
    existing(tests_folder().join("cometbft/bin/log"))
}

/// torchwood's witness.
#[must_use]
pub fn litewitness() -> Option<PathBuf> {
    existing(tests_folder().join("cometbft/bin/witness/litewitness"))
}

/// SoftHSM's PKCS#11 module, where Debian, Fedora, Alpine and Homebrew put it.
#[must_use]
pub fn softhsm_module() -> Option<PathBuf> {
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib/pkcs11/libsofthsm2.so",
        "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    ]
    .into_iter()
    .find_map(|path| existing(PathBuf::from(path)))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}
