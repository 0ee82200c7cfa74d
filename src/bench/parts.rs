//! The cases of `syntic bench`: one network of a model at a time, or the making of whole images.

use super::{OpTotal, Profiler, Repeat, Row, Times, normals};
use crate::Result;
use crate::device::{Arena, Device, Exec, Plan, Precision};
use crate::diffusion::sampler::{Sample, Sampler, Savings, Settings};
use crate::diffusion::schedulers::{self, SchedulerName};
use crate::diffusion::unet::{Conditions, Halves, TextState};
use crate::diffusion::{ModelSpec, StableDiffusion, load_text_encoder, load_unet, load_vae_decoder};
use crate::ops::attention::KvRows;
use crate::rng::RngKind;
use crate::weights::ModelDir;
use std::ops::ControlFlow;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One evaluation of the denoising network.
    Unet,
    /// The decoding of images, one after the other.
    Vae,
    /// The encoding of prompts.
    Text,
    /// Prompts to pixels.
    Generate,
}

/// A case and how to run it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What.
    pub part: Part,
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// Images (or prompts) at once.
    pub batch: usize,
    /// With and without the prompt, as guidance needs.
    pub guidance: bool,
    /// Denoising steps, for [`Part::Generate`].
    pub steps: usize,
    /// Repetitions.
    pub repeat: Repeat,
    /// Also say where the time goes.
    pub profile: bool,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Times and rates.
    pub row: Row,
    /// Times by operation of one more run, if asked for.
    pub profile: Vec<OpTotal>,
}

/// Loads what `case` needs of `model` and measures it.
///
/// # Errors
/// Those of loading the model and of sizes that it cannot make.
pub fn measure(case: &Case, model: &ModelDir, device: &Device, precision: Precision) -> Result<Measured> {
    let spec = ModelSpec::read(model)?;
    spec.check_size(case.size.0, case.size.1)?;
    spec.check_batch(case.batch)?;
    match case.part {
        Part::Unet => unet(case, &spec, model, device, precision),
        Part::Vae => vae(case, &spec, model, device, precision),
        Part::Text => text(case, &spec, model, device),
        Part::Generate => generate(case, model, device, precision),
    }
}

fn unet(case: &Case, spec: &ModelSpec, model: &ModelDir, device: &Device, precision: Precision) -> Result<Measured> {
    let unet = load_unet(model, device, precision)?;
    let [channels, height, width] = spec.latent_shape(case.size.0, case.size.1);
    let (length, context) = (spec.text.max_positions, spec.text.layers.width);
    let (mut time, mut text) = (unet.time_state(device, 1)?, TextState::zeros(device, &unet, 2, length)?);
    Arena::new().run_once(device, |exec| unet.encode_time(exec, &[501.0], 7.5, &mut time))?;
    let hidden = normals(1, 2 * length * context);
    Arena::new().run_once(device, |exec| unet.encode_text(exec, &exec.input([2, length, context], &hidden)?, 0, &mut text))?;
    let latents = normals(2, case.batch * height * width * channels);
    let (halves, label) = if case.guidance { (Halves::Both, " guidance") } else { (Halves::Prompts, "") };
    let mut rows = vec![1; case.batch];
    if case.guidance {
        rows.splice(0..0, vec![0; case.batch]);
    }
    let rows = KvRows::new(device, rows)?;
    let conditions = Conditions { time: &time, step: 0, text: &text, text_rows: &rows, halves };
    let name = format!("unet {}x{} batch {}{label}", case.size.0, case.size.1, case.batch);
    passes(case, name, device, precision, None, |exec| {
        unet.forward(exec, &exec.input([case.batch, height, width, channels], &latents)?, &conditions).map(drop)
    })
}

fn vae(case: &Case, spec: &ModelSpec, model: &ModelDir, device: &Device, precision: Precision) -> Result<Measured> {
    let vae = load_vae_decoder(model, device, precision)?;
    let [channels, height, width] = spec.latent_shape(case.size.0, case.size.1);
    let latents = normals(3, height * width * channels);
    let name = format!("vae {}x{}", case.size.0, case.size.1);
    passes(case, name, device, precision, Some(1), |exec| {
        vae.forward(exec, exec.input([1, height, width, channels], &latents)?).map(drop)
    })
}

fn text(case: &Case, spec: &ModelSpec, model: &ModelDir, device: &Device) -> Result<Measured> {
    let text = load_text_encoder(model, device)?;
    let length = spec.text.max_positions;
    let ids: Vec<u32> = (0..case.batch * length).map(|i| (i * 7919 % spec.text.vocab_size) as u32).collect();
    let name = format!("text batch {}", case.batch);
    passes(case, name, device, Precision::F32, None, |exec| text.forward(exec, &ids, length).map(drop))
}

/// Measures a pass that can be repeated.
fn passes(
    case: &Case,
    name: String,
    device: &Device,
    precision: Precision,
    images: Option<usize>,
    pass: impl Fn(&Exec<'_>) -> Result<()> + Sync,
) -> Result<Measured> {
    let plan = Plan::record(device, &pass)?;
    let mut arena = Arena::new();
    let times = Times::measure(case.repeat, || arena.run(device, &plan, &pass))?;
    let row = times.row(name, device.operands(precision).name(), plan.flops(), plan.bytes(), images);
    let mut profile = Vec::new();
    if case.profile {
        let profiler = Profiler::default();
        arena.run_observed(device, &plan, Some(&profiler), &pass)?;
        profile = profiler.totals(Instant::now());
    }
    Ok(Measured { row, profile })
}

fn generate(case: &Case, model: &ModelDir, device: &Device, precision: Precision) -> Result<Measured> {
    let model = StableDiffusion::load(model, device, precision)?;
    let length = model.spec.text.max_positions;
    let settings = Settings {
        height: case.size.0,
        width: case.size.1,
        guidance: if case.guidance { 7.5 } else { 1.0 },
        negative: vec![0; length],
        rng: RngKind::Philox,
        savings: Savings::default(),
    };
    let scheduler = schedulers::create(SchedulerName::Auto, &model.spec.scheduler, case.steps)?;
    let evaluations = scheduler.timesteps().len() as u64;
    let mut sampler = Sampler::new(&model, scheduler, settings, case.batch)?;
    let ids: Vec<u32> = (0..length).map(|i| (i * 7919 % model.spec.text.vocab_size) as u32).collect();
    let samples: Vec<Sample<'_>> = (0..case.batch as u64).map(|seed| Sample { ids: &ids, seed, latents: None }).collect();
    let times = Times::measure(case.repeat, || sampler.generate(&samples, &mut |_, _| ControlFlow::Continue(())).map(drop))?;
    let cost = model.spec.cost(device, case.size, case.batch, case.guidance)?;
    let flops = evaluations * cost.unet_flops + case.batch as u64 * (cost.text_flops + cost.vae_flops);
    let name = format!("generate {}x{} batch {} steps {}", case.size.0, case.size.1, case.batch, case.steps);
    let row = times.row(name, device.operands(precision).name(), flops, cost.arena_bytes(), Some(case.batch));
    Ok(Measured { row, profile: Vec::new() })
}
