//! What is wrong with a configuration file, for the person who wrote it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration was refused. Always the operator's fault; nothing was started.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong with it, at least one, in the order of the checks.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, such as `chain[0].node`; a line number where only that is known.
    pub key: String,
    /// The value at fault, as written; none where it is missing.
    pub value: Option<String>,
    /// What is wrong with it.
    pub fault: String,
    /// What to do about it.
    pub remedy: String,
}

impl Error {
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        Self::single(
            file,
            "the file itself".to_owned(),
            format!("cannot be read: {error}"),
            "name the configuration with --config FILE, and let hsm-sentry's user read it",
        )
    }

    /// The parser's message without the line's text: somebody may have written a secret there.
    pub(super) fn toml(file: &Path, text: &str, mut error: toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        error.set_input(None);
        Self::single(
            file,
            format!("line {line}"),
            error.to_string().trim().replace('\n', " "),
            "correct the line",
        )
    }

    fn single(file: &Path, key: String, fault: String, remedy: &str) -> Self {
        Self {
            file: file.to_path_buf(),
            problems: vec![Problem {
                key,
                value: None,
                fault,
                remedy: remedy.to_owned(),
            }],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{}: {count} problem{plural}", self.file.display())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}\n    -> {}", self.fault, self.remedy)
    }
}
