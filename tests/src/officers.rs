//! Officers with keys made by ssh-keygen, who sign documents with it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The officers of a deployment.
pub struct Officers {
    directory: PathBuf,
}

impl Officers {
    /// Makes a key for each name. `None` where the machine has no ssh-keygen.
    ///
    /// # Panics
    ///
    /// If ssh-keygen fails.
    #[must_use]
    pub fn new(directory: &Path, names: &[&str]) -> Option<Self> {
        Command::new("ssh-keygen").arg("-?").output().ok()?;
        let directory = directory.join("officers");
        std::fs::create_dir(&directory).expect("a directory");
        let mut list = String::new();
        for name in names {
            let key = directory.join(name);
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key));
            let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
            list += &format!("{name} {public}");
        }
        std::fs::write(directory.join("list"), list).expect("the list");
        Some(Self { directory })
    }

    /// The list that `hsmd state init --officers` takes.
    #[must_use]
    pub fn list(&self) -> PathBuf {
        self.directory.join("list")
    }

    /// The options that name the document, and its signatures by these officers.
    ///
    /// # Panics
    ///
    /// If ssh-keygen fails.
    #[must_use]
    pub fn sign(&self, kind: &str, document: &str, names: &[&str]) -> Vec<String> {
        let file = self.directory.join("document.toml");
        std::fs::write(&file, document).expect("the document");
        let mut options = vec!["--document".to_owned(), text(&file)];
        for name in names {
            let namespace = format!("{kind}@hsmd");
            run(Command::new("ssh-keygen")
                .args(["-q", "-Y", "sign", "-n", &namespace, "-f"])
                .arg(self.directory.join(name))
                .arg(&file));
            let kept = self.directory.join(format!("{name}.sig"));
            std::fs::rename(self.directory.join("document.toml.sig"), &kept).expect("a signature");
            options.extend(["--signature".to_owned(), text(&kept)]);
        }
        options
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().expect("ssh-keygen runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
}
