//! `hsm-ceremony`: see its library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hsm_ceremony::cli::run()
}
