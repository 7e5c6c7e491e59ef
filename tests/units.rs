//! The systemd units stay hardened, and every directive of theirs has its reason.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output};

use hsm_tests::binaries::needs;

const UNITS: [&str; 4] = [
    "hsmd.service",
    "hsm-sentry.service",
    "hsm-enroll.service",
    "hsm-enroll-renew.service",
];

fn systemd() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// `systemd-analyze security` fails where the exposure lies above the threshold, in tenths.
fn analyse(unit: &str, threshold: &str) -> Option<Output> {
    let analysed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={threshold}"))
        .arg(systemd().join(unit))
        .output();
    let found = match analysed {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        analysed => Some(analysed.expect("systemd-analyze")),
    };
    needs("systemd-analyze", found)
}

#[test]
fn the_units_expose_little() {
    for unit in UNITS {
        let Some(analysed) = analyse(unit, "15") else {
            return;
        };
        assert!(
            analysed.status.success(),
            "{unit}: {}",
            String::from_utf8_lossy(&analysed.stdout)
        );
    }
    let strict = analyse("hsmd.service", "1").expect("it was there");
    assert!(!strict.status.success(), "the analysis can fail");
}

#[test]
fn a_tpm_for_the_anchor_exposes_little_more() {
    let unit = std::fs::read_to_string(systemd().join("hsmd.service")).unwrap();
    let adapted = unit
        .replace("PrivateDevices=yes", "PrivateDevices=no")
        .replace("#DeviceAllow=/dev/tpmrm0", "DeviceAllow=/dev/tpmrm0")
        .replace("#SupplementaryGroups=tss", "SupplementaryGroups=tss");
    assert!(adapted.contains("\nDeviceAllow=/dev/tpmrm0 rw\nSupplementaryGroups=tss\n"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hsmd.service");
    std::fs::write(&file, adapted).unwrap();
    // A path that is absolute takes the place of the folder's.
    let Some(analysed) = analyse(file.to_str().unwrap(), "15") else {
        return;
    };
    let text = String::from_utf8_lossy(&analysed.stdout);
    assert!(analysed.status.success(), "{text}");
}

#[test]
fn every_directive_has_its_reason() {
    let reasons = std::fs::read_to_string(systemd().join("README.md")).unwrap();
    let mut missing = Vec::new();
    for unit in UNITS {
        let section = format!("\n## {unit}\n");
        let section = reasons.split(&section).nth(1).expect("a section");
        let section = section.split("\n## ").next().unwrap();
        let text = std::fs::read_to_string(systemd().join(unit)).unwrap();
        let service = text.split("[Service]").nth(1).expect("a [Service] section");
        let service = service.split("\n[").next().unwrap();
        for line in service.lines().filter(|line| !line.starts_with('#')) {
            if let Some((directive, _)) = line.split_once('=')
                && directive != "ExecStart"
                && !gives_reason(section, directive)
            {
                missing.push(format!("{unit}: {directive}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no reason in systemd/README.md: {missing:?}"
    );
}

/// Whether a row of the section's table begins with the directive, alone or with its value.
fn gives_reason(section: &str, directive: &str) -> bool {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut cells = rows.filter_map(|row| row.split(" | ").next());
    cells.any(|cell| {
        cell.contains(&format!("`{directive}`")) || cell.contains(&format!("`{directive}="))
    })
}
