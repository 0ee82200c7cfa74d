//! What a sampler does between evaluations, on a GPU: `kernels/sampler/`.

use super::{Guidance, Start, State};
use crate::Result;
use crate::device::{Entries, Exec, Gpu, Launch, MOST, Tensor, entries, params};
use crate::ops::elementwise::gpu::map;
use crate::tensor::DType;

const START: Entries = entries!("start_forward");
const STEP: Entries = entries!("step_forward");
const UNSCALE: Entries = entries!("unscale_forward");
const PIXELS: Entries = entries!("pixels_forward");

/// Threads of a block of the kernels on latents (`LATENT_THREADS`).
const THREADS: u32 = 256;

/// Most samples: they are the grid's y.
const MOST_SAMPLES: u32 = 65_535;

/// Latents that a step can keep.
pub(crate) const HISTORY: usize = 4;

/// Words of a row of [`State::samples`] (`SampleSource`).
pub(crate) const SAMPLE_WORDS: usize = 4;

params! {
    pub(crate) struct StartParams {
        positions: u32,
        channels: u32,
        sigma: f32,
        input_scale: f32,
    }
}

params! {
    pub(crate) struct StepParams {
        positions: u32,
        channels: u32,
        guided: u32,
        guidance: f32,
    }
}

params! {
    /// The weights of a step, which lie in memory. Those of a sum: of sample, output and base, then of the history.
    #[derive(Default)]
    pub(crate) struct StepWeights {
        /// The slot of the history that is written; [`HISTORY`] for none.
        pub keep_slot: u32,
        pub keep_sample: f32,
        pub keep_output: f32,
        pub keep_previous: f32,
        /// Not zero if the step sets a new base.
        pub set_base: u32,
        pub base: [f32; 3 + HISTORY],
        pub update: [f32; 3 + HISTORY],
        /// Zero draws none.
        pub noise: f32,
        /// The stream that it is drawn from.
        pub stream: u32,
        /// Factor of the latents after the step, for the next input.
        pub input_scale: f32,
    }
}

impl StepWeights {
    /// Length as u32.
    pub(crate) const WORDS: usize = size_of::<StepWeights>() / size_of::<u32>();
}

params! {
    pub(crate) struct UnscaleParams {
        count: u32,
        factor: f32,
    }
}

params! {
    pub(crate) struct PixelsParams {
        count: u64,
    }
}

/// Positions, channels, and blocks of a launch over latents `[B, h, w, C]`.
fn latents(entries: &Entries, x: &Tensor<'_>) -> Result<(u32, u32, [u32; 3])> {
    let &[samples, height, width, channels] = x.dims() else { return Ok((0, 0, [0; 3])) };
    let length = entries.size("latents of a sample", height * width * channels, MOST)?;
    let samples = entries.size("samples", samples, MOST_SAMPLES)?;
    Ok(((height * width) as u32, channels as u32, [length.div_ceil(THREADS), samples, 1]))
}

/// See [`super::start`].
pub(super) fn start(exec: &Exec<'_>, gpu: &Gpu, state: &mut State<'_>, start: Start) -> Result<()> {
    let (positions, channels, grid) = latents(&START, &state.latents)?;
    let params = StartParams { positions, channels, sigma: start.sigma, input_scale: start.input_scale };
    let launch = Launch::new(&START, gpu.storage(), grid, [THREADS, 1, 1])?;
    let launch = launch.output_of(DType::F32, &mut state.latents).output(&mut state.input);
    exec.enqueue(launch.input_of(DType::U32, &state.samples).params(&params))
}

/// See [`super::step`].
pub(super) fn step(
    exec: &Exec<'_>,
    gpu: &Gpu,
    state: &mut State<'_>,
    prediction: &Tensor<'_>,
    guidance: Guidance,
    weights: &Tensor<'_>,
    drawn: Option<&Tensor<'_>>,
) -> Result<()> {
    let (positions, channels, grid) = latents(&STEP, &state.latents)?;
    let (guided, guidance) = match guidance {
        Guidance::None => (0, 0.0),
        Guidance::Scale(scale) => (1, scale),
    };
    let params = StepParams { positions, channels, guided, guidance };
    let launch = Launch::new(&STEP, gpu.storage(), grid, [THREADS, 1, 1])?;
    let launch = launch.output_of(DType::F32, &mut state.latents).output_of(DType::F32, &mut state.base);
    let launch = launch.output_of(DType::F32, &mut state.history).output(&mut state.input).input(prediction);
    let launch = launch.input_of(DType::U32, weights).input_of(DType::U32, &state.samples);
    exec.enqueue(launch.optional_of(DType::F32, drawn).params(&params))
}

/// out = latents / factor
pub(super) fn unscale(exec: &Exec<'_>, gpu: &Gpu, latents: &Tensor<'_>, factor: f32, out: &mut Tensor<'_>) -> Result<()> {
    let params = UnscaleParams { count: UNSCALE.size("latents of a sample", latents.shape().len(), MOST)?, factor };
    let launch = Launch::new(&UNSCALE, gpu.storage(), [params.count.div_ceil(THREADS), 1, 1], [THREADS, 1, 1])?;
    exec.enqueue(launch.output(out).input_of(DType::F32, latents).params(&params))
}

/// See [`super::quantise`].
pub(super) fn pixels(exec: &Exec<'_>, gpu: &Gpu, x: &Tensor<'_>, bytes: &mut Tensor<'_>, flags: &mut Tensor<'_>) -> Result<()> {
    let count = x.shape().len();
    let launch = map(gpu, &PIXELS, count, x)?.output_of(DType::U8, bytes).output_of(DType::U32, flags).input(x);
    exec.enqueue(launch.params(&PixelsParams { count: count as u64 }))
}
