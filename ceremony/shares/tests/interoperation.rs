//! PyPI `shamir-mnemonic`, which we did not write, recovers from our words, and we from its.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hsm_shares::{Group, Options, Scheme, Secret, Share, combine, split};

/// Reads a secret in hexadecimal, and prints shares: 2 of 3 in one group, 1 of 1 in another, both needed.
const SPLIT: &str = "
import sys, shamir_mnemonic as s
secret, extendable = bytes.fromhex(input()), sys.argv[1] == 'extendable'
for group in s.generate_mnemonics(2, [(2, 3), (1, 1)], secret, b'', extendable=extendable):
    for share in group:
        print(share)
";

/// Reads shares, and prints the secret.
const COMBINE: &str = r"
import sys, shamir_mnemonic as s
print(s.combine_mnemonics(sys.stdin.read().split('\n'), b'').hex())
";

/// Where `tests/install.sh` puts the library; `None`, with a word about it, where it is missing and need not be there.
fn library() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let library = target.join("shamir-mnemonic-python");
    if library.join("shamir_mnemonic").is_dir() {
        return Some(library);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "needs shamir-mnemonic: run tests/install.sh test"
    );
    println!("skipped: needs shamir-mnemonic (tests/install.sh test installs it)");
    None
}

fn python(library: &Path, script: &str, argument: &str, input: &str) -> String {
    let mut child = Command::new("python3")
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", script, argument])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 failed");
    String::from_utf8(output.stdout).unwrap()
}

fn secret(length: u8) -> Vec<u8> {
    (0..length)
        .map(|index| index.wrapping_mul(37) ^ 0x5A)
        .collect()
}

#[test]
fn we_recover_what_shamir_mnemonic_split() {
    let Some(library) = library() else { return };
    for (length, extendable) in [(16, ""), (32, ""), (32, "extendable")] {
        let secret = secret(length);
        let printed = python(&library, SPLIT, extendable, &hex::encode(&secret));
        let shares: Vec<&str> = printed.lines().collect();
        assert_eq!(shares.len(), 4);
        for quorum in [[0, 1, 3], [0, 2, 3], [1, 2, 3]] {
            let read = quorum.map(|index: usize| Share::parse(shares[index]).unwrap());
            let recovered = combine(&read).map_err(|error| error.to_string());
            assert_eq!(recovered.unwrap().expose(), secret);
        }
    }
}

#[test]
fn shamir_mnemonic_recovers_what_we_split() {
    let Some(library) = library() else { return };
    let officers = Group {
        threshold: 3,
        members: 5,
    };
    let third_party = Group {
        threshold: 1,
        members: 1,
    };
    let scheme = Scheme::new(2, &[officers, third_party]).unwrap();
    for (length, extendable) in [(16, false), (32, false), (32, true)] {
        let bytes = secret(length);
        let drawn = scheme.randomness(bytes.len());
        let randomness: Vec<u8> = (0..drawn).map(|_| fastrand::u8(..)).collect();
        let options = Options {
            extendable,
            iteration_exponent: 1,
        };
        let secret = Secret::new(bytes.clone().into_boxed_slice().into()).unwrap();
        let shares = split(&secret, &scheme, options, &randomness).unwrap();
        let line = |share: &Share| share.words().iter().collect::<Vec<_>>().join(" ");
        let quorum: Vec<String> = shares[0][1..4].iter().chain(&shares[1]).map(line).collect();
        let recovered = python(&library, COMBINE, "", &quorum.join("\n"));
        assert_eq!(recovered.trim(), hex::encode(&bytes));
    }
}
