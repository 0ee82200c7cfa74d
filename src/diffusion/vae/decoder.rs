//! Latents to images.

use super::blocks::{MidBlock, not_an_image, resnet};
use super::{EPS, VaeConfig};
use crate::Result;
use crate::device::{Device, Exec, Precision, Tensor};
use crate::diffusion::resnet::ResnetBlock;
use crate::network::Build;
use crate::ops::conv::{Conv2d, Fused, conv2d};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, group_norm};
use crate::weights::Loader;

/// The decoder half of the autoencoder.
#[derive(Debug)]
pub struct VaeDecoder {
    config: VaeConfig,
    post_quant: Option<Linear>,
    conv_in: Conv2d,
    mid: MidBlock,
    /// Coarsest first.
    levels: Vec<Level>,
    norm_out: Norm,
    conv_out: Conv2d,
}

/// `UpDecoderBlock2D`.
#[derive(Debug)]
struct Level {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Conv2d>,
}

impl VaeDecoder {
    /// Takes the weights under diffusers' names: `decoder.*` and `post_quant_conv.*`. `precision` is that of the products
    /// inside the blocks; the outermost layers are f32 always.
    pub fn new(config: VaeConfig, device: &Device, precision: Precision, loader: &Loader<'_>) -> Result<VaeDecoder> {
        let root = Build::new(device, precision, loader);
        let build = root.scope("decoder");
        let latent = config.latent_channels;
        let (first, last) = (config.channels[0], config.channels[config.channels.len() - 1]);
        let post_quant = config.post_quant_conv.then(|| root.exact().pointwise("post_quant_conv", latent, latent));
        let level = |i: usize| Level::new(&build.scope("up_blocks").scope(i), i, &config);
        Ok(VaeDecoder {
            post_quant: post_quant.transpose()?,
            conv_in: build.exact().conv("conv_in", latent, last, 3)?.with_statistics(),
            mid: MidBlock::new(&build.scope("mid_block"), last, &config)?,
            levels: (0..config.channels.len()).map(level).collect::<Result<_>>()?,
            norm_out: build.norm("conv_norm_out", first, config.norm_groups, EPS)?,
            conv_out: build.exact().conv("conv_out", first, config.image_channels, 3)?,
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Latents `[B, h, w, C]`, already divided by the scaling factor -> image `[B, 8 h, 8 w, 3]` in about [-1, 1].
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for latents of another shape.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, latents: Tensor<'e>) -> Result<Tensor<'e>> {
        let mut h = latents;
        if let Some(post_quant) = &self.post_quant {
            h = linear(exec, post_quant, &h, Activation::None, None)?;
            exec.observe(format_args!("vae.post_quant_conv"), &h);
        }
        h = conv2d(exec, &self.conv_in, &h, Fused::default())?;
        exec.observe(format_args!("vae.decoder.conv_in"), &h);
        let range = exec.range(format_args!("vae.decoder.mid_block"));
        h = self.mid.forward(exec, "decoder", h)?;
        drop(range);
        for (i, level) in self.levels.iter().enumerate() {
            let _range = exec.range(format_args!("vae.decoder.up_blocks.{i}"));
            h = level.forward(exec, i, h)?;
        }
        h = group_norm(exec, &self.norm_out, &h, None, true)?;
        h = conv2d(exec, &self.conv_out, &h, Fused::default())?;
        exec.observe(format_args!("vae.decoder.conv_out"), &h);
        Ok(h)
    }
}

impl Level {
    /// Block `i`, counted from the coarsest.
    fn new(build: &Build, i: usize, config: &VaeConfig) -> Result<Level> {
        let last = config.channels.len() - 1;
        let channels = config.channels[last - i];
        let coarser = config.channels[(last - i + 1).min(last)];
        let block = |j: usize| {
            let inputs = if j == 0 { coarser } else { channels };
            resnet(&build.scope("resnets").scope(j), inputs, channels, config)
        };
        let resnets = (0..=config.layers).map(block).collect::<Result<_>>()?;
        let upsampler = (i < last).then(|| build.conv("upsamplers.0.conv", channels, channels, 3)).transpose()?;
        Ok(Level { resnets, upsampler: upsampler.map(Conv2d::with_statistics) })
    }

    fn forward<'e>(&self, exec: &'e Exec<'_>, i: usize, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            h = resnet.forward(exec, &h, None, None)?;
            exec.observe(format_args!("vae.decoder.up_blocks.{i}.resnets.{j}"), &h);
        }
        if let Some(conv) = &self.upsampler {
            let &[_, height, width, _] = h.dims() else { return Err(not_an_image(&h)) };
            h = conv2d(exec, conv, &h, Fused { upsample: Some([2 * height, 2 * width]), ..Fused::default() })?;
            exec.observe(format_args!("vae.decoder.up_blocks.{i}.upsamplers.0"), &h);
        }
        Ok(h)
    }
}
