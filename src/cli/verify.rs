//! `syntic verify`: are the shards of a folder complete, readable, and what their statistics say?

use super::print;
use std::path::PathBuf;
use syntic::{Error, Result, shards};

/// Flags of `syntic verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the shards.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Problems end it with exit code 3.
pub fn run(args: Args) -> Result<()> {
    let report = shards::verify(&args.folder)?;
    if args.json {
        let json = serde_json::to_string(&report).map_err(|e| Error::Internal { op: "verify", message: e.to_string() })?;
        print(json);
    } else {
        report.lines().iter().for_each(print);
    }
    if report.is_ok() { Ok(()) } else { Err(Error::Damaged { path: args.folder, problems: report.problems.len() }) }
}
