//! What commands print. A reader that has seen enough, such as `head`, ends the output, not the command: what it was
//! to do is done, and its exit code tells how that went.

use std::fmt;
use std::io::{self, Write as _};

use super::Error;

/// Prints a line on standard output; in a function that returns what became of it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::out::line(format_args!($($text)*))?
    };
}

/// Prints a line.
///
/// # Errors
///
/// Whatever the system says, save that nobody reads it.
pub(super) fn line(text: fmt::Arguments<'_>) -> Result<(), Error> {
    whole(format_args!("{text}\n"))
}

/// Prints a text that has its line breaks.
///
/// # Errors
///
/// Whatever the system says, save that nobody reads it.
pub(super) fn whole(text: fmt::Arguments<'_>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Prints a line for people on standard error; one that cannot be printed is nobody's loss.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
