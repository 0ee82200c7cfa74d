//! `syntic random-model`: a Stable Diffusion folder with seeded random weights.

use super::{named, note};
use std::path::PathBuf;
use syntic::Result;
use syntic::diffusion::declared_tensors;
use syntic::tensor::DType;
use syntic::weights::{Arch, write_model_folder};

/// Flags of `syntic random-model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architecture: Stable Diffusion 1.5 or 2.1, or a tiny model of the same make.
    #[arg(long, value_parser = named(Arch::ALL.map(|a| (a.name(), a))))]
    arch: Arch,
    /// Number type of the stored weights.
    #[arg(long, value_parser = named([DType::F16, DType::F32].map(|d| (d.name(), d))), default_value = "f16")]
    dtype: DType,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder to write; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    write_model_folder(&args.out, args.arch, args.dtype, args.seed, &declared_tensors)?;
    note(format_args!("{} with random weights (seed {}): {}", args.arch.name(), args.seed, args.out.display()));
    Ok(())
}
