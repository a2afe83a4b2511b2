//! The command line: one subcommand per file.

/// Runs the command line of this process; the exit code is 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
