//! The denoising loop and the decoding after it, on each kind of device.
//!
//! On the CPU latents are slices, and every evaluation is a pass. On a GPU everything stays there: a step is one captured graph, replayed
//! with the weights and the time of the step copied to where it reads them.

mod cpu;
mod gpu;

use super::prepared::Prepared;
use super::sampler::{Generated, Progress, Sample};
use super::schedulers::{Plan, Scheduler};
use crate::Result;
use crate::device::{Arena, Device, Exec, Tensor};
use crate::ops::attention::KvRows;
use cpu::OnCpu;
use gpu::OnGpu;

/// The networks of a loop, as captured passes need them: everything but the latents stays where it is.
pub(super) trait Network: Sync {
    /// Latents `[B, h, w, C]` to a prediction `[B, h, w, C]`, or `[2 B, h, w, C]` for both halves of guidance.
    fn predict<'e>(&self, exec: &'e Exec<'_>, input: &Tensor<'_>) -> Result<Tensor<'e>>;

    /// Latents over the scaling factor `[1, h, w, C]` to an image `[1, H, W, 3]`.
    fn decode<'e>(&self, exec: &'e Exec<'_>, scaled: Tensor<'e>) -> Result<Tensor<'e>>;
}

/// The samples of a loop, and what it works with.
pub(super) struct Batch<'b, 'm> {
    pub prepared: &'b mut Prepared<'m>,
    pub scheduler: &'b mut dyn Scheduler,
    pub arena: &'b mut Arena,
    pub samples: &'b [Sample<'b>],
    /// For each sample of the (doubled) batch, its prompt.
    pub rows: &'b KvRows,
}

/// What holds the latents.
pub(super) enum Denoiser {
    Cpu(OnCpu),
    Gpu(Box<OnGpu>),
}

impl Denoiser {
    pub fn new(prepared: &Prepared<'_>, plan: &Plan, max_batch: usize) -> Result<Denoiser> {
        let (settings, device) = (&prepared.settings, &prepared.model.device);
        match device {
            Device::Cpu(_) => Ok(Denoiser::Cpu(OnCpu::default())),
            Device::Gpu(_) => {
                let (height, width, channels) = prepared.latent_shape();
                let sizes = gpu::Sizes {
                    max_batch,
                    latents: [height, width, channels],
                    image: [settings.height, settings.width, prepared.model.vae.config().image_channels],
                };
                let gpu = OnGpu::new(device, plan, sizes, settings.rng, prepared.guidance())?;
                Ok(Denoiser::Gpu(Box::new(gpu)))
            }
        }
    }

    /// The loop over the steps: final latents of all samples.
    pub fn run(&mut self, batch: Batch<'_, '_>, progress: &mut Progress<'_>) -> Result<()> {
        match self {
            Denoiser::Cpu(cpu) => cpu.run(batch, progress),
            Denoiser::Gpu(gpu) => gpu.run(batch, progress),
        }
    }

    /// Decodes sample `i`; one at a time, because the images between the layers are large.
    pub fn decode(&mut self, prepared: &Prepared<'_>, arena: &mut Arena, i: usize) -> Result<Generated> {
        match self {
            Denoiser::Cpu(cpu) => cpu.decode(prepared, arena, i),
            Denoiser::Gpu(gpu) => gpu.decode(i),
        }
    }
}
