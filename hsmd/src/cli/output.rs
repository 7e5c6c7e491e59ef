//! What commands print. A reader that has seen enough (`| head`) ends the output, not the command: what it was to
//! do is done, and its exit code tells how that went.

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// Writes to stdout. An output that cannot be written for another reason than that nobody reads it is an error.
pub(super) fn write(text: Arguments<'_>) -> io::Result<()> {
    match io::stdout().write_fmt(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints a line, in a function that returns what became of it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::write(format_args!("{}\n", format_args!($($text)*)))?
    };
}
pub(super) use say;
