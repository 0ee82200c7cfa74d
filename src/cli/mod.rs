//! The command line: one file a command. Flags are parsed into what was typed, validated into library settings, and run.

mod bench;
mod gallery;
mod generate;
mod progress;
mod random_model;
mod verify;

use clap::{Parser, Subcommand, ValueEnum};
use syntic::Result;
use syntic::device::{Device, Precision};

/// Synthetic image-text pairs for text-only image captioning.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn captions into images: shards of image-text pairs.
    Generate(generate::Args),
    /// Check shards: complete, readable, and what their statistics say.
    Verify(verify::Args),
    /// Show pairs as one self-contained HTML page, or a PNG contact sheet.
    Gallery(gallery::Args),
    /// Write a Stable Diffusion folder with seeded random weights, to measure and to test.
    RandomModel(random_model::Args),
    /// Measure the speed of a part of a model, or of all of it.
    Bench(bench::Args),
}

impl Cli {
    /// Runs the command that was typed.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Generate(args) => generate::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Gallery(args) => gallery::run(args),
            Command::RandomModel(args) => random_model::run(args),
            Command::Bench(args) => bench::run(args),
        }
    }
}

/// Where to run and how precisely: flags of every command that computes.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// Processor to use.
    #[arg(long, value_enum, default_value_t = DeviceName::Auto)]
    device: DeviceName,
    /// Worker threads on the CPU [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Number type of matrix products; sums, norms and softmax are f32 in both.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    dtype: PrecisionName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeviceName {
    /// The best there is.
    Auto,
    /// The CPU.
    Cpu,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionName {
    /// Single precision.
    F32,
    /// bfloat16 operands, on CPUs with AVX512-BF16.
    Bf16,
}

impl DeviceArgs {
    fn open(&self) -> Result<(Device, Precision)> {
        let device = match self.device {
            DeviceName::Auto | DeviceName::Cpu => Device::cpu(self.threads)?,
        };
        let precision = match self.dtype {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
        };
        device.check_precision(precision)?;
        Ok((device, precision))
    }
}
