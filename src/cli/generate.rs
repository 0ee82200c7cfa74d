//! `syntic generate`: captions in, shards of image-text pairs out.

use super::progress::Report;
use super::{DeviceArgs, named, print};
use std::path::PathBuf;
use syntic::Result;
use syntic::corpus::{CorpusOptions, Format};
use syntic::diffusion::schedulers::SchedulerName;
use syntic::generate::{Batch, Output, Run, Sampling, Selection, Settings};
use syntic::rng::RngKind;
use syntic::shards::ImageFormat;

/// Flags of `syntic generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model: a folder in the diffusers layout, an id in the Hugging Face cache (`org/name[@revision]`), or `builtin`.
    #[arg(long, value_name = "DIR|ID|builtin")]
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
    #[arg(long, value_parser = named(SchedulerName::all().map(|s| (s.name(), s))), default_value = "auto")]
    scheduler: SchedulerName,
    /// Height in pixels [default: the model's own, 512 for Stable Diffusion 1.5]
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Width in pixels [default: the model's own]
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Pictures made at once, or auto for as many as the free memory takes. Changes speed and memory, never a picture
    /// [default: auto on a GPU, 1 elsewhere]
    #[arg(long, value_name = "N|auto")]
    batch: Option<Batch>,
    /// Picture i is made from seed + i, i its position in the caption file.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Random numbers: philox, or torch-cpu for the noise that a seeded torch CPU generator gives.
    #[arg(long, value_parser = named(RngKind::ALL.map(|r| (r.name(), r))), default_value = "philox")]
    rng: RngKind,

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
    #[arg(long, value_parser = named(Format::NAMES), value_name = "FORMAT")]
    captions_format: Option<Format>,
    /// Accept captions longer than the text encoder reads; their end is cut either way.
    #[arg(long)]
    truncate: bool,

    /// Pairs in a shard.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    shard_size: usize,
    /// Image format; webp is lossless.
    #[arg(long, value_parser = named(ImageFormat::ALL.map(|f| (f.extension(), f))), default_value = "jpg")]
    format: ImageFormat,
    /// JPEG quality.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Start from these latents, `latents` [N, 4, height/8, width/8] f32 of unit variance, instead of drawn noise.
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Write the final latents here, in the same form.
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Which worker this is, of --worker-count: worker I makes the shards whose number, divided by the count, leaves I.
    #[arg(long, value_name = "I", default_value_t = 0)]
    worker_index: u32,
    /// How many workers share the work.
    #[arg(long, value_name = "N", default_value_t = 1)]
    worker_count: u32,
    #[command(flatten)]
    device: DeviceArgs,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a line instead of text.
    #[arg(long)]
    json: bool,
    /// Write what each stage did when, for chrome://tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

impl Args {
    fn settings(self) -> Settings {
        Settings {
            model: self.model,
            captions: self.captions,
            corpus: CorpusOptions { format: self.captions_format, split: self.split, column: self.caption_col },
            selection: Selection {
                offset: self.offset,
                limit: self.limit,
                worker_index: self.worker_index,
                worker_count: self.worker_count,
            },
            sampling: Sampling {
                steps: self.steps,
                guidance: self.guidance,
                negative: self.negative,
                scheduler: self.scheduler,
                height: self.height,
                width: self.width,
                seed: self.seed,
                rng: self.rng,
            },
            output: Output {
                folder: self.out,
                shard_size: self.shard_size,
                format: self.format,
                quality: self.quality,
                save_latents: self.save_latents,
            },
            init_latents: self.init_latents,
            batch: self.batch.unwrap_or_default(),
            trace: self.trace,
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let (device, precision) = args.device.open()?;
    let (json, truncate, dry_run) = (args.json, args.truncate, args.dry_run);
    let run = Run::prepare(args.settings(), &device, precision)?;
    if dry_run {
        let plan = run.describe()?;
        if json {
            print(plan)
        } else {
            print_plan(&plan)
        }
        return Ok(());
    }
    run.execute(&Report::new(json), super::interrupt()?)?.verdict(truncate)
}

/// Prints the entries of a plan, one a line.
fn print_plan(plan: &serde_json::Value) {
    for (key, value) in plan.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::String(text) => print(format_args!("{key:>16}  {text}")),
            other => print(format_args!("{key:>16}  {other}")),
        }
    }
}
