//! `syntic bench`: how fast a network of a model is, or the making of images, or a single operation on a GPU.

use super::{DeviceArgs, named, note, print};
use syntic::bench::predict::{Prediction, Request};
use syntic::bench::{self, Case, Format, Kernels, OpTotal, Part, Repeat, Report, Stages};
use syntic::generate::Batch;
use syntic::weights::ModelDir;
use syntic::{Error, Result, VERSION};

/// Flags of `syntic bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    on_gpu: Option<OnGpu>,
    #[command(flatten)]
    network: NetworkArgs,
}

/// What is for GPUs.
#[derive(Debug, clap::Subcommand)]
enum OnGpu {
    /// Check and time single operations on a GPU, at the shapes of Stable Diffusion 1.5.
    Kernels(KernelArgs),
    /// Time the stages of making images on a GPU, as a run has them: prompts, a step, a decoding, a whole batch.
    Stages(StageArgs),
}

#[derive(Debug, clap::Args)]
struct KernelArgs {
    /// One operation, or one case of it, or that with a storage type: `gemm_nt`, `gemm_nt/ff2 64x64`, `gemm_nt/ff2 64x64/bf16`.
    #[arg(long, value_name = "OP[/CASE[/DTYPE]]")]
    only: Option<String>,
    /// Print the cases and measure nothing.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
struct StageArgs {
    /// Model folder in the diffusers layout, an id in the Hugging Face cache, or `builtin`; `syntic random-model` writes one.
    #[arg(long, value_name = "DIR|ID|builtin")]
    model: String,
    /// Height and width in pixels.
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Images at once; auto for as many as the free memory takes. Several, with commas between, are measured one after the other [default: auto
    /// on a card, 1 on the simulator]
    #[arg(long, value_name = "N|auto,...", value_delimiter = ',')]
    batch: Vec<Batch>,
    /// Strength of guidance; 1 or less turns it off.
    #[arg(long, default_value_t = 7.5)]
    guidance: f32,
    /// Denoising steps, by the model's own sampler.
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Batches of each size that are counted.
    #[arg(long, value_name = "N", default_value_t = 3)]
    reps: usize,
    /// Batches before them that are not; the first makes the graphs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    /// Leave out what a product and a copy reach, for a profiler that would count them too; shares are then left out.
    #[arg(long)]
    no_ceilings: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
struct NetworkArgs {
    /// What to measure: one evaluation of the denoising network, the decoding of an image, the encoding of prompts, or all of it.
    #[arg(value_parser = named([("unet", Part::Unet), ("vae", Part::Vae), ("text", Part::Text), ("generate", Part::Generate)]), required_unless_present = "predict")]
    part: Option<Part>,
    /// Needs no GPU and no weights: the least time that making images takes on this card, from blocks of every kernel launch that are run in
    /// the simulator. `a100`, `rtx4090`, `h100` or `h200`.
    #[arg(long, value_name = "CHIP", conflicts_with_all = ["part", "guidance", "profile", "format"])]
    predict: Option<String>,
    /// Model folder in the diffusers layout, an id in the Hugging Face cache, or `builtin`; `syntic random-model` writes one. With --predict also
    /// `sd15` (which is what it takes if there is none) and `sd21-base`: only shapes are needed.
    #[arg(long, value_name = "DIR|ID|builtin", required_unless_present = "predict")]
    model: Option<String>,
    /// Height and width in pixels.
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Images or prompts at once; 1 if it is not given, with --predict 16.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Evaluate with and without the prompt, as a step with guidance does.
    #[arg(long)]
    guidance: bool,
    /// Denoising steps of `generate` and --predict.
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Runs that are counted.
    #[arg(long, value_name = "N", default_value_t = 3)]
    reps: usize,
    /// Runs before them that are not.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    /// Also show the time by operation, from one more run.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, clap::Args)]
struct OutputArgs {
    /// Form of the report.
    #[arg(long, value_parser = named([("md", Format::Markdown), ("json", Format::Json), ("csv", Format::Csv)]), default_value = "md")]
    format: Format,
    /// The same as --format json.
    #[arg(long)]
    json: bool,
}

impl OutputArgs {
    fn print(&self, report: &impl bench::Table) -> Result<()> {
        print(bench::render(report, if self.json { Format::Json } else { self.format })?.trim_end());
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    match args.on_gpu {
        Some(OnGpu::Kernels(args)) => kernels(args),
        Some(OnGpu::Stages(args)) => stages(args),
        None => network(args.network),
    }
}

fn kernels(mut args: KernelArgs) -> Result<()> {
    let kernels = Kernels::choose(args.only.as_deref())?;
    if let Some(dtype) = kernels.dtype() {
        if let Some(other) = args.device.dtype.filter(|&other| other != dtype) {
            return Err(Error::usage(format!("--only names {dtype}, --dtype {other}"), "leave one of them out"));
        }
        args.device.dtype = Some(dtype);
    }
    if args.list {
        return args.output.print(&kernels.list(args.device.storage()?));
    }
    let (device, _) = args.device.open()?;
    args.output.print(&kernels.measure(&device)?)
}

fn stages(args: StageArgs) -> Result<()> {
    let (device, precision) = args.device.open()?;
    let stages = Stages {
        size: (args.size, args.size),
        batches: if args.batch.is_empty() { vec![Batch::Usual] } else { args.batch },
        guidance: args.guidance,
        steps: args.steps,
        repeat: Repeat { warmup: args.warmup, reps: args.reps },
        ceilings: !args.no_ceilings,
    };
    let report = stages.measure(&args.model, &device, precision)?;
    if let Some(problem) = &report.unkept {
        note(format_args!("warning: {problem}"));
    }
    args.output.print(&report)
}

fn network(args: NetworkArgs) -> Result<()> {
    if let Some(chip) = args.predict {
        let request = Request {
            chip,
            model: args.model.unwrap_or_else(|| "sd15".into()),
            size: (args.size, args.size),
            batch: args.batch.unwrap_or(16),
            steps: args.steps,
            storage: args.device.storage()?,
            threads: args.device.threads(),
        };
        let prediction = bench::predict::predict(&request)?;
        let text = if args.output.json { to_json(&prediction)? } else { prediction.text() };
        print(text.trim_end());
        return Ok(());
    }
    // Required, but beside a subcommand.
    let (Some(part), Some(model)) = (args.part, args.model) else {
        return Err(Error::usage("nothing to measure", "name a part and a --model, or kernels, or stages"));
    };
    let (device, precision) = args.device.open()?;
    let case = Case {
        part,
        size: (args.size, args.size),
        batch: args.batch.unwrap_or(1),
        guidance: args.guidance,
        steps: args.steps,
        repeat: Repeat { warmup: args.warmup, reps: args.reps },
        profile: args.profile,
    };
    let measured = bench::measure(&case, &ModelDir::open(&model)?, &device, precision)?;
    let report = Report { version: VERSION.into(), device: device.describe(), model, results: vec![measured.row] };
    args.output.print(&report)?;
    if args.profile {
        print_profile(&measured.profile);
    }
    Ok(())
}

fn to_json(prediction: &Prediction) -> Result<String> {
    serde_json::to_string(prediction).map_err(|e| Error::Internal { op: "prediction", message: e.to_string() })
}

/// Where the time of one run went, on standard error so that the report stays readable by programs.
fn print_profile(totals: &[OpTotal]) {
    let all: f64 = totals.iter().map(|total| total.seconds).sum();
    note(format_args!("\n{:>9} {:>6} {:>6} {:>9}  operation and output", "ms", "share", "calls", "GFLOP/s"));
    for total in totals {
        let rate = total.gflop / total.seconds;
        let (ms, share) = (total.seconds * 1e3, total.seconds / all * 100.0);
        note(format_args!("{ms:>9.2} {share:>5.1}% {:>6} {rate:>9.1}  {}", total.calls, total.op));
    }
}
