//! The loop on a GPU: latents stay there from the seeds to the pixels, and every pass is captured once and replayed.

use super::{Batch, Network};
use crate::device::{Arena, Buffer, Device, Exec, Gpu, Graph, Plan, Tensor};
use crate::diffusion::layout::{to_channels_first, to_channels_last};
use crate::diffusion::sampler::{Generated, Progress, Sample};
use crate::diffusion::schedulers::{self, Blend, StepPlan};
use crate::ops::sampler::{
    Guidance, HISTORY, SAMPLE_WORDS, Start, State, StepWeights, all_finite, quantise, source, start, step, unscale,
};
use crate::rng::{RngKind, SampleNoise};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// Extents of what a loop keeps.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub max_batch: usize,
    /// Height, width, channels.
    pub latents: [usize; 3],
    /// Height, width, channels.
    pub image: [usize; 3],
}

impl Sizes {
    /// Elements of the latents of a sample.
    fn len(&self) -> usize {
        self.latents.iter().product()
    }

    /// Latents of `batch` samples.
    fn batch(&self, batch: usize) -> Shape {
        let [height, width, channels] = self.latents;
        Shape::from([batch, height, width, channels])
    }
}

/// Memory of a loop, for batches of up to the largest.
struct Buffers {
    latents: Buffer,
    base: Buffer,
    history: Buffer,
    input: Buffer,
    samples: Buffer,
    /// Noise of the step, where the host draws it.
    drawn: Option<Buffer>,
    /// Weights of all steps, and of the one under way.
    table: Buffer,
    weights: Buffer,
    /// Latents of the sample that is decoded, `[1, h, w, C]`, its pixels, and whether one is not finite.
    chosen: Buffer,
    pixels: Buffer,
    flags: Buffer,
}

/// The passes of one batch size.
struct Graphs {
    batch: usize,
    start: Graph,
    step: Graph,
}

pub struct OnGpu {
    gpu: Gpu,
    sizes: Sizes,
    rng: RngKind,
    start: Start,
    guidance: Guidance,
    /// Steps that draw noise.
    stochastic: Vec<bool>,
    buffers: Buffers,
    graphs: Vec<Graphs>,
    decoding: Option<Graph>,
    /// Latents of one sample on their way, `[C, h, w]` and `[h, w, C]`.
    planes: Vec<f32>,
    last: Vec<f32>,
}

/// A row of the table.
fn weights(plan: &schedulers::Plan, i: usize) -> StepWeights {
    let StepPlan { keep, base, update, noise } = plan.steps[i];
    let blend = |b: Blend| [b.sample, b.output, b.base, b.history[0], b.history[1], b.history[2], b.history[3]];
    StepWeights {
        keep_slot: keep.map_or(HISTORY, |keep| keep.slot) as u32,
        keep_sample: keep.map_or(0.0, |keep| keep.sample),
        keep_output: keep.map_or(0.0, |keep| keep.output),
        keep_previous: keep.map_or(0.0, |keep| keep.previous),
        set_base: base.is_some().into(),
        base: base.map_or([0.0; 3 + HISTORY], blend),
        update: blend(update),
        noise,
        // The initial latents are draw 0.
        stream: 1 + i as u32,
        // After the last step no network reads what this makes.
        input_scale: plan.input_scale.get(i + 1).copied().unwrap_or(0.0),
    }
}

impl Buffers {
    fn new(device: &Device, plan: &schedulers::Plan, sizes: Sizes, rng: RngKind) -> Result<Buffers> {
        let (all, len, steps) = (sizes.batch(sizes.max_batch), sizes.len(), plan.steps.len());
        let f32s = |shape: Shape| Buffer::try_zeros(device, shape, DType::F32);
        let rows: Vec<StepWeights> = (0..steps).map(|i| weights(plan, i)).collect();
        let stochastic = plan.steps.iter().any(|step| step.noise != 0.0);
        Ok(Buffers {
            latents: f32s(all)?,
            base: f32s(all)?,
            history: f32s(Shape::from([HISTORY * sizes.max_batch, len]))?,
            input: Buffer::try_zeros(device, all, device.storage())?,
            samples: Buffer::try_zeros(device, [sizes.max_batch, SAMPLE_WORDS], DType::U32)?,
            drawn: if stochastic && rng != RngKind::Philox { Some(f32s(all)?) } else { None },
            table: Buffer::from_u32(device, [steps, StepWeights::WORDS], bytemuck::cast_slice(&rows))?,
            weights: Buffer::try_zeros(device, [StepWeights::WORDS], DType::U32)?,
            chosen: f32s(sizes.batch(1))?,
            pixels: Buffer::try_zeros(device, sizes.image, DType::U8)?,
            flags: Buffer::try_zeros(device, [1], DType::U32)?,
        })
    }

