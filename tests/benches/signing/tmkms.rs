//! tmkms with softsign: `tests/install.sh bench` builds it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hsm_tests::process::Process;

use crate::chain_id;
use crate::driver::Nodes;

/// Starts one that signs for these nodes, each on a chain of its own, with one key: it takes no more.
pub(crate) fn start(directory: &Path, state: &Path, nodes: &Nodes) -> Process {
    let key = state.join("tmkms.key");
    std::fs::write(&key, STANDARD.encode([3; 32])).expect("tmkms's key");
    let ids: Vec<String> = nodes
        .addresses()
        .enumerate()
        .map(|(index, _)| chain_id(index))
        .collect();
    let mut config = format!(
        "[[providers.softsign]]\nchain_ids = {ids:?}\nkey_type = \"consensus\"\npath = {key:?}\n"
    );
    for (node, id) in nodes.addresses().zip(&ids) {
        let state = state.join(format!("{id}.json"));
        write!(
            config,
            "[[chain]]\nid = {id:?}\nkey_format = {{ type = \"hex\" }}\nstate_file = {state:?}\n\
             [[validator]]\naddr = \"{node}\"\nchain_id = {id:?}\nreconnect = true\nprotocol_version = \"v0.38\"\n"
        )
        .expect("a string grows");
    }
    let path = directory.join("tmkms.toml");
    std::fs::write(&path, config).expect("tmkms's configuration");
    let mut command = Command::new(binary());
    command.arg("start").arg("-c").arg(&path);
    Process::start("tmkms", &mut command, directory)
}

/// Below the target directory, as the profile's directory is that this program is in.
fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    let found = this
        .ancestors()
        .map(|folder| folder.join("tmkms/bin/tmkms"))
        .find(|path| path.is_file());
    found.expect("tmkms: run `make bench`, which installs it")
}
