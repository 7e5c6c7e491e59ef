//! A running hsmd: its configuration, its commands, its end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ed25519_dalek::SigningKey;
use serde_json::Value;

use crate::authority::{Authority, Identity};
use crate::binaries::binary;
use crate::process::{PATIENCE, Process, free_port, wait_for};
use crate::softhsm;

/// `--allow-root` where the tests run as root, as they do in containers.
#[must_use]
pub fn allow_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--allow-root")
}
