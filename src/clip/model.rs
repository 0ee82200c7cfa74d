//! Both transformers and their projections into the common space.

use super::config::ClipConfig;
use super::layers::PRECISION;
use super::text::TextEncoder;
use super::vision::VisionTransformer;
use crate::Result;
use crate::device::{Device, Exec, Tensor};
use crate::network::Build;
use crate::ops::elementwise::select_positions;
use crate::ops::gemm::{Activation, Linear, linear};
use crate::weights::Loader;

/// transformers' `CLIPModel`.
#[derive(Debug)]
pub struct ClipModel {
    config: ClipConfig,
    text: TextEncoder,
    vision: VisionTransformer,
    text_projection: Linear,
    visual_projection: Linear,
}

impl ClipModel {
    /// Takes the weights of `model.safetensors`.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if there is not enough memory.
    pub fn new(config: ClipConfig, device: &Device, loader: &Loader<'_>) -> Result<ClipModel> {
        let build = Build::new(device, PRECISION, loader);
        let (text, vision) = (config.text.layers.width, config.vision.layers.width);
        Ok(ClipModel {
            text: TextEncoder::new(config.text.clone(), device, &loader.scope("text_model"))?,
            vision: VisionTransformer::new(config.vision.clone(), device, &loader.scope("vision_model"))?,
            text_projection: build.linear("text_projection", text, config.projection_dim, false)?,
            visual_projection: build.linear("visual_projection", vision, config.projection_dim, false)?,
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// ids `[B * length]`, each text with its end -> features `[B, projection_dim]`, of any length.
    ///
    /// # Errors
    /// As [`TextEncoder::forward`].
    pub fn text_features<'e>(&self, exec: &'e Exec<'_>, ids: &[u32], length: usize) -> Result<Tensor<'e>> {
        let mut h = self.text.forward(exec, ids, length)?;
        // Causal attention: the end has seen the whole text, and nothing of the padding behind it.
        h = select_positions(exec, &h, |b| self.config.end_of_text.position(&ids[b * length..][..length]))?;
        h = linear(exec, &self.text_projection, &h, Activation::None, None)?;
        exec.observe(format_args!("text.projection"), &h);
        Ok(h)
    }

    /// patches `[B, T, K]`, of each image as [`cut`](super::vision::VisionConfig::cut) makes them -> features
    /// `[B, projection_dim]`, of any length.
    ///
    /// # Errors
    /// As [`VisionTransformer::forward`].
    pub fn image_features<'e>(&self, exec: &'e Exec<'_>, patches: &[f32]) -> Result<Tensor<'e>> {
        let mut h = self.vision.forward(exec, patches)?;
        h = linear(exec, &self.visual_projection, &h, Activation::None, None)?;
        exec.observe(format_args!("vision.projection"), &h);
        Ok(h)
    }
}
