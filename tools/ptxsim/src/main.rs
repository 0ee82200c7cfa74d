//! `ptxsim run`: one launch of one kernel. Exit codes: 0 ran clean, 2 bad usage or bad PTX, 4 faults found.

#![forbid(unsafe_code)]

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli::Cli { command: cli::Command::Run(flags) } = cli::Cli::parse();
    match cli::run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(4),
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}
