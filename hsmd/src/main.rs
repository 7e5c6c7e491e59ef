//! The program `hsmd`: its command line is `hsmd::cli`.

fn main() -> std::process::ExitCode {
    hsmd::cli::main()
}
