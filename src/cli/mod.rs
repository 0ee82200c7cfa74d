//! The command line: one file a command. Flags are parsed into what was typed, validated into library settings, and run.

mod bench;
mod counter;
mod demo;
mod doctor;
mod gallery;
mod generate;
mod progress;
mod random_model;
mod tinyworld;
mod verify;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, value_parser};
use counter::Counter;
use std::fmt;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use syntic::device::{Device, DeviceChoice, Precision};
use syntic::tensor::DType;
use syntic::{Error, Result};

/// Synthetic image-text pairs for text-only image captioning.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work, with nothing but this program: captions of a small world become pictures, which are judged.
    Demo(demo::Args),
    /// Turn captions into images: shards of image-text pairs.
    Generate(Box<generate::Args>),
    /// Check shards: complete, readable, and what their statistics say.
    Verify(verify::Args),
    /// Show pairs as one self-contained HTML page, or a PNG contact sheet.
    Gallery(gallery::Args),
    /// Write a Stable Diffusion folder with seeded random weights, to measure and to test.
    RandomModel(random_model::Args),
    /// Write a part of the built-in world: pictures of a few coloured objects with five captions each.
    Tinyworld(tinyworld::Args),
    /// Measure the speed of a part of a model, or of all of it.
    Bench(bench::Args),
    /// Say what this machine has, and what syntic will use of it.
    Doctor(doctor::Args),
}

impl Cli {
    /// Runs the command that was typed.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Demo(args) => demo::run(args),
            Command::Generate(args) => generate::run(*args),
            Command::Verify(args) => verify::run(args),
            Command::Gallery(args) => gallery::run(args),
            Command::RandomModel(args) => random_model::run(args),
            Command::Tinyworld(args) => tinyworld::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}

/// Where to run and how precisely: flags of every command that computes.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// Processor to use: auto (the best there is), cpu, cuda or cuda:N (an NVIDIA GPU), sim (the GPU's kernels, simulated and checked).
    #[arg(long, value_name = "auto|cpu|cuda[:N]|sim", default_value_t)]
    device: DeviceChoice,
    /// Worker threads on the CPU [default: all cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Number type of matrix products, and on a GPU of everything stored; sums, norms and softmax are f32 in all. A CPU takes f32 or bf16
    /// (with AVX512-BF16), a GPU f16 or bf16 [default: f32 on a CPU, f16 on a GPU]
    #[arg(long, value_parser = named([DType::F32, DType::BF16, DType::F16].map(|d| (d.name(), d))))]
    dtype: Option<DType>,
}

impl DeviceArgs {
    /// What a GPU stores.
    fn storage(&self) -> Result<DType> {
        DeviceChoice::gpu_storage(self.dtype)
    }

    fn threads(&self) -> usize {
        self.threads.into()
    }

    fn open(&self) -> Result<(Device, Precision)> {
        self.device.open(self.threads.into(), self.dtype)
    }
}

/// A flag that takes one of a few named values.
fn named<T: Clone + Send + Sync + 'static>(
    values: impl IntoIterator<Item = (&'static str, T)>,
) -> impl TypedValueParser<Value = T> {
    let values: Vec<(&str, T)> = values.into_iter().collect();
    PossibleValuesParser::new(values.iter().map(|(name, _)| *name)).try_map(move |typed| {
        values.iter().find(|(name, _)| *name == typed).map(|(_, value)| value.clone()).ok_or("not one of the values")
    })
}

/// A line on standard output. That nobody reads it is no failure of the program.
fn print(line: impl fmt::Display) {
    _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error, likewise.
pub fn note(line: impl fmt::Display) {
    _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A flag that Ctrl-C, SIGTERM and SIGHUP raise. Another signal later ends the process at once; one that follows on the heels of the
/// first is the same request, sent to the process and to its group, as `timeout` does.
fn interrupt() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    static FIRST: OnceLock<Instant> = OnceLock::new();
    ctrlc::set_handler(|| {
        STOP.store(true, Ordering::Relaxed);
        if FIRST.get_or_init(Instant::now).elapsed() > Duration::from_secs(1) {
            std::process::abort();
        }
    })
    .map_err(|e| Error::Internal { op: "signal handler", message: e.to_string() })?;
    Ok(&STOP)
}
