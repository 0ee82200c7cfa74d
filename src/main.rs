//! The `syntic` command: parse, dispatch, exit code.
//!
//! Exit codes: 0 done, 1 internal error, 2 usage or input, 3 finished with samples that failed or were cut, 75 interrupted and resumable.

#![deny(unsafe_code)]
#![deny(clippy::exit, clippy::unwrap_used, clippy::expect_used, clippy::dbg_macro, clippy::todo)]

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::note(format_args!("error: {error}"));
            if let Some(hint) = error.hint() {
                cli::note(format_args!("hint: {hint}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
