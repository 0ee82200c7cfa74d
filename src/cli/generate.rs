//! `syntic generate`: captions in, shards of image-text pairs out.

use super::DeviceArgs;
use super::progress::Report;
use clap::ValueEnum;
use std::path::PathBuf;
use syntic::corpus::{CorpusFormat, CorpusOptions};
use syntic::diffusion::schedulers::SchedulerName;
use syntic::generate::{self, Output, Rng, Sampling, Selection, Settings};
use syntic::shards::ImageFormat;
use syntic::{Error, Result};

/// Flags of `syntic generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model folder in the diffusers layout, or an id in the Hugging Face cache: `org/name[@revision]`.
    #[arg(long, value_name = "DIR|ID")]
    model: String,
    /// Captions: txt (one a line), tsv, csv, jsonl, COCO JSON or Karpathy JSON.
    #[arg(long, value_name = "FILE")]
    captions: PathBuf,
    /// Folder of the shards. Run the same command again to resume.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Denoising steps.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Strength of classifier-free guidance; 1 or less turns it off.
    #[arg(long, default_value_t = 7.5)]
    guidance: f32,
    /// What the pictures should not show.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative: String,
    /// Sampler; auto takes the model's own.
    #[arg(long, value_enum, default_value_t = SchedulerArg::Auto)]
    scheduler: SchedulerArg,
    /// Height in pixels.
    #[arg(long, default_value_t = 512)]
    height: usize,
    /// Width in pixels.
    #[arg(long, default_value_t = 512)]
    width: usize,
    /// Pictures made at once. Changes speed and memory, never a picture.
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Picture i is made from seed + i, i its position in the caption file.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Random numbers: philox, or torch-cpu for the noise that a seeded torch CPU generator gives.
    #[arg(long, value_enum, default_value_t = RngArg::Philox)]
    rng: RngArg,

    /// Captions to skip at the start.
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u64,
    /// Captions to use at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Split of a Karpathy file: train (with restval), restval, val or test.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Column or key of the captions in tsv, csv and jsonl files.
    #[arg(long, value_name = "NAME")]
    caption_col: Option<String>,
    /// Format of the caption file, where its name and first bytes do not tell.
    #[arg(long, value_enum, value_name = "FORMAT")]
    captions_format: Option<CaptionsFormatArg>,
    /// Accept captions longer than the text encoder reads; their end is cut either way.
    #[arg(long)]
    truncate: bool,

    /// Pairs in a shard.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    shard_size: usize,
    /// Image format; webp is lossless.
    #[arg(long, value_enum, default_value_t = FormatArg::Jpg)]
    format: FormatArg,
    /// JPEG quality.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Start from these latents, `latents` [N, 4, height/8, width/8] f32 of unit variance, instead of drawn noise.
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Write the final latents here, in the same form.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Which worker this is, of --worker-count: worker I makes the shards whose number leaves I.
    #[arg(long, value_name = "I", default_value_t = 0)]
    worker_index: u64,
    /// How many workers share the work.
    #[arg(long, value_name = "N", default_value_t = 1)]
    worker_count: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

/// Names of `--scheduler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SchedulerArg {
    /// What scheduler_config.json names.
    Auto,
    /// PNDM without Runge-Kutta steps (PLMS).
    Pndm,
    /// DDIM, eta 0.
    Ddim,
    /// Euler.
    Euler,
    /// Euler ancestral.
    #[value(name = "euler-a")]
    EulerA,
    /// DPM-Solver++ 2M.
    #[value(name = "dpm++")]
    Dpmpp,
    /// DPM-Solver++ 2M with Karras sigmas.
    #[value(name = "dpm++-karras")]
    DpmppKarras,
    /// UniPC.
    Unipc,
    /// Latent consistency.
    Lcm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RngArg {
    /// Counter-based: an image depends on its seed alone.
    Philox,
    /// torch's CPU generator.
    TorchCpu,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// JPEG, 4:4:4.
    Jpg,
    /// PNG.
    Png,
    /// WebP, lossless.
    Webp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CaptionsFormatArg {
    /// One caption a line.
    Txt,
    /// Tab-separated.
    Tsv,
    /// Comma-separated.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// COCO annotations.
    Coco,
    /// Karpathy's splits.
    Karpathy,
}
