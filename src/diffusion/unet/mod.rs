//! The denoising network (diffusers' `UNet2DConditionModel` as Stable Diffusion 1.x and 2.x use it).
//!
//! What does not depend on the latents is computed before the denoising loop: [`TimeState`] (time embeddings and their
//! projections, for all steps) and [`TextState`] (keys and values of the prompts). One evaluation is [`Unet::forward`].

mod blocks;
mod config;
mod pass;
mod text;
mod time;
mod transformer;

pub use config::{LevelConfig, UnetConfig};
pub use text::TextState;
pub use time::TimeState;

use crate::device::{Device, Exec, Precision, Tensor};
use crate::network::Build;
use crate::ops::attention::KvRows;
use crate::ops::conv::{Conv2d, Fused, conv2d};
use crate::ops::elementwise::repeat_batch;
use crate::ops::norm::{Norm, group_norm};
use crate::weights::Loader;
use crate::{Error, Result};
use blocks::{DownBlock, Gather, MidBlock, UpBlock};
use pass::{Pass, Skips};
use std::cell::Cell;
use text::TextProjections;
use time::{TimeEmbedding, TimeProjections};

/// What a batch is evaluated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// The prompts alone: B samples in, B out.
    Prompts,
    /// Without and with the prompt, for guidance: B samples in, 2 B out, unconditional half first. Everything before the first
    /// cross-attention is computed once for both halves, which changes no bit of the result.
    Both,
    /// The same without that saving: what the saving is compared with.
    BothSeparately,
}

/// The conditions of one evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'t> {
    /// Time biases of all steps.
    pub time: &'t TimeState,
    /// Which of them.
    pub step: usize,
    /// Keys and values of the prompts.
    pub text: &'t TextState,
    /// For each sample of the output, its prompt in `text`.
    pub text_rows: &'t KvRows,
    /// Whether both halves of guidance are wanted.
    pub halves: Halves,
}

/// Latents, time and text to a prediction of the noise (or of the velocity).
#[derive(Debug)]
pub struct Unet {
    config: UnetConfig,
    time: TimeEmbedding,
    text: TextProjections,
    conv_in: Conv2d,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: Conv2d,
}

impl Unet {
    /// Takes the weights under diffusers' names. `precision` is that of the products inside the blocks; time embedding, text
    /// keys and values and the two outermost convolutions are f32 always.
    pub fn new(config: UnetConfig, device: &Device, precision: Precision, loader: &Loader<'_>) -> Result<Unet> {
        let build = Build::new(device, precision, loader);
        let (levels, groups) = (&config.levels, config.norm_groups);
        let (first, last) = (levels[0].channels, levels.len() - 1);
        let conv_in = build.exact().conv("conv_in", config.in_channels, first, 3)?.with_statistics();
        let mut gather = Gather { config: &config, time: TimeProjections::default(), text: TextProjections::default() };
        let scope = build.scope("down_blocks");
        let down = (0..=last).map(|i| DownBlock::new(&scope.scope(i), i, &mut gather)).collect::<Result<_>>()?;
        let mid = MidBlock::new(&build.scope("mid_block"), &levels[last], &mut gather)?;
        let scope = build.scope("up_blocks");
        let up = (0..=last).map(|i| UpBlock::new(&scope.scope(i), last - i, &mut gather)).collect::<Result<_>>()?;
        let norm_out = build.norm("conv_norm_out", first, groups, config.norm_eps)?;
        let conv_out = build.exact().conv("conv_out", first, config.out_channels, 3)?;
        let Gather { time, text, .. } = gather;
        let time = TimeEmbedding::new(&build, &config, time)?;
        Ok(Unet { time, text, conv_in, down, mid, up, norm_out, conv_out, config })
    }

    /// The architecture.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// Room for the time biases of `steps` steps.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not that much memory.
    pub fn time_state(&self, device: &Device, steps: usize) -> Result<TimeState> {
        TimeState::zeros(device, steps, self.time.width())
    }

