//! The program: see `hsm_enroll::cli`.

fn main() -> std::process::ExitCode {
    hsm_enroll::cli::main()
}
