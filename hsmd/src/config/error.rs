//! What is wrong with a configuration file, for the person who wrote it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration was refused. The operator's fault, always; nothing was started.
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
    /// Dotted path of the key, such as `device[hsm-a].pin_file`; a line number where only that is known.
    pub key: String,
    /// The value at fault, as written; none where it is missing or may not be shown.
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
            Problem {
                key: "the file itself".to_owned(),
                value: None,
                fault: format!("cannot be read: {error}"),
                remedy: "name the configuration with --config FILE, and let hsmd's user read it"
                    .to_owned(),
            },
        )
    }

    /// The parser's message without the line's text: somebody may have written a secret there.
    pub(super) fn toml(file: &Path, text: &str, mut error: toml::de::Error) -> Self {
        let line = error.span().and_then(|span| text.get(..span.start));
        let line = line.map_or(1, |before| before.matches('\n').count() + 1);
        error.set_input(None);
        Self::single(
            file,
            Problem {
                key: format!("line {line}"),
                value: None,
                fault: error.to_string().trim().replace('\n', " "),
                remedy: "correct the line; `hsmd dev` writes a whole configuration to compare with"
                    .to_owned(),
            },
        )
    }

    fn single(file: &Path, problem: Problem) -> Self {
        Self {
            file: file.to_path_buf(),
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(
            f,
            "{}: {} problem{plural}",
            self.file.display(),
            self.problems.len()
        )?;
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

/// Collects the problems of one file.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// `value` is shown as it would stand in the file.
    pub(super) fn value(
        &mut self,
        key: &str,
        value: impl fmt::Debug,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(key, Some(format!("{value:?}")), fault.into(), remedy.into());
    }

    /// The key is not there.
    pub(super) fn missing(&mut self, key: &str, remedy: &str) {
        self.push(key, None, "missing".to_owned(), remedy.to_owned());
    }

    /// The value, or a problem where the key is not there.
    pub(super) fn required<T>(&mut self, key: &str, value: Option<T>, remedy: &str) -> Option<T> {
        if value.is_none() {
            self.missing(key, remedy);
        }
        value
    }

    fn push(&mut self, key: &str, value: Option<String>, fault: String, remedy: String) {
        self.0.push(Problem {
            key: key.to_owned(),
            value,
            fault,
            remedy,
        });
    }
}
