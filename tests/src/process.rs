//! Child processes, their logs, and waiting for conditions.

use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a condition may take to come true where nothing more is known.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A temporary directory that is kept, with the end of every log in it printed, if the test fails.
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// Makes an empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// Makes one below `parent`, where it matters on which file system it is.
    #[must_use]
    pub fn new_in(parent: &Path) -> Self {
        let made = tempfile::Builder::new().prefix("hsmd-").tempdir_in(parent);
        Self(Some(made.expect("a temporary directory")))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("present until drop").path()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Prints the end of every log in the directory to stderr.
    pub fn print_logs(&self) {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.path())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for log in logs {
            eprintln!("--- the end of {}\n{}", log.display(), last_lines(&log, 40));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
            let kept = self.0.take().expect("present until drop").keep();
            eprintln!("kept {}", kept.display());
        }
    }
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output appended to `directory/NAME.log`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let open = || -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a log file")
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// SIGKILL: what a crash does. Returns when the process is gone.
    pub fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM: asks it to stop, and returns how it ended.
    ///
    /// # Panics
    ///
    /// If it is still there after [`PATIENCE`].
    pub fn terminate(&mut self) -> ExitStatus {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("SIGTERM delivered");
        let name = self.name.clone();
        wait_for(&format!("the end of {name}"), PATIENCE, || {
            self.child.try_wait().expect("waitable")
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had resident so far, in KiB.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(status).expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waitable")
    }

    /// Fails the test if the process ended by itself.
    ///
    /// # Panics
    ///
    /// If it did.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!(
                "{} ended with {status}:\n{}",
                self.name,
                last_lines(&self.log, 20)
            );
        }
    }

    /// What the process printed so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `probe` yields something.
///
/// # Panics
///
/// If it does not within `patience`; the message names `what` was waited for.
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed() < patience,
            "waited {patience:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback TCP port that nobody listens on. Ports are handed out once a process, from below the range
/// that the kernel gives to outgoing connections, so that one keeps its meaning while its daemon restarts.
///
/// It is tried by connecting: a listener of ours would live on for a moment in a child that another thread
/// forks meanwhile, and be in the way of the one the port is for.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        .expect("a free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_and_its_log_is_kept() {
        let scratch = Scratch::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec tail -f /dev/null"]);
        let mut process = Process::start("child", &mut command, scratch.path());
        wait_for("its first line", PATIENCE, || {
            process.log().contains("started").then_some(())
        });
        process.assert_running();
        process.kill();
        assert!(process.ended().is_some_and(|status| !status.success()));
    }

    #[test]
    fn ports_are_handed_out_once() {
        let ports: std::collections::HashSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
    }
}
