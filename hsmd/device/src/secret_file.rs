//! The file that holds a device's PIN or password.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::Error;

/// The longest PIN or password taken from a file, in bytes.
const MAX_LENGTH: usize = 256;

/// A PIN or password in a file of its own, read anew for each login so that a corrected file is enough to heal.
pub(crate) struct SecretFile {
    path: PathBuf,
    /// The last secret that a device refused. Tokens lock after a few wrong tries, so none is made twice.
    rejected: Mutex<Option<SecretString>>,
}

impl SecretFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            rejected: Mutex::new(None),
        }
    }

    /// Reads the secret, without one line end after it.
    ///
    /// # Errors
    /// [`Error::PinFile`] where the file is missing, empty, too long, no UTF-8, or readable by others than its owner;
    /// [`Error::PinRejected`] where it still holds what `device` refused before.
    pub(crate) fn read(&self, device: &str) -> Result<SecretString, Error> {
        let secret = self.load().map_err(|cause| Error::PinFile {
            file: self.path.clone(),
            cause,
        })?;
        let rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rejected {
            Some(bad) if bad.expose_secret() == secret.expose_secret() => {
                Err(self.rejection(device, "it was refused before and has not changed".into()))
            }
            _ => Ok(secret),
        }
    }

    /// Remembers that `device` refused this secret, and makes the error that says so.
    pub(crate) fn reject(&self, secret: SecretString, device: &str, cause: String) -> Error {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret);
        self.rejection(device, cause)
    }

    fn rejection(&self, device: &str, cause: String) -> Error {
        Error::PinRejected {
            device: device.into(),
            file: self.path.clone(),
            cause,
        }
    }

    fn load(&self) -> Result<SecretString, String> {
        let mut file = File::open(&self.path)
            .map_err(|e| format!("{e}; create it with the PIN or password in it, mode 0400"))?;
        let mode = file.metadata().map_err(|e| e.to_string())?.mode();
        check_mode(mode, is_credential(&self.path))?;

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
        Ok(SecretString::from(Box::<str>::from(text)))
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
    use std::os::unix::fs::PermissionsExt as _;

    fn file_with(content: &[u8], mode: u32) -> (tempfile::TempDir, SecretFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, SecretFile::new(path))
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
        let missing = SecretFile::new("/nonexistent/pin".into())
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
    fn a_refused_secret_is_not_offered_again_until_the_file_changes() {
        let (directory, file) = file_with(b"wrong", 0o600);
        let secret = file.read("token").unwrap();
        file.reject(secret, "token", "CKR_PIN_INCORRECT".into());
        assert!(matches!(file.read("token"), Err(Error::PinRejected { .. })));
        std::fs::write(directory.path().join("pin"), "right").unwrap();
        assert_eq!(file.read("token").unwrap().expose_secret(), "right");
    }
}