    /// The state of a batch in a pass.
    fn state<'e>(&'e mut self, exec: &'e Exec<'_>, batch: Shape) -> (State<'e>, Tensor<'e>, Option<Tensor<'e>>) {
        let &[count, height, width, channels] = batch.dims() else { unreachable!("latents are [B, h, w, C]") };
        let state = State {
            latents: exec.view_part_mut(&mut self.latents, 0, batch),
            base: exec.view_part_mut(&mut self.base, 0, batch),
            history: exec.view_part_mut(&mut self.history, 0, [HISTORY * count, height, width, channels]),
            input: exec.view_part_mut(&mut self.input, 0, batch),
            samples: exec.view_part(&self.samples, 0, [count, SAMPLE_WORDS]),
        };
        (state, exec.view(&self.weights), self.drawn.as_ref().map(|drawn| exec.view_part(drawn, 0, batch)))
    }

    /// The step that `weights` says.
    fn step(&mut self, exec: &Exec<'_>, batch: Shape, guidance: Guidance, network: &impl Network) -> Result<()> {
        let prediction = network.predict(exec, &exec.view_part(&self.input, 0, batch))?;
        let (mut state, weights, drawn) = self.state(exec, batch);
        step(exec, &mut state, &prediction, guidance, &weights, drawn.as_ref())
    }

    /// `chosen` to `pixels` and `flags`.
    fn decode(&mut self, exec: &Exec<'_>, factor: f32, network: &impl Network) -> Result<()> {
        let scaled = unscale(exec, &exec.view(&self.chosen), factor)?;
        let image = network.decode(exec, scaled)?;
        let (pixels, flags) = (self.pixels.shape(), self.flags.shape());
        let mut pixels = exec.view_part_mut(&mut self.pixels, 0, pixels);
        quantise(exec, &image, &mut pixels, &mut exec.view_part_mut(&mut self.flags, 0, flags))
    }
}

impl OnGpu {
    pub fn new(device: &Device, plan: &schedulers::Plan, sizes: Sizes, rng: RngKind, guidance: Guidance) -> Result<OnGpu> {
        let Device::Gpu(gpu) = device else { return Err(Error::Internal { op: "denoise", message: "not on a GPU".into() }) };
        Ok(OnGpu {
            gpu: gpu.clone(),
            sizes,
            rng,
            start: Start { sigma: plan.init_noise_sigma, input_scale: plan.input_scale.first().copied().unwrap_or(1.0) },
            guidance,
            stochastic: plan.steps.iter().map(|step| step.noise != 0.0).collect(),
            buffers: Buffers::new(device, plan, sizes, rng)?,
            graphs: Vec::new(),
            decoding: None,
            planes: vec![0.0; sizes.len()],
            last: vec![0.0; sizes.len()],
        })
    }

    pub fn run(&mut self, batch: Batch<'_, '_>, progress: &mut Progress<'_>) -> Result<()> {
        let Batch { prepared, scheduler, arena, samples, rows } = batch;
        let (device, count, steps) = (&prepared.model.device, samples.len(), scheduler.timesteps().len());
        self.capture(device, arena, count, prepared.model.vae.config().scaling_factor, &prepared.evaluation(0, count, rows))?;
        let mut noise = self.begin(samples)?;
        for step in 0..steps {
            // So that all steps before the one that is told of are done, and a break leaves none in the queue. The GPU waits for one
            // launch a step: microseconds of milliseconds.
            self.gpu.synchronize()?;
            if progress(step, steps).is_break() {
                return Err(Error::Interrupted);
            }
            prepared.before_step(arena, samples, step, scheduler.timesteps()[step])?;
            self.step(count, step, &mut noise)?;
        }
        Ok(())
    }

