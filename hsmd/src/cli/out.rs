//! What commands print. Output that nobody reads any more, such as into `head`, ends a command quietly.

use std::fmt;
use std::io::{self, Write as _};

use super::Error;

/// Prints a line on standard output; the command ends there if that is closed.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::out::line(format_args!($($text)*))?
    };
}

/// Standard output is closed.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct Closed;

/// Prints a line.
///
/// # Errors
///
/// [`Closed`], or whatever else the system says.
pub(super) fn line(text: fmt::Arguments<'_>) -> Result<(), Error> {
    whole(format_args!("{text}\n"))
}

/// Prints a text that has its line breaks.
///
/// # Errors
///
/// [`Closed`], or whatever else the system says.
pub(super) fn whole(text: fmt::Arguments<'_>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        written => Ok(written?),
    }
}

/// Prints a line for people on standard error; one that cannot be printed is nobody's loss.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
