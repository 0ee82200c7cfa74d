//! The stages of making images on a GPU, as a run has them: `syntic bench stages`.
//!
//! What is timed is [`Sampler::generate`], the same call with the same captured graphs that `syntic generate` makes: prompts are encoded, a
//! step is one replay, each image is decoded and its pixels come to the host. The clock is read where the loop tells of its progress, after
//! everything asked for so far was done, so that a stage has its own time and nothing else is in it. Encoding of files and writing overlap
//! with all this in a run, and are not in it.

use super::kernels::SIMULATED;
use super::{Ceilings, Repeat, Table, Times};
use crate::device::{Device, Gpu, Precision};
use crate::diffusion::sampler::{Sample, Sampler, Savings, Settings};
use crate::diffusion::schedulers::{self, SchedulerName};
use crate::diffusion::{Cost, ModelSpec, StableDiffusion};
use crate::generate::{Batch, images_at_once};
use crate::rng::RngKind;
use crate::weights::ModelDir;
use crate::{Error, Result, VERSION};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Stages {
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// Images at once, one after the other; a number that comes twice is measured once.
    pub batches: Vec<Batch>,
    /// Scale of guidance; at most 1 turns it off.
    pub guidance: f32,
    /// Denoising steps, by the model's own sampler.
    pub steps: usize,
    /// Batches of each size that are made.
    pub repeat: Repeat,
    /// Measure what the card can do as well; a profiler would count it.
    pub ceilings: bool,
}

/// One stage at one batch.
#[derive(Clone, Debug, Serialize)]
pub struct StageRow {
    /// "text": the prompts of the batch, and its first noise. "step": one evaluation with guidance and the sampler's update. "decode": one
    /// image, its pixels on the host. "batch": all of it.
    pub stage: &'static str,
    /// Images at once.
    pub batch: usize,
    /// Why so many.
    pub because: String,
    /// Storage type.
    pub dtype: &'static str,
    /// Times that it was timed.
    pub runs: usize,
    /// Median time, seconds.
    pub median_s: f64,
    /// 10th percentile, seconds.
    pub low_s: f64,
    /// 90th percentile, seconds.
    pub high_s: f64,
    /// Operations, GFLOP, two for each multiply-add.
    pub gflop: f64,
    /// TFLOP/s at the median.
    pub tflops: f64,
    /// These over the product's ceiling in this run, if that was measured.
    pub share: Option<f64>,
    /// Images a second at the median, of a whole batch.
    pub images_per_s: Option<f64>,
    /// Images that came out finite, of all that were made at this batch: random weights, and times of numbers that are none, mean less.
    pub finite: String,
}

/// Everything that one `syntic bench stages` measured.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Version of syntic.
    pub version: &'static str,
    /// The GPU.
    pub device: String,
    /// What to know of the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Model folder or id.
    pub model: String,
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// Denoising steps that were asked for.
    pub steps: usize,
    /// Evaluations of the network for each image.
    pub evaluations: usize,
    /// Scale of guidance.
    pub guidance: f32,
    /// Measured in this run, after the stages; none if they were not asked for.
    pub ceilings: Option<Ceilings>,
    /// Why the next start packs the weights again, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unkept: Option<String>,
    /// The stages.
    pub results: Vec<StageRow>,
}

impl Table for StageReport {
    fn title(&self) -> String {
        let (height, width) = self.size;
        let ceilings = self.ceilings.as_ref().map_or(String::new(), |Ceilings { matmul_tflops, copy_gbs }| {
            format!("; in this run: product {matmul_tflops:.1} TFLOP/s, copy {copy_gbs:.0} GB/s")
        });
        format!(
            "syntic {}, {}{}, model {}, {height}x{width}, {} steps ({} evaluations), guidance {}{ceilings}",
            self.version,
            self.device,
            self.note.map_or(String::new(), |note| format!(", {note}")),
            self.model,
            self.steps,
            self.evaluations,
            self.guidance
        )
    }

