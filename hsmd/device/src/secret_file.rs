//! The file that holds a device's PIN or password.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::Error;

/// The longest PIN or password taken from a file, in bytes.
const MAX_LENGTH: usize = 256;

/// A PIN or password in a file of its own, read anew for each login so that a corrected file is enough to heal.
pub(crate) struct SecretFile {
    path: PathBuf,
    /// After how many refusals in a row the secret is not offered again.
    tries: u32,
    refused: Mutex<Refused>,
}

/// How often a device refused what stood in which version of the file.
#[derive(Default)]
struct Refused {
    version: Option<Version>,
    times: u32,
}

/// Tells that a file was written or touched: inode, length, and time of the last change in seconds and nanoseconds.
type Version = (u64, u64, i64, i64);

impl SecretFile {
    /// A secret that is offered `tries` times, and again when the file is written anew or touched.
    pub(crate) fn new(path: PathBuf, tries: u32) -> Self {
        Self {
            path,
            tries,
            refused: Mutex::default(),
        }
    }

    /// Reads the secret, without one line end after it.
    ///
    /// # Errors
    /// [`Error::PinFile`] where the file is missing, empty, too long, no UTF-8, or readable by others than its owner;
    /// [`Error::PinRejected`] where `device` refused it too often and it has not been touched since.
    pub(crate) fn read(&self, device: &str) -> Result<SecretString, Error> {
        let loaded = self.load();
        let (secret, version) = loaded.map_err(|cause| Error::PinFile {
            file: self.path.clone(),
            cause,
        })?;
        let mut refused = self.refused();
        if refused.version != Some(version) {
            *refused = Refused {
                version: Some(version),
                times: 0,
            };
        }
        if refused.times >= self.tries {
            return Err(self.rejection(device, "refused before, not tried again".into()));
        }
        Ok(secret)
    }

    /// Notes that the device took the secret.
    pub(crate) fn accepted(&self) {
        self.refused().times = 0;
    }

    /// Notes that `device` refused the secret, and makes the error that says so.
    pub(crate) fn rejected(&self, device: &str, cause: String) -> Error {
        let mut refused = self.refused();
        refused.times = refused.times.saturating_add(1);
        self.rejection(device, cause)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rejection(&self, device: &str, cause: String) -> Error {
        Error::PinRejected {
            device: device.into(),
            file: self.path.clone(),
            cause,
        }
    }

    fn load(&self) -> Result<(SecretString, Version), String> {
        let mut file = File::open(&self.path)
            .map_err(|e| format!("{e}; create it with the PIN or password in it, mode 0400"))?;
        let metadata = file.metadata().map_err(|e| e.to_string())?;
        check_mode(metadata.mode(), is_credential(&self.path))?;
        let version = (
            metadata.ino(),
            metadata.len(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );

        // One allocation of full size: a growing buffer would leave copies of the secret behind.
        let mut bytes = Zeroizing::new([0_u8; MAX_LENGTH + 3]);
        let mut length = 0;
        while let Some(free) = bytes.get_mut(length..).filter(|free| !free.is_empty()) {
            match file.read(free).map_err(|e| e.to_string())? {
                0 => break,
                count => length += count,
            }
        }
        let text = bytes.get(..length).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return Err("it is empty; write the PIN or password into it".into());
        }
        if text.len() > MAX_LENGTH {
            return Err(format!(
                "it is longer than {MAX_LENGTH} bytes; is it the right file?"
            ));
        }
        let text = str::from_utf8(text).map_err(|_| "it is not UTF-8 text".to_owned())?;
        Ok((SecretString::from(Box::<str>::from(text)), version))
    }
}

/// systemd guards its credentials by an ACL, whose mask looks like a group permission.
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .is_some_and(|directory| !directory.is_empty() && path.starts_with(directory))
}

fn check_mode(mode: u32, credential: bool) -> Result<(), String> {
    let others = mode & if credential { 0o007 } else { 0o077 };
    if others == 0 {
        return Ok(());
    }
    let mode = mode & 0o7777;
    Err(format!(
        "mode {mode:04o} lets others read or change it; run chmod 0400 on it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn file_with(content: &[u8], mode: u32) -> (tempfile::TempDir, SecretFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, SecretFile::new(path, 2))
    }

    #[test]
    fn one_line_end_is_not_part_of_the_secret() {
        let longest = "x".repeat(MAX_LENGTH);
        let longest_line = format!("{longest}\r\n");
        let cases: [(&[u8], &str); 6] = [
            (b"1234", "1234"),
            (b"1234\n", "1234"),
            (b"1234\r\n", "1234"),
            (b" 12 34 \n", " 12 34 "),
            (b"1234\n\n", "1234\n"),
            (longest_line.as_bytes(), &longest),
        ];
        for (content, secret) in cases {
            let (_directory, file) = file_with(content, 0o400);
            assert_eq!(file.read("token").unwrap().expose_secret(), secret);
        }
    }

    #[test]
    fn an_unusable_secret_file_is_refused_with_the_remedy() {
        let too_long = "x".repeat(MAX_LENGTH + 1);
        let cases: [(&[u8], u32, &str); 6] = [
            (b"1234", 0o640, "chmod 0400"),
            (b"1234", 0o604, "chmod 0400"),
            (b"1234", 0o620, "chmod 0400"),
            (b"\n", 0o400, "empty"),
            (b"\xff\xfe", 0o400, "UTF-8"),
            (too_long.as_bytes(), 0o400, "longer"),
        ];
        for (content, mode, remedy) in cases {
            let (_directory, file) = file_with(content, mode);
            let error = file.read("token").unwrap_err();
            assert!(matches!(error, Error::PinFile { .. }), "{error}");
            assert!(error.to_string().contains(remedy), "{error}");
        }
        let missing = SecretFile::new("/nonexistent/pin".into(), 1)
            .read("token")
            .unwrap_err();
        assert!(
            missing.to_string().contains("/nonexistent/pin"),
            "{missing}"
        );
    }

    #[test]
    fn a_systemd_credential_may_show_its_acl_mask_as_group_permission() {
        assert_eq!(check_mode(0o100_440, true), Ok(()));
        assert!(check_mode(0o100_440, false).is_err());
        assert!(check_mode(0o100_444, true).is_err());
    }

    #[test]
    fn a_secret_refused_too_often_is_offered_again_only_when_its_file_changes() {
        let (directory, file) = file_with(b"wrong", 0o600);
        for _ in 0..2 {
            file.read("token").unwrap();
            file.rejected("token", "CKR_PIN_INCORRECT".into());
        }
        assert!(matches!(file.read("token"), Err(Error::PinRejected { .. })));
        std::fs::write(directory.path().join("pin"), "corrected").unwrap();
        assert_eq!(file.read("token").unwrap().expose_secret(), "corrected");
    }

    #[test]
    fn only_refusals_in_a_row_count() {
        let (_directory, file) = file_with(b"right", 0o600);
        for _ in 0..5 {
            file.read("token").unwrap();
            file.rejected("token", "a corrupted answer".into());
            file.read("token").unwrap();
            file.accepted();
        }
    }
}
