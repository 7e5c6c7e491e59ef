//! A software TPM: `swtpm`, on two loopback ports.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{PATIENCE, Process, free_port, wait_for};

/// A TPM 2.0 whose memory lies in a directory. Dropping it kills the process, and its memory stays.
pub struct Swtpm {
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Swtpm {
    /// Starts one with its memory in `directory/NAME`. `None` where the machine has no swtpm.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start(directory: &Path, name: &str) -> Option<Self> {
        let version = Command::new("swtpm")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.ok()?;
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        // The control channel's port is the one above (tss2-tcti-swtpm(7)). Both are handed out to nobody else.
        let mut last = free_port();
        let port = (0..1000).find_map(|_| {
            let before = std::mem::replace(&mut last, free_port());
            (last == before + 1).then_some(before)
        });
        let mut tpm = Self {
            directory,
            port: port.expect("two free ports"),
            process: None,
        };
        tpm.switch_on();
        Some(tpm)
    }

    /// How tpm2-tss reaches it.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=localhost,port={}", self.port)
    }

    /// Ends it, as a dead chip or a lost connection would.
    pub fn switch_off(&mut self) {
        self.process = None;
    }

    /// Starts it with the memory that it had.
    pub fn switch_on(&mut self) {
        let (port, control) = (self.port, self.port + 1);
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.directory.display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={control},bindaddr=127.0.0.1"));
        self.process = Some(Process::start("swtpm", &mut command, &self.directory));
        wait_for("swtpm", PATIENCE, || {
            TcpStream::connect(("127.0.0.1", port)).ok()?;
            TcpStream::connect(("127.0.0.1", control)).ok()
        });
    }
}
