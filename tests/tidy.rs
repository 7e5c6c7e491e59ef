//! The house stays in order: its rooms, its layers, and where a pure crate may not reach. `deny.toml` says
//! what may come from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The rooms at the top, and what a reader expects beside them.
const TOP: [&str; 23] = [
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "ceremony",
    "clippy.toml",
    "deny.toml",
    "firmware-notes",
    "hsmd",
    "policy",
    "proto",
    "rust-toolchain.toml",
    "systemd",
    "target",
    "tests",
    // What editors and `cargo` leave behind.
    ".idea",
    ".vscode",
];

/// Which of our crates a crate may depend on.
const LAYERS: [(&str, &[&str]); 11] = [
    ("hsm-proto", &[]),
    ("hsm-policy", &[]),
    ("hsm-journal", &[]),
    ("hsm-shares", &[]),
    ("yubihsm-emulator", &[]),
    ("hsm-device", &["yubihsm-emulator"]),
    (
        "hsmd",
        &["hsm-proto", "hsm-policy", "hsm-journal", "hsm-device"],
    ),
    ("hsm-sentry", &["hsm-proto"]),
    (
        "hsm-enroll",
        &["hsm-proto", "hsm-policy", "hsm-journal", "hsm-device"],
    ),
    (
        "hsm-ceremony",
        &["hsm-policy", "hsm-journal", "hsm-shares", "hsm-device"],
    ),
    // Tests may look into every room.
    (
        "hsm-tests",
        &[
            "hsm-proto",
            "hsm-policy",
            "hsm-journal",
            "hsm-device",
            "yubihsm-emulator",
            "hsmd",
            "hsm-sentry",
            "hsm-enroll",
        ],
    ),
];

/// What may not even be reached through others: a crate, what it stays clear of, and why.
const CLEAR_OF: [(&str, &[&str], &str); 7] = [
    (
        "hsm-policy",
        &["tokio", "nix", "tonic", "rustls", "hyper"],
        "decisions are pure: no files, no network, no clocks",
    ),
    (
        "hsm-journal",
        &["tonic", "rustls"],
        "of the network the journal knows its witnesses only, over plain HTTP",
    ),
    (
        "hsm-shares",
        &["tokio", "nix", "tonic", "rustls", "hyper"],
        "splitting is pure: no files, no network, no clocks",
    ),
    (
        "hsm-ceremony",
        &["tonic", "rustls", "native-tls", "openssl-sys"],
        "the offline tool reaches an HSM's connector on loopback, and nothing else",
    ),
    ("hsm-device", &["tonic"], "devices know no gRPC"),
    ("yubihsm-emulator", &["tonic"], "the emulator knows no gRPC"),
    (
        "hsm-sentry",
        &["yubihsm", "cryptoki"],
        "a sentry reaches no HSM",
    ),
];

/// What pure code does not call.
const IMPURE: [&str; 6] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "SystemTime::now",
    "Instant::now",
];

#[test]
fn the_top_level_holds_what_the_design_names() {
    let strangers: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !TOP.contains(&name.as_str()))
        .collect();
    assert!(
        strangers.is_empty(),
        "not in the house's plan: {strangers:?}"
    );
}

#[test]
fn a_crate_depends_only_on_the_layers_below_it() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    for package in &ours {
        let name = package["name"].as_str().unwrap();
        let allowed = layers
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no place in the table of layers"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let is_ours = ours.iter().any(|package| package["name"] == dependency);
            assert!(
                !is_ours || allowed.contains(&dependency),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn what_a_layer_stays_clear_of_is_not_reached_through_others() {
    let metadata = metadata();
    for (name, forbidden, why) in CLEAR_OF {
        let reached = reached(&metadata, name);
        assert!(
            reached.len() > 1,
            "{name} depends on nothing: is it still called so?"
        );
        let found: Vec<&&str> = forbidden
            .iter()
            .filter(|name| reached.contains(**name))
            .collect();
        assert!(found.is_empty(), "{name} reaches {found:?}, but {why}");
    }
}

#[test]
fn the_journal_has_no_network_but_behind_its_feature_witness() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let journal = ours.iter().find(|package| package["name"] == "hsm-journal");
    let journal = journal.unwrap();
    for dependency in journal["dependencies"].as_array().unwrap() {
        let name = dependency["name"].as_str().unwrap();
        assert!(
            !name.starts_with("hyper") && !name.starts_with("http")
                || dependency["optional"] == true,
            "{name} is always there"
        );
    }
    for (feature, switches) in journal["features"].as_object().unwrap() {
        let network = switches.to_string().contains("hyper");
        assert!(
            !network || feature.starts_with("hyper") || feature == "witness",
            "{feature}"
        );
    }
    for file in files_below(&root().join("hsmd/journal/src"), "rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        let network = text.contains("::net::") || text.contains("hyper");
        assert!(
            !network || file.ends_with("witness.rs"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn policy_and_shares_are_pure() {
    for folder in ["policy/src", "ceremony/shares/src"] {
        let files = files_below(&root().join(folder), "rs");
        assert!(!files.is_empty(), "{folder} is empty: has it moved?");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for call in IMPURE {
                assert!(!text.contains(call), "{} uses {call}", file.display());
            }
        }
    }
}

#[test]
fn files_are_named_for_what_they_do() {
    for file in files_below(&root(), "rs") {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let vague = [
            "util", "utils", "helper", "helpers", "manager", "common", "misc",
        ]
        .contains(&stem);
        assert!(
            !vague,
            "{} says nothing about what is in it",
            file.display()
        );
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--all-features",
            "--locked",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The workspace's packages.
fn ours(metadata: &Value) -> Vec<&Value> {
    let members = metadata["workspace_members"].as_array().unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .collect()
}

/// The names of all that a package is built from, tests left out.
fn reached<'a>(metadata: &'a Value, name: &str) -> BTreeSet<&'a str> {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                package["id"].as_str().unwrap(),
                package["name"].as_str().unwrap(),
            )
        })
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut open: Vec<&str> = names
        .iter()
        .filter(|(_, found)| **found == name)
        .map(|(id, _)| *id)
        .collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let dependencies = nodes[id]["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| {
                    dependency["dep_kinds"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                });
            open.extend(dependencies.map(|dependency| dependency["pkg"].as_str().unwrap()));
        }
    }
    seen.into_iter().map(|id| names[id]).collect()
}

/// All files with this extension below a folder, build output left out.
fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir()
            && !path.ends_with("target")
            && !path.ends_with(".git")
            && !path.ends_with("bin")
        {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}
