//! What a sampler does between evaluations of its networks: initial noise, steps, latents for the decoder, pixels.
//!
//! On a GPU all of it happens there, in launches that can be captured: what differs from step to step lies in memory, not in their
//! parameters. On the CPU, latents are slices: [`crate::rng`] and [`crate::diffusion::schedulers`] work on them. Both give the same bits for
//! the same predictions.

pub(crate) mod gpu;
mod pixels;
#[cfg(test)]
mod tests;

pub use pixels::{all_finite, to_pixels};

pub(crate) use gpu::{HISTORY, SAMPLE_WORDS, StepWeights};

use crate::device::{Cost, Device, Exec, Gpu, Tensor};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// What a run keeps on a GPU from launch to launch: B samples, channels-last.
pub(crate) struct State<'e> {
    /// `[B, h, w, C]` f32.
    pub latents: Tensor<'e>,
    /// What the scheduler's [`StepPlan`](crate::diffusion::schedulers::StepPlan) calls base, `[B, h, w, C]` f32.
    pub base: Tensor<'e>,
    /// Its history, `[4 B, h, w, C]` f32.
    pub history: Tensor<'e>,
    /// What the network reads next, `[B, h, w, C]` in the storage type.
    pub input: Tensor<'e>,
    /// Where each sample's noise comes from, `[B, 4]` u32: see [`source`].
    pub samples: Tensor<'e>,
}

/// The row of [`State::samples`] for a seed; `given` if the initial latents are there already, and none are drawn.
pub(crate) fn source(seed: u64, given: bool) -> [u32; SAMPLE_WORDS] {
    [seed as u32, (seed >> 32) as u32, given.into(), 0]
}

/// The factors of a run's first values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Initial latents are unit noise times this.
    pub sigma: f32,
    /// The first input of the network is the latents times this.
    pub input_scale: f32,
}

/// How the predictions of both halves become one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guidance {
    /// There is one half.
    None,
    /// `u + scale (c - u)`.
    Scale(f32),
}

impl State<'_> {
    fn shape(&self) -> Shape {
        self.latents.shape()
    }

    /// The extents fit each other.
    fn check(&self, op: &'static str) -> Result<()> {
        let count = self.shape().len();
        let fits = self.shape().dims().len() == 4
            && [&self.base, &self.input].iter().all(|tensor| tensor.shape() == self.shape())
            && self.history.shape().len() == HISTORY * count
            && self.samples.dims() == [self.shape().dims()[0], SAMPLE_WORDS];
        if fits && count > 0 {
            return Ok(());
        }
        let message = format!(
            "latents {:?}, base {:?}, history {:?}, input {:?}, samples {:?}",
            self.latents, self.base, self.history, self.input, self.samples
        );
        Err(Error::shape(op, message))
    }
}

/// The GPU, for what a CPU does on slices.
fn gpu_of<'e>(exec: &'e Exec<'_>, op: &'static str) -> Result<&'e Gpu> {
    match exec.device() {
        Device::Gpu(gpu) => Ok(gpu),
        Device::Cpu(_) => Err(Error::Internal { op, message: "on a CPU, samplers work on slices".into() }),
    }
}

/// Begins a run: latents are drawn where none are given, base and history are zero, and the first input is made.
///
/// # Errors
/// [`Error::Shape`] if the extents of the state do not fit each other.
pub(crate) fn start(exec: &Exec<'_>, state: &mut State<'_>, start: Start) -> Result<()> {
    const OP: &str = "start";
    let gpu = gpu_of(exec, OP)?;
    state.check(OP)?;
    let count = state.shape().len();
    let bytes = count * (2 * size_of::<f32>() + HISTORY * size_of::<f32>() + exec.storage().size());
    exec.begin(Cost { op: OP, shape: state.shape(), flops: 2 * count as u64, bytes: bytes as u64 });
    state.base.fill_bytes(0)?;
    state.history.fill_bytes(0)?;
    gpu::start(exec, gpu, state, start)
}

/// One step of a scheduler, as `weights` (one [`StepWeights`] as u32) says: latents, base and history after it, and the next input.
/// prediction `[B, h, w, C]`, or `[2 B, h, w, C]` with guidance, unconditional half first. Noise is `drawn`, `[B, h, w, C]` f32, or drawn
/// here.
///
/// # Errors
/// [`Error::Shape`] if the extents do not fit each other.
pub(crate) fn step(
    exec: &Exec<'_>,
    state: &mut State<'_>,
    prediction: &Tensor<'_>,
    guidance: Guidance,
    weights: &Tensor<'_>,
    drawn: Option<&Tensor<'_>>,
) -> Result<()> {
    const OP: &str = "step";
    let gpu = gpu_of(exec, OP)?;
    state.check(OP)?;
    let (count, dims) = (state.shape().len(), prediction.dims());
    let halves = if matches!(guidance, Guidance::None) { 1 } else { 2 };
    let fits = dims[0] == halves * state.shape().dims()[0] && dims[1..] == state.shape().dims()[1..];
    if !fits || weights.shape().len() != StepWeights::WORDS || drawn.is_some_and(|drawn| drawn.shape() != state.shape()) {
        let message =
            format!("prediction {prediction:?} ({guidance:?}), weights {weights:?}, noise {drawn:?}, {:?}", state.latents);
        return Err(Error::shape(OP, message));
    }
    let values = count * (4 + HISTORY + usize::from(drawn.is_some()));
    let bytes = values * size_of::<f32>() + count * (1 + halves) * exec.storage().size();
    exec.begin(Cost { op: OP, shape: state.shape(), flops: 40 * count as u64, bytes: bytes as u64 });
    gpu::step(exec, gpu, state, prediction, guidance, weights, drawn)
}

/// What the decoder reads: latents (f32) over the autoencoder's scaling factor, in the storage type.
pub(crate) fn unscale<'e>(exec: &'e Exec<'_>, latents: &Tensor<'_>, factor: f32) -> Result<Tensor<'e>> {
    const OP: &str = "unscale";
    let gpu = gpu_of(exec, OP)?;
    let mut out = exec.alloc(latents.shape(), exec.storage())?;
    let bytes = latents.bytes() + out.bytes();
    exec.begin(Cost { op: OP, shape: out.shape(), flops: out.shape().len() as u64, bytes: bytes as u64 });
    gpu::unscale(exec, gpu, latents, factor, &mut out)?;
    Ok(out)
}

/// Pixels of the image x as [`to_pixels`] makes them, on a GPU: bytes, and one u32 that is not zero if a value is infinite or NaN.
///
/// # Errors
/// [`Error::Shape`] if `bytes` has another length than x.
pub(crate) fn quantise(exec: &Exec<'_>, x: &Tensor<'_>, bytes: &mut Tensor<'_>, flags: &mut Tensor<'_>) -> Result<()> {
    let gpu = gpu_of(exec, pixels::OP)?;
    if bytes.shape().len() != x.shape().len() || flags.shape().len() != 1 || bytes.dtype() != DType::U8 {
        return Err(Error::shape(pixels::OP, format!("{x:?} into {bytes:?}, flags {flags:?}")));
    }
    exec.begin(pixels::cost(x));
    flags.fill_bytes(0)?;
    gpu::pixels(exec, gpu, x, bytes, flags)
}
