//! `syntic random-model`: a Stable Diffusion folder with seeded random weights.

use clap::ValueEnum;
use std::path::PathBuf;
use syntic::Result;
use syntic::diffusion;
use syntic::tensor::DType;
use syntic::weights::random::Arch;

/// Flags of `syntic random-model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architecture.
    #[arg(long, value_enum)]
    arch: ArchArg,
    /// Number type of the stored weights.
    #[arg(long, value_enum, default_value_t = DTypeArg::F16)]
    dtype: DTypeArg,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder to write; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArchArg {
    /// Stable Diffusion 1.5: 512 x 512, 4.3 GB in f32.
    Sd15,
    /// Stable Diffusion 2.1: v-prediction, 5.2 GB in f32.
    Sd21,
    /// A model of the same make that runs in milliseconds.
    Tiny,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DTypeArg {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}
