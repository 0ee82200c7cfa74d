//! Images to latents.

use super::blocks::{MidBlock, resnet};
use super::{EPS, VaeConfig};
use crate::Result;
use crate::device::{Device, Exec, Precision, Tensor};
use crate::diffusion::resnet::ResnetBlock;
use crate::network::Build;
use crate::ops::conv::{Conv2d, Fused, Padding, conv2d};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, group_norm};
use crate::weights::Loader;

/// The encoder half of the autoencoder.
#[derive(Debug)]
pub struct VaeEncoder {
    config: VaeConfig,
    conv_in: Conv2d,
    /// Finest first.
    levels: Vec<Level>,
    mid: MidBlock,
    norm_out: Norm,
    conv_out: Conv2d,
    quant: Option<Linear>,
}

/// `DownEncoderBlock2D`.
#[derive(Debug)]
struct Level {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Conv2d>,
}

impl VaeEncoder {
    /// Takes the weights under diffusers' names: `encoder.*` and `quant_conv.*`. `precision` as in [`super::VaeDecoder::new`].
    pub fn new(config: VaeConfig, device: &Device, precision: Precision, loader: &Loader<'_>) -> Result<VaeEncoder> {
        let root = Build::new(device, precision, loader);
        let build = root.scope("encoder");
        let (first, last) = (config.channels[0], config.channels[config.channels.len() - 1]);
        // Mean and log-variance.
        let moments = 2 * config.latent_channels;
        let level = |i: usize| Level::new(&build.scope("down_blocks").scope(i), i, &config);
        let quant = config.quant_conv.then(|| root.exact().pointwise("quant_conv", moments, moments));
        Ok(VaeEncoder {
            conv_in: build.exact().conv("conv_in", config.image_channels, first, 3)?.with_statistics(),
            levels: (0..config.channels.len()).map(level).collect::<Result<_>>()?,
            mid: MidBlock::new(&build.scope("mid_block"), last, &config)?,
            norm_out: build.norm("conv_norm_out", last, config.norm_groups, EPS)?,
            conv_out: build.exact().conv("conv_out", last, moments, 3)?,
            quant: quant.transpose()?,
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Image `[B, H, W, 3]` in [-1, 1] -> `[B, H/8, W/8, 2 C]`: the means of the latents, then their log-variances. The means
    /// are the mode of the distribution; times the scaling factor they are what diffusion works on.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for an image of another shape.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, image: Tensor<'e>) -> Result<Tensor<'e>> {
        let mut h = conv2d(exec, &self.conv_in, &image, Fused::default())?;
        drop(image);
        exec.observe(format_args!("vae.encoder.conv_in"), &h);
        for (i, level) in self.levels.iter().enumerate() {
            h = level.forward(exec, i, h)?;
        }
        h = self.mid.forward(exec, "encoder", h)?;
        h = group_norm(exec, &self.norm_out, &h, None, true)?;
        h = conv2d(exec, &self.conv_out, &h, Fused::default())?;
        exec.observe(format_args!("vae.encoder.conv_out"), &h);
        if let Some(quant) = &self.quant {
            h = linear(exec, quant, &h, Activation::None, None)?;
            exec.observe(format_args!("vae.quant_conv"), &h);
        }
        Ok(h)
    }
}

impl Level {
    fn new(build: &Build, i: usize, config: &VaeConfig) -> Result<Level> {
        let channels = config.channels[i];
        let finer = config.channels[i.saturating_sub(1)];
        let block = |j: usize| {
            let inputs = if j == 0 { finer } else { channels };
            resnet(&build.scope("resnets").scope(j), inputs, channels, config)
        };
        let resnets = (0..config.layers).map(block).collect::<Result<_>>()?;
        let last = i + 1 == config.channels.len();
        let conv = || build.strided_conv("downsamplers.0.conv", channels, channels, 3, 2, Padding::BottomRight);
        Ok(Level { resnets, downsampler: (!last).then(conv).transpose()?.map(Conv2d::with_statistics) })
    }

    fn forward<'e>(&self, exec: &'e Exec<'_>, i: usize, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        for (j, resnet) in self.resnets.iter().enumerate() {
            h = resnet.forward(exec, &h, None, None)?;
            exec.observe(format_args!("vae.encoder.down_blocks.{i}.resnets.{j}"), &h);
        }
        if let Some(conv) = &self.downsampler {
            h = conv2d(exec, conv, &h, Fused::default())?;
            exec.observe(format_args!("vae.encoder.down_blocks.{i}.downsamplers.0"), &h);
        }
        Ok(h)
    }
}
