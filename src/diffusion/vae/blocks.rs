//! What encoder and decoder share: the middle, and its attention.

use super::{EPS, VaeConfig};
use crate::device::{Exec, Precision, Statistics, Tensor};
use crate::diffusion::resnet::ResnetBlock;
use crate::network::Build;
use crate::ops::attention::{Attention, Columns, attention};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, group_norm};
use crate::{Error, Result};

pub(super) fn not_an_image(x: &Tensor<'_>) -> Error {
    Error::shape("vae", format!("expected [B, H, W, C], found {:?}", x.shape()))
}

/// A ResNet block of the autoencoder: no time, no skip.
pub(super) fn resnet(build: &Build, inputs: usize, outputs: usize, config: &VaeConfig) -> Result<ResnetBlock> {
    ResnetBlock::new(build, inputs, outputs, config.norm_groups, EPS)
}

/// `x + out(attention(qkv(norm(x))))` over all positions, one head as wide as the image is deep.
#[derive(Debug)]
struct ImageAttention {
    precision: Precision,
    norm: Norm,
    qkv: Linear,
    out: Linear,
}

impl ImageAttention {
    fn new(build: &Build, channels: usize, config: &VaeConfig) -> Result<ImageAttention> {
        Ok(ImageAttention {
            precision: build.precision,
            norm: build.norm("group_norm", channels, config.norm_groups, EPS)?,
            qkv: build.stacked(["to_q", "to_k", "to_v"], channels, channels, true)?,
            out: build.linear("to_out.0", channels, channels, true)?.with_statistics(Statistics::Channels),
        })
    }

    fn forward<'e>(&self, exec: &'e Exec<'_>, x: &Tensor<'_>) -> Result<Tensor<'e>> {
        let &[batch, height, width, channels] = x.dims() else { return Err(not_an_image(x)) };
        let mut h = group_norm(exec, &self.norm, x, None, false)?;
        h = linear(exec, &self.qkv, &h, Activation::None, None)?.reshape([batch, height * width, 3 * channels]);
        let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &h, column: part * channels });
        let settings = Attention { heads: 1, head_dim: channels, causal: false, kv_rows: None, precision: self.precision };
        h = attention(exec, settings, q, k, v)?.reshape([batch, height, width, channels]);
        linear(exec, &self.out, &h, Activation::None, Some(x))
    }
}

/// Two ResNet blocks with attention between them (`UNetMidBlock2D`).
#[derive(Debug)]
pub(super) struct MidBlock {
    resnet0: ResnetBlock,
    attention: Option<ImageAttention>,
    resnet1: ResnetBlock,
}

impl MidBlock {
    pub fn new(build: &Build, channels: usize, config: &VaeConfig) -> Result<MidBlock> {
        let place = build.scope("attentions.0");
        Ok(MidBlock {
            resnet0: resnet(&build.scope("resnets.0"), channels, channels, config)?,
            attention: config.mid_attention.then(|| ImageAttention::new(&place, channels, config)).transpose()?,
            resnet1: resnet(&build.scope("resnets.1"), channels, channels, config)?,
        })
    }

    /// `half` is "encoder" or "decoder", for observers.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, half: &str, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        h = self.resnet0.forward(exec, &h, None, None)?;
        exec.observe(format_args!("vae.{half}.mid_block.resnets.0"), &h);
        if let Some(attention) = &self.attention {
            h = attention.forward(exec, &h)?;
            exec.observe(format_args!("vae.{half}.mid_block.attentions.0"), &h);
        }
        h = self.resnet1.forward(exec, &h, None, None)?;
        exec.observe(format_args!("vae.{half}.mid_block.resnets.1"), &h);
        Ok(h)
    }
}
