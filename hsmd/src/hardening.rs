//! What the process denies itself: root, core dumps, debuggers, swap, new privileges.
//!
//! What is protected. PINs and passwords, the TLS private key, session keys and whatever a PKCS#11 module
//! keeps all lie in this process's memory, much of it in libraries that give no say in where. So it is the
//! process as a whole that is kept out of dumps and, where the system lets it, locked into memory. That
//! asks for an unlimited RLIMIT_MEMLOCK (`LimitMEMLOCK=infinity` in the unit): under a finite limit, locking
//! future mappings makes the creation of a thread fail, and locking only present ones misses the secrets,
//! which come later. Where memory cannot be locked, [`harden`] says so if the host has swap.
//!
//! Not covered: hibernation, which writes locked memory to disk too, and a hypervisor that swaps its guests.

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

/// Why the process does not go on. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Run by root without having been told that this is meant.
    #[error(
        "hsmd refuses to run as root, which it needs for nothing: run it as a user of its own, as \
         systemd/hsmd.service does, or say --allow-root"
    )]
    Root,
    /// The system refused a restriction that always works on Linux.
    #[error("cannot {what}: {error}; is a seccomp filter or a container in the way?")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: Errno,
    },
}

/// Refuses root, unless it is meant.
///
/// # Errors
/// [`Error::Root`].
pub fn refuse_root(allowed: bool) -> Result<(), Error> {
    if allowed || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Root)
}

/// Gives up what the process never needs. To be called before any secret is read and before there are
/// other threads: files are created for their owner alone, there are no core dumps, no other process of
/// the same user can attach a debugger or read this one's memory, nothing that is executed can gain
/// privileges, and memory is locked where the system lets it be. A write beyond a limit on the size of
/// files (RLIMIT_FSIZE) fails, as one on a full disk does, and does not end the process.
///
/// # Errors
/// [`Error::Refused`] where one of them is refused, save the locking of memory: that is logged as a
/// warning where the host has swap.
pub fn harden() -> Result<(), Error> {
    umask(Mode::from_bits_truncate(0o077));
    refused("forbid core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    refused("forbid debuggers", prctl::set_dumpable(false))?;
    refused("forbid new privileges", prctl::set_no_new_privs())?;
    // Blocked in this thread, and so in all that it starts: the write then returns EFBIG.
    let beyond_limit = SigSet::from(Signal::SIGXFSZ);
    refused("block SIGXFSZ", beyond_limit.thread_block())?;
    match lock_memory() {
        Ok(()) => tracing::debug!("memory is locked"),
        Err(reason) if has_swap() => tracing::warn!(
            "memory is not locked ({reason}), so that PINs and keys may be written to swap: set \
             LimitMEMLOCK=infinity as systemd/hsmd.service does, or turn swap off"
        ),
        Err(reason) => tracing::info!("memory is not locked ({reason}); the host has no swap"),
    }
    Ok(())
}

fn refused(what: &'static str, result: nix::Result<()>) -> Result<(), Error> {
    result.map_err(|error| Error::Refused { what, error })
}

fn lock_memory() -> Result<(), String> {
    let limit = |error: Errno| format!("RLIMIT_MEMLOCK: {error}");
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(limit)?;
    if hard != RLIM_INFINITY {
        return Err(format!("RLIMIT_MEMLOCK is {hard} bytes"));
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).map_err(limit)?;
    lock_all().map_err(|error| format!("mlockall: {error}"))
}

/// Locks what is mapped and what will be, each page when it is first used: stacks and arenas that are
/// reserved and not used take no memory.
fn lock_all() -> nix::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
}

/// Whether anything is swapped to, by the table under the first line of /proc/swaps (proc(5)). Unknown
/// counts as yes.
fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |table| table.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn root_is_refused_unless_it_is_meant() {
        refuse_root(true).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        assert_eq!(matches!(refuse_root(false), Err(Error::Root)), is_root);
    }

    /// Whether this is the process in which the named test may change what cannot be changed back. If
    /// not, the test has been run in such a process, and passed.
    fn in_process_of_its_own(test: &str) -> bool {
        const MARK: &str = "HSMD_TEST_PROCESS";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                &format!("hardening::tests::{test}"),
                "--exact",
                "--nocapture",
            ])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        false
    }

    /// Fails in a process whose future mappings are locked under a limit.
    fn make_a_thread_with_memory() {
        std::thread::spawn(|| vec![1_u8; 32 << 20].len())
            .join()
            .unwrap();
    }

    #[test]
    fn a_hardened_process_is_not_dumped_nor_traced_nor_given_privileges() {
        if !in_process_of_its_own(
            "a_hardened_process_is_not_dumped_nor_traced_nor_given_privileges",
        ) {
            return;
        }
        harden().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
        assert!(prctl::get_no_new_privs().unwrap());
        assert_eq!(umask(Mode::empty()).bits(), 0o077);
        make_a_thread_with_memory();
    }

    #[test]
    fn a_write_beyond_the_limit_on_file_sizes_fails_and_ends_nothing() {
        if !in_process_of_its_own("a_write_beyond_the_limit_on_file_sizes_fails_and_ends_nothing") {
            return;
        }
        harden().unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 4096, RLIM_INFINITY).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let write = || std::fs::write(&path, [1; 4097]).unwrap_err();
        let in_a_thread = std::thread::scope(|scope| scope.spawn(write).join().unwrap());
        for error in [write(), in_a_thread] {
            assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge, "{error}");
        }
    }

    #[test]
    fn memory_that_is_locked_leaves_room_for_threads() {
        if !in_process_of_its_own("memory_that_is_locked_leaves_room_for_threads") {
            return;
        }
        // Allowed by an unlimited RLIMIT_MEMLOCK, or to root by CAP_IPC_LOCK; else refused as a whole.
        match lock_all() {
            Ok(()) => assert!(locked_kib() > 0),
            Err(error) => assert!(matches!(error, Errno::ENOMEM | Errno::EPERM), "{error}"),
        }
        make_a_thread_with_memory();
    }

    #[test]
    fn memory_is_not_locked_under_a_finite_limit() {
        if !in_process_of_its_own("memory_is_not_locked_under_a_finite_limit") {
            return;
        }
        setrlimit(Resource::RLIMIT_MEMLOCK, 1 << 20, 1 << 20).unwrap();
        assert_eq!(
            lock_memory(),
            Err("RLIMIT_MEMLOCK is 1048576 bytes".to_owned())
        );
        assert_eq!(locked_kib(), 0);
        make_a_thread_with_memory();
    }

    fn locked_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmLck:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
