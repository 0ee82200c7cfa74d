//! The transformer after a ResNet block (diffusers' `Transformer2DModel` of `BasicTransformerBlock`s).

use super::pass::{Pass, match_batch};
use super::text::TextProjections;
use crate::Result;
use crate::device::{Exec, Precision, Statistics, Tensor};
use crate::network::Build;
use crate::ops::attention::{Attention, Columns, KvRows, attention};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, group_norm};
use std::fmt;

/// Fixed in diffusers' transformer, whatever `norm_eps` says.
const GROUP_NORM_EPS: f32 = 1e-6;
/// PyTorch's default for a layer norm.
const LAYER_NORM_EPS: f32 = 1e-5;

/// Widths of a transformer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformerConfig {
    pub channels: usize,
    pub heads: usize,
    pub layers: usize,
    pub context: usize,
    pub groups: usize,
    pub linear_projection: bool,
}

/// `x + proj_out(blocks(proj_in(norm(x))))` over the positions of an image.
#[derive(Debug)]
pub(super) struct Transformer {
    norm: Norm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

/// Attention over the image, attention to the text, feed-forward; each of a layer norm of its input, and added to that.
#[derive(Debug)]
struct TransformerBlock {
    channels: usize,
    heads: usize,
    precision: Precision,
    self_qkv: Linear,
    self_out: Linear,
    cross_q: Linear,
    /// Number of its keys and values in [`super::TextState`].
    cross_kv: usize,
    cross_out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

impl Transformer {
    pub fn new(build: &Build, config: TransformerConfig, text: &mut TextProjections) -> Result<Transformer> {
        let channels = config.channels;
        let projection = |name| match config.linear_projection {
            true => build.linear(name, channels, channels, true),
            false => build.pointwise(name, channels, channels),
        };
        let blocks = build.scope("transformer_blocks");
        Ok(Transformer {
            norm: build.norm("norm", channels, config.groups, GROUP_NORM_EPS)?,
            proj_in: projection("proj_in")?.with_statistics(Statistics::Rows),
            blocks: (0..config.layers)
                .map(|k| TransformerBlock::new(&blocks.scope(k), config, text, k + 1 == config.layers))
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?.with_statistics(Statistics::Channels),
        })
    }

    /// x `[B, H, W, C]` -> `[B, H, W, C]`, or `[2 B, H, W, C]` where the halves of the batch part. `name` is for observers.
    pub fn forward<'e>(
        &self,
        exec: &'e Exec<'_>,
        pass: &Pass<'_>,
        name: fmt::Arguments<'_>,
        x: &Tensor<'_>,
    ) -> Result<Tensor<'e>> {
        let &[batch, height, width, channels] = x.dims() else { return Err(super::not_an_image(x)) };
        let mut h = group_norm(exec, &self.norm, x, None, false)?;
        h = linear(exec, &self.proj_in, &h, Activation::None, None)?.reshape([batch, height * width, channels]);
        for (k, block) in self.blocks.iter().enumerate() {
            h = block.forward(exec, pass, h)?;
            exec.observe(format_args!("{name}.transformer_blocks.{k}"), &h);
        }
        let batch = h.dims()[0];
        let repeated = match_batch(exec, x, batch)?;
        let h = h.reshape([batch, height, width, channels]);
        linear(exec, &self.proj_out, &h, Activation::None, Some(repeated.as_ref().unwrap_or(x)))
    }
}

impl TransformerBlock {
    /// No norm reads what the last block makes.
    fn new(build: &Build, config: TransformerConfig, text: &mut TextProjections, last: bool) -> Result<TransformerBlock> {
        let channels = config.channels;
        let ff_out = build.linear("ff.net.2", 4 * channels, channels, true)?;
        let after = |norm| build.after_norm(norm, channels, LAYER_NORM_EPS);
        let (attn1, attn2) = (build.scope("attn1"), build.scope("attn2"));
        Ok(TransformerBlock {
            channels,
            heads: config.heads,
            precision: build.precision,
            self_qkv: after("norm1").scope("attn1").stacked(["to_q", "to_k", "to_v"], channels, channels, false)?,
            self_out: attn1.linear("to_out.0", channels, channels, true)?.with_statistics(Statistics::Rows),
            cross_q: after("norm2").scope("attn2").linear("to_q", channels, channels, false)?,
            cross_kv: text.add(&attn2, config.context, channels)?,
            cross_out: attn2.linear("to_out.0", channels, channels, true)?.with_statistics(Statistics::Rows),
            ff_in: after("norm3").geglu("ff.net.0.proj", channels, 4 * channels)?,
            ff_out: if last { ff_out } else { ff_out.with_statistics(Statistics::Rows) },
        })
    }

    fn forward<'e>(&self, exec: &'e Exec<'_>, pass: &Pass<'_>, h: Tensor<'e>) -> Result<Tensor<'e>> {
        let h = self.self_attention(exec, h)?;
        let h = match pass.part_here() {
            Some(batch) => match_batch(exec, &h, batch)?.unwrap_or(h),
            None => h,
        };
        let h = self.cross_attention(exec, pass, h)?;
        self.feed_forward(exec, h)
    }

    fn self_attention<'e>(&self, exec: &'e Exec<'_>, h: Tensor<'e>) -> Result<Tensor<'e>> {
        let mut a = linear(exec, &self.self_qkv, &h, Activation::None, None)?;
        let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &a, column: part * self.channels });
        a = attention(exec, self.attention(None), q, k, v)?;
        linear(exec, &self.self_out, &a, Activation::None, Some(&h))
    }

    fn cross_attention<'e>(&self, exec: &'e Exec<'_>, pass: &Pass<'_>, h: Tensor<'e>) -> Result<Tensor<'e>> {
        let mut a = linear(exec, &self.cross_q, &h, Activation::None, None)?;
        let kv = exec.view(pass.text.keys_values(self.cross_kv));
        let q = Columns { tensor: &a, column: 0 };
        let [k, v] = [0, 1].map(|part| Columns { tensor: &kv, column: part * self.channels });
        a = attention(exec, self.attention(Some(pass.text_rows)), q, k, v)?;
        linear(exec, &self.cross_out, &a, Activation::None, Some(&h))
    }

    fn feed_forward<'e>(&self, exec: &'e Exec<'_>, h: Tensor<'e>) -> Result<Tensor<'e>> {
        let a = linear(exec, &self.ff_in, &h, Activation::Geglu, None)?;
        linear(exec, &self.ff_out, &a, Activation::None, Some(&h))
    }

    fn attention<'t>(&self, kv_rows: Option<&'t KvRows>) -> Attention<'t> {
        Attention { heads: self.heads, head_dim: self.channels / self.heads, causal: false, kv_rows, precision: self.precision }
    }
}