    /// Captures the passes of a batch size, unless that was done before.
    fn capture(&mut self, device: &Device, arena: &mut Arena, count: usize, factor: f32, network: &impl Network) -> Result<()> {
        if self.graphs.iter().any(|graphs| graphs.batch == count) {
            return Ok(());
        }
        let (batch, first, guidance, buffers) = (self.sizes.batch(count), self.start, self.guidance, &mut self.buffers);
        let step_plan = Plan::record(device, |exec| buffers.step(exec, batch, guidance, network))?;
        let decode_plan = Plan::record(device, |exec| buffers.decode(exec, factor, network))?;
        // The memory of all: an arena that grew later would leave the first passes with one of their own.
        arena.reserve(device, &step_plan)?;
        arena.reserve(device, &decode_plan)?;
        let mut begin = |exec: &Exec<'_>| start(exec, &mut buffers.state(exec, batch).0, first);
        let plan = Plan::record(device, &mut begin)?;
        let start = arena.capture(device, &plan, &mut begin)?;
        let step = arena.capture(device, &step_plan, |exec| buffers.step(exec, batch, guidance, network))?;
        if self.decoding.is_none() {
            self.decoding = Some(arena.capture(device, &decode_plan, |exec| buffers.decode(exec, factor, network))?);
        }
        self.graphs.push(Graphs { batch: count, start, step });
        Ok(())
    }

    fn graphs(&self, count: usize) -> Result<&Graphs> {
        let missing = || Error::Internal { op: "denoise", message: format!("no pass was captured for {count} samples") };
        self.graphs.iter().find(|graphs| graphs.batch == count).ok_or_else(missing)
    }

    /// Initial latents of all samples, and the first input; the noise of those that the host draws.
    fn begin(&mut self, samples: &[Sample<'_>]) -> Result<Vec<SampleNoise>> {
        let (len, channels, on_host) = (self.sizes.len(), self.sizes.latents[2], self.rng != RngKind::Philox);
        let mut noise: Vec<SampleNoise> = samples.iter().map(|s| SampleNoise::new(self.rng, s.seed)).collect();
        let mut rows = Vec::with_capacity(samples.len() * SAMPLE_WORDS);
        for (i, (sample, noise)) in samples.iter().zip(&mut noise).enumerate() {
            match sample.latents {
                Some(given) => self.planes.copy_from_slice(given),
                None if on_host => noise.fill_normal(0, &mut self.planes),
                None => {}
            }
            let is_given = sample.latents.is_some() || on_host;
            rows.extend(source(sample.seed, is_given));
            if is_given {
                self.planes.iter_mut().for_each(|x| *x *= self.start.sigma);
                to_channels_last(&self.planes, channels, &mut self.last);
                self.buffers.latents.write_f32(i * len, &self.last)?;
            }
        }
        self.buffers.samples.write_u32(&rows)?;
        self.graphs(samples.len())?.start.replay()?;
        Ok(noise)
    }

    /// Puts step `i` into the queue.
    fn step(&mut self, count: usize, i: usize, noise: &mut [SampleNoise]) -> Result<()> {
        let (len, channels, words) = (self.sizes.len(), self.sizes.latents[2], StepWeights::WORDS);
        let Buffers { drawn, weights, table, .. } = &mut self.buffers;
        weights.copy_part(0, table, i * words, words)?;
        if let Some(drawn) = drawn.as_mut().filter(|_| self.stochastic[i]) {
            for (sample, noise) in noise.iter_mut().enumerate() {
                noise.fill_normal(1 + i as u32, &mut self.planes);
                to_channels_last(&self.planes, channels, &mut self.last);
                drawn.write_f32(sample * len, &self.last)?;
            }
        }
        self.graphs(count)?.step.replay()
    }

    pub fn decode(&mut self, i: usize) -> Result<Generated> {
        let (len, [.., channels]) = (self.sizes.len(), self.sizes.latents);
        let missing = || Error::Internal { op: "denoise", message: "no decoding was captured".into() };
        let Buffers { chosen, latents, pixels, flags, .. } = &mut self.buffers;
        chosen.copy_part(0, latents, i * len, len)?;
        self.decoding.as_ref().ok_or_else(missing)?.replay()?;
        let (mut bytes, mut found, mut planes) = (vec![0; pixels.shape().len()], [0], vec![0.0; len]);
        pixels.read_u8(&mut bytes)?;
        flags.read_u32(&mut found)?;
        chosen.read_f32(0, &mut self.last)?;
        to_channels_first(&self.last, channels, &mut planes);
        Ok(Generated { pixels: bytes, finite: found == [0] && all_finite(&planes), latents: planes })
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