    fn columns(&self) -> Vec<&'static str> {
        vec![
            "stage",
            "batch",
            "dtype",
            "runs",
            "median ms",
            "low ms",
            "high ms",
            "GFLOP",
            "TFLOP/s",
            "share",
            "images/s",
            "finite",
        ]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let cells = |row: &StageRow| {
            let mut cells = vec![row.stage.to_string(), row.batch.to_string(), row.dtype.to_string(), row.runs.to_string()];
            cells.extend([row.median_s, row.low_s, row.high_s].map(|seconds| format!("{:.3}", seconds * 1e3)));
            cells.extend([format!("{:.1}", row.gflop), format!("{:.2}", row.tflops)]);
            cells.push(row.share.map_or(String::new(), |share| format!("{share:.3}")));
            cells.push(row.images_per_s.map_or(String::new(), |rate| format!("{rate:.3}")));
            cells.push(row.finite.clone());
            cells
        };
        self.results.iter().map(cells).collect()
    }
}

/// Times of one batch size, and how many of its images came out finite.
#[derive(Default)]
struct Laps {
    text: Vec<f64>,
    steps: Vec<f64>,
    decode: Vec<f64>,
    batch: Vec<f64>,
    finite: usize,
    images: usize,
}

impl Stages {
    /// Measures them on a GPU. On the simulator all is done that is done on a card, and the report says that its times mean nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] on a CPU, and for sizes and batches that cannot be made; those of loading the model and of the GPU.
    pub fn measure(&self, name: &str, device: &Device, precision: Precision) -> Result<StageReport> {
        let Device::Gpu(gpu) = device else {
            return Err(Error::usage(
                "stages are measured on a GPU, where a step is a captured graph",
                "use --device cuda, or sim to try it without a GPU; `syntic bench unet`, `vae`, `text` and `generate` measure a CPU",
            ));
        };
        let model = ModelDir::open(name)?;
        let spec = ModelSpec::read(&model)?;
        spec.check_size(self.size.0, self.size.1)?;
        let evaluations = schedulers::create(SchedulerName::Auto, &spec.scheduler, self.steps)?.timesteps().len();
        let batches = self.chosen(&spec, device, precision, evaluations)?;
        let model = StableDiffusion::load(&model, device, precision)?;
        let measured = batches.iter().map(|(batch, _)| self.laps(&model, gpu, *batch)).collect::<Result<Vec<Laps>>>()?;
        let ceilings = self.ceilings.then(|| Ceilings::measure(device, gpu)).transpose()?;
        let mut results = Vec::new();
        for ((batch, because), laps) in batches.into_iter().zip(measured) {
            let cost = spec.cost(device, self.size, batch, self.guidance > 1.0)?;
            results.extend(rows(laps, batch, &because, evaluations, &cost, ceilings.as_ref(), device));
        }
        Ok(StageReport {
            version: VERSION,
            device: device.describe(),
            note: gpu.is_simulated().then_some(SIMULATED),
            model: name.into(),
            size: self.size,
            steps: self.steps,
            evaluations,
            guidance: self.guidance,
            ceilings,
            unkept: model.unkept,
            results,
        })
    }

    /// Numbers of images, each once, and why; chosen before weights take memory, as a run does.
    fn chosen(
        &self,
        spec: &ModelSpec,
        device: &Device,
        precision: Precision,
        evaluations: usize,
    ) -> Result<Vec<(usize, String)>> {
        let mut chosen: Vec<(usize, String)> = Vec::new();
        for &asked in &self.batches {
            let (batch, because) = images_at_once(asked, spec, device, precision, self.size, self.guidance > 1.0, evaluations)?;
            match chosen.iter_mut().find(|(known, _)| *known == batch) {
                Some((_, reasons)) => *reasons = format!("{reasons}; {because}"),
                None => chosen.push((batch, because)),
            }
        }
        Ok(chosen)
    }