    /// Fills `out` for `timesteps`. `guidance` matters only to distilled models that are told the scale.
    pub fn encode_time(&self, exec: &Exec<'_>, timesteps: &[f32], guidance: f32, out: &mut TimeState) -> Result<()> {
        self.time.forward(exec, timesteps, guidance)?.store(out.biases_mut())
    }

    /// Fills prompts `row..row + P` of `out` from the text encoder's hidden states `[P, T, C]`.
    ///
    /// # Errors
    /// If `out` has no room for them or is for another length.
    pub fn encode_text(&self, exec: &Exec<'_>, hidden: &Tensor<'_>, row: usize, out: &mut TextState) -> Result<()> {
        self.text.forward(exec, hidden, row, out)
    }

    /// latents `[B, h, w, C]` -> prediction `[B, h, w, C]`, or `[2 B, h, w, C]` for both halves.
    ///
    /// # Errors
    /// [`Error::Shape`] for latents or text of another shape.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, latents: &Tensor<'_>, conditions: &Conditions<'_>) -> Result<Tensor<'e>> {
        self.check(latents, conditions)?;
        let pass = Pass {
            time: conditions.time,
            step: conditions.step,
            text: conditions.text,
            text_rows: conditions.text_rows,
            halves_shared: Cell::new(conditions.halves == Halves::Both),
        };
        let doubled = match conditions.halves {
            Halves::BothSeparately => Some(repeat_batch(exec, latents, 2)?),
            Halves::Prompts | Halves::Both => None,
        };
        let mut skips = Skips::new();
        let mut h = conv2d(exec, &self.conv_in, doubled.as_ref().unwrap_or(latents), Fused::default())?;
        drop(doubled);
        exec.observe(format_args!("unet.conv_in"), &h);
        skips.push(exec, h)?;
        for (i, block) in self.down.iter().enumerate() {
            let _range = exec.range(format_args!("unet.down_blocks.{i}"));
            block.forward(exec, &pass, format_args!("unet.down_blocks.{i}"), &mut skips)?;
        }
        let range = exec.range(format_args!("unet.mid_block"));
        h = self.mid.forward(exec, &pass, &mut skips)?;
        drop(range);
        for (i, block) in self.up.iter().enumerate() {
            let _range = exec.range(format_args!("unet.up_blocks.{i}"));
            h = block.forward(exec, &pass, format_args!("unet.up_blocks.{i}"), h, &mut skips)?;
        }
        h = group_norm(exec, &self.norm_out, &h, None, true)?;
        h = conv2d(exec, &self.conv_out, &h, Fused::default())?;
        exec.observe(format_args!("unet.conv_out"), &h);
        Ok(h)
    }

    fn check(&self, latents: &Tensor<'_>, conditions: &Conditions<'_>) -> Result<()> {
        let &[batch, _, _, channels] = latents.dims() else { return Err(not_an_image(latents)) };
        let outputs = if conditions.halves == Halves::Prompts { batch } else { 2 * batch };
        let rows = conditions.text_rows.rows();
        if channels != self.config.in_channels || rows.len() != outputs || batch == 0 {
            let message = format!("latents {:?} with text for {} samples, expected {outputs}", latents.shape(), rows.len());
            return Err(Error::shape("unet", message));
        }
        if let Some(row) = rows.iter().find(|&&row| row >= conditions.text.prompts()) {
            return Err(Error::shape("unet", format!("prompt {row} of {}", conditions.text.prompts())));
        }
        Ok(())
    }
}

fn not_an_image(x: &Tensor<'_>) -> Error {
    Error::shape("unet", format!("expected [B, H, W, C], found {:?}", x.shape()))
}

fn wrong_text(hidden: &Tensor<'_>, length: usize) -> Error {
    Error::shape("unet", format!("text states {:?} do not fit the prompts of {length} tokens there is room for", hidden.shape()))
}
