//! The transformer layers that CLIP's text and vision models share (transformers' `CLIPEncoder`).

use crate::Result;
use crate::device::{Exec, Precision, Statistics, Tensor};
use crate::network::Build;
use crate::network::{ConfigFile, MAX_WIDTH};
use crate::ops::attention::{Attention, Columns, attention};
use crate::ops::gemm::{Activation, Linear, linear};

/// The part of `CLIPTextConfig` and `CLIPVisionConfig` that is about their layers.
#[derive(Clone, Debug, PartialEq)]
pub struct LayersConfig {
    /// Width of the hidden states.
    pub width: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Number of layers.
    pub count: usize,
    /// Attention heads.
    pub heads: usize,
    /// OpenAI's models use QuickGELU, OpenCLIP's GELU.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub norm_eps: f32,
}

impl LayersConfig {
    /// Reads the keys of `file`; those that are absent have the values of `default`.
    pub(crate) fn read(file: &ConfigFile, default: LayersConfig) -> Result<LayersConfig> {
        let activations = [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu)];
        let config = LayersConfig {
            width: file.usize("hidden_size", Some(default.width), 1..=MAX_WIDTH)?,
            inner: file.usize("intermediate_size", Some(default.inner), 1..=MAX_WIDTH)?,
            count: file.usize("num_hidden_layers", Some(default.count), 1..=256)?,
            heads: file.usize("num_attention_heads", Some(default.heads), 1..=MAX_WIDTH)?,
            activation: file.choice("hidden_act", Some(default.activation), &activations)?,
            norm_eps: file.positive("layer_norm_eps", default.norm_eps)?,
        };
        if !config.width.is_multiple_of(config.heads) {
            let message = format!("{} heads do not divide a width of {}", config.heads, config.width);
            return Err(file.error("num_attention_heads", message));
        }
        Ok(config)
    }
}

/// Number type of the products, whatever the rest of a pipeline uses: a prompt costs a two-thousandth of its image.
pub(crate) const PRECISION: Precision = Precision::F32;

/// What a position sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Itself and what comes before: text.
    Before,
    /// Everything: images.
    All,
}

/// Layers one after the other.
#[derive(Debug)]
pub(crate) struct ClipLayers {
    config: LayersConfig,
    sight: Sight,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    out: Linear,
    fc1: Linear,
    fc2: Linear,
}

impl ClipLayers {
    /// Takes the weights under `encoder.layers`.
    pub fn new(build: &Build, config: LayersConfig, sight: Sight) -> Result<ClipLayers> {
        let (width, inner, eps) = (config.width, config.inner, config.norm_eps);
        let layer = |i: usize| -> Result<Layer> {
            let layer = build.scope("encoder.layers").scope(i);
            let attention = layer.scope("self_attn");
            let after = |norm| layer.after_norm(norm, width, eps);
            let fc2 = layer.linear("mlp.fc2", inner, width, true)?;
            Ok(Layer {
                qkv: after("layer_norm1").scope("self_attn").stacked(["q_proj", "k_proj", "v_proj"], width, width, true)?,
                out: attention.linear("out_proj", width, width, true)?.with_statistics(Statistics::Rows),
                fc1: after("layer_norm2").linear("mlp.fc1", width, inner, true)?,
                // The norm after the last layer is none of a linear layer's input.
                fc2: if i + 1 < config.count { fc2.with_statistics(Statistics::Rows) } else { fc2 },
            })
        };
        let layers = (0..config.count).map(layer).collect::<Result<_>>()?;
        Ok(ClipLayers { config, sight, layers })
    }

    /// h `[B, T, C]` -> `[B, T, C]`. Observed as `{model}.layers.{i}`.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, model: &str, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        for (i, layer) in self.layers.iter().enumerate() {
            h = self.layer(exec, layer, h)?;
            exec.observe(format_args!("{model}.layers.{i}"), &h);
        }
        Ok(h)
    }

    fn layer<'e>(&self, exec: &'e Exec<'_>, layer: &Layer, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        let &LayersConfig { width, heads, activation, .. } = &self.config;
        let mut a = linear(exec, &layer.qkv, &h, Activation::None, None)?;
        let causal = self.sight == Sight::Before;
        let settings = Attention { heads, head_dim: width / heads, causal, kv_rows: None, precision: PRECISION };
        let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &a, column: part * width });
        a = attention(exec, settings, q, k, v)?;
        h = linear(exec, &layer.out, &a, Activation::None, Some(&h))?;
        a = linear(exec, &layer.fc1, &h, activation, None)?;
        linear(exec, &layer.fc2, &a, Activation::None, Some(&h))
    }
}