    fn laps(&self, model: &StableDiffusion, gpu: &Gpu, batch: usize) -> Result<Laps> {
        let length = model.spec.text.max_positions;
        let settings = Settings {
            height: self.size.0,
            width: self.size.1,
            guidance: self.guidance,
            negative: vec![0; length],
            rng: RngKind::Philox,
            savings: Savings::default(),
        };
        let scheduler = schedulers::create(SchedulerName::Auto, &model.spec.scheduler, self.steps)?;
        let mut sampler = Sampler::new(model, scheduler, settings, batch)?;
        // A prompt of its own for each image.
        let ids: Vec<u32> = (0..batch * length).map(|i| (i * 7919 % model.spec.text.vocab_size) as u32).collect();
        let samples: Vec<Sample<'_>> =
            ids.chunks(length).zip(0..).map(|(ids, seed)| Sample { ids, seed, latents: None }).collect();
        let mut laps = Laps::default();
        for _ in 0..self.repeat.warmup {
            // The first makes the graphs.
            timed(&mut sampler, &samples, gpu, &mut Laps::default())?;
        }
        for _ in 0..self.repeat.reps.max(1) {
            timed(&mut sampler, &samples, gpu, &mut laps)?;
        }
        Ok(laps)
    }
}

/// Makes one batch.
fn timed(sampler: &mut Sampler<'_>, samples: &[Sample<'_>], gpu: &Gpu, laps: &mut Laps) -> Result<()> {
    let (evaluations, mut marks, mut fault) = (sampler.evaluations(), Vec::new(), None);
    gpu.synchronize()?;
    marks.push(Instant::now());
    let made = sampler.generate(samples, &mut |_, _| match gpu.synchronize() {
        Ok(()) => {
            marks.push(Instant::now());
            ControlFlow::Continue(())
        }
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    });
    let end = Instant::now();
    if let Some(fault) = fault {
        return Err(fault);
    }
    let made = made?;
    marks.push(end);
    // Told of: each evaluation, then each decoding.
    if marks.len() != 2 + evaluations + samples.len() {
        let message = format!("{} marks of {evaluations} evaluations and {} images", marks.len(), samples.len());
        return Err(Error::Internal { op: "bench stages", message });
    }
    let spans: Vec<f64> = marks.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    laps.text.push(spans[0]);
    laps.steps.extend(&spans[1..1 + evaluations]);
    laps.decode.extend(&spans[1 + evaluations..]);
    laps.batch.push(spans.iter().sum());
    laps.finite += made.iter().filter(|image| image.finite).count();
    laps.images += made.len();
    Ok(())
}

fn rows(
    laps: Laps,
    batch: usize,
    because: &str,
    evaluations: usize,
    cost: &Cost,
    ceilings: Option<&Ceilings>,
    device: &Device,
) -> Vec<StageRow> {
    let images = batch as u64;
    let (text, step, decode) = (images * cost.text_flops, cost.unet_flops, cost.vae_flops);
    let whole = text + evaluations as u64 * step + images * decode;
    let finite = format!("{} of {}", laps.finite, laps.images);
    let stages =
        [("text", laps.text, text), ("step", laps.steps, step), ("decode", laps.decode, decode), ("batch", laps.batch, whole)];
    let row = |(stage, seconds, flops): (&'static str, Vec<f64>, u64)| {
        let times = Times::from_seconds(seconds);
        let median = times.median();
        StageRow {
            stage,
            batch,
            because: because.into(),
            dtype: device.storage().name(),
            runs: times.len(),
            median_s: median,
            low_s: times.low(),
            high_s: times.high(),
            gflop: flops as f64 / 1e9,
            tflops: flops as f64 / median / 1e12,
            share: ceilings.map(|ceilings| ceilings.share(flops, 0, median)),
            images_per_s: (stage == "batch").then(|| batch as f64 / median),
            finite: finite.clone(),
        }
    };
    stages.into_iter().map(row).collect()
}
