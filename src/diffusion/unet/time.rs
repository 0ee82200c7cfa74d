//! The time embedding, and its projections in all ResNet blocks, for all steps of a run at once.

use super::UnetConfig;
use crate::Result;
use crate::device::{Buffer, Device, Exec, Precision, Tensor};
use crate::network::{Build, Parts};
use crate::ops::elementwise::{silu, timestep_embedding};
use crate::ops::gemm::{Activation, Linear, linear};

/// Where a ResNet block finds its time bias: `width` channels from `start` of a row of [`TimeState`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeSlot {
    start: usize,
    width: usize,
}

/// What every ResNet block adds at every step: `[steps, all blocks' channels]`.
#[derive(Debug)]
pub struct TimeState {
    biases: Buffer,
}

impl TimeState {
    /// Room for `steps` steps of a network whose blocks have `width` channels in all.
    pub(super) fn zeros(device: &Device, steps: usize, width: usize) -> Result<TimeState> {
        Ok(TimeState { biases: Buffer::try_zeros(device, [steps, width], device.storage())? })
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.biases.bytes()
    }

    pub(super) fn biases_mut(&mut self) -> &mut Buffer {
        &mut self.biases
    }

    /// Makes row 0 that of another state at `step`, on a GPU.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the GPU refuses.
    pub fn copy_step(&mut self, from: &TimeState, step: usize) -> Result<()> {
        let width = self.biases.shape().last();
        self.biases.copy_part(0, &from.biases, step * width, width)
    }

    /// The bias of one block at one step, `[O]`.
    pub(super) fn bias<'e>(&'e self, exec: &'e Exec<'_>, step: usize, slot: TimeSlot) -> Tensor<'e> {
        exec.view_part(&self.biases, step * self.biases.shape().last() + slot.start, [slot.width])
    }
}

/// The projections of the ResNet blocks, gathered while the network is built, to become one product.
#[derive(Default)]
pub(super) struct TimeProjections<'a> {
    parts: Vec<Parts<'a>>,
    width: usize,
}

impl<'a> TimeProjections<'a> {
    /// Adds the projection of the block at `block`.
    pub fn add(&mut self, block: &Build<'_, 'a>, time_width: usize, width: usize) -> TimeSlot {
        self.parts.push(block.matrix("time_emb_proj", time_width, width, true));
        let slot = TimeSlot { start: self.width, width };
        self.width += width;
        slot
    }
}

/// Timesteps to the biases of all blocks. Always in f32: an error here reaches every block.
#[derive(Debug)]
pub(super) struct TimeEmbedding {
    channels: usize,
    flip: bool,
    shift: f32,
    /// Embedding of the guidance scale in distilled models.
    guidance: Option<(Linear, usize)>,
    linear1: Linear,
    linear2: Linear,
    projections: Linear,
    width: usize,
}

impl TimeEmbedding {
    pub fn new(build: &Build, config: &UnetConfig, projections: TimeProjections<'_>) -> Result<TimeEmbedding> {
        let layers = build.exact().scope("time_embedding");
        let (channels, time_width) = (config.levels[0].channels, config.time_width());
        let guidance = |width: usize| Ok((layers.linear("cond_proj", width, channels, false)?, width));
        Ok(TimeEmbedding {
            channels,
            flip: config.flip_sin_to_cos,
            shift: config.freq_shift,
            guidance: config.guidance_embedding.map(guidance).transpose()?,
            linear1: layers.linear("linear_1", channels, time_width, true)?,
            linear2: layers.linear("linear_2", time_width, time_width, true)?,
            width: projections.width,
            projections: Linear::prepare(build.device, Precision::F32, &projections.parts)?,
        })
    }

    /// Channels of all blocks.
    pub fn width(&self) -> usize {
        self.width
    }

    /// timesteps `[S]` -> biases `[S, width]`. `guidance` is the scale that a distilled model is told.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, timesteps: &[f32], guidance: f32) -> Result<Tensor<'e>> {
        let mut h = timestep_embedding(exec, timesteps, self.channels, self.flip, self.shift)?;
        if let Some((linear_guidance, width)) = &self.guidance {
            // Latent consistency models embed (scale - 1) * 1000 like a time, sines first, with a shift of one (diffusers'
            // `get_guidance_scale_embedding`).
            let scales = vec![(guidance - 1.0) * 1000.0; timesteps.len()];
            let scales = timestep_embedding(exec, &scales, *width, false, 1.0)?;
            h = linear(exec, linear_guidance, &scales, Activation::None, Some(&h))?;
        }
        h = linear(exec, &self.linear1, &h, Activation::Silu, None)?;
        h = linear(exec, &self.linear2, &h, Activation::None, None)?;
        exec.observe(format_args!("unet.time_embedding"), &h);
        h = silu(exec, &h)?;
        linear(exec, &self.projections, &h, Activation::None, None)
    }
}
