//! CLIP's text transformer (transformers' `CLIPTextModel`), up to its last hidden state.

use super::config::{ConfigFile, MAX_WIDTH};
use super::layers::Build;
use crate::Result;
use crate::device::{Device, Exec, Precision, Tensor};
use crate::ops::attention::{Attention, Columns, attention};
use crate::ops::embed::{Embedding, embed};
use crate::ops::gemm::{Activation, Linear, linear};
use crate::ops::norm::{Norm, layer_norm};
use crate::weights::Loader;
use serde_json::Value;
use std::path::Path;

/// `text_encoder/config.json` (transformers' `CLIPTextConfig`, whose defaults apply to absent keys).
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_positions: usize,
    /// Width of the hidden states.
    pub width: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// OpenAI's models use QuickGELU, OpenCLIP's GELU.
    pub activation: Activation,
    /// Added to the variance in layer norms.
    pub norm_eps: f32,
}

impl TextConfig {
    /// Reads the content of `path`. Keys of transformers that concern training, generation or other tasks are not looked at.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<TextConfig> {
        let file = ConfigFile::new(path, value)?;
        file.expect("model_type", "clip_text_model")?;
        // Pipelines hide the padding from text encoders that ask for it; CLIP as Stable Diffusion uses it reads all 77.
        file.expect("use_attention_mask", false)?;
        let activations = [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu)];
        let config = TextConfig {
            vocab_size: file.usize("vocab_size", Some(49408), 1..=1 << 20)?,
            max_positions: file.usize("max_position_embeddings", Some(77), 1..=MAX_WIDTH)?,
            width: file.usize("hidden_size", Some(512), 1..=MAX_WIDTH)?,
            inner: file.usize("intermediate_size", Some(2048), 1..=MAX_WIDTH)?,
            layers: file.usize("num_hidden_layers", Some(12), 1..=256)?,
            heads: file.usize("num_attention_heads", Some(8), 1..=MAX_WIDTH)?,
            activation: file.choice("hidden_act", Some(Activation::QuickGelu), &activations)?,
            norm_eps: file.positive("layer_norm_eps", 1e-5)?,
        };
        if !config.width.is_multiple_of(config.heads) {
            let message = format!("{} heads do not divide a width of {}", config.heads, config.width);
            return Err(file.error("num_attention_heads", message));
        }
        Ok(config)
    }
}

#[derive(Debug)]
struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// Token ids to hidden states.
#[derive(Debug)]
pub struct TextEncoder {
    config: TextConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    final_norm: Norm,
}

impl TextEncoder {
    /// Takes the weights under their names without the prefix `text_model.`. Products are f32 whatever the rest of the
    /// pipeline uses: a prompt costs a two-thousandth of its image.
    pub fn new(config: TextConfig, device: &Device, loader: &Loader<'_>) -> Result<TextEncoder> {
        let build = Build::new(device, Precision::F32, loader);
        let (width, eps) = (config.width, config.norm_eps);
        let tables = build.scope("embeddings");
        let tokens = tables.tensor("token_embedding.weight", &[config.vocab_size, width]);
        let positions = tables.tensor("position_embedding.weight", &[config.max_positions, width]);
        let embedding = Embedding::prepare(device, tokens, positions)?;
        let layer = |i: usize| -> Result<Layer> {
            let layer = build.scope("encoder.layers").scope(i);
            let attention = layer.scope("self_attn");
            Ok(Layer {
                norm1: layer.norm("layer_norm1", width, 1, eps)?,
                qkv: attention.stacked(["q_proj", "k_proj", "v_proj"], width, width, true)?,
                out: attention.linear("out_proj", width, width, true)?,
                norm2: layer.norm("layer_norm2", width, 1, eps)?,
                fc1: layer.linear("mlp.fc1", width, config.inner, true)?,
                fc2: layer.linear("mlp.fc2", config.inner, width, true)?,
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        let final_norm = build.norm("final_layer_norm", width, 1, eps)?;
        Ok(TextEncoder { config, embedding, layers, final_norm })
    }

    /// The architecture.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// ids `[B * length]` -> last hidden states, normalised, `[B, length, C]`.
    ///
    /// # Errors
    /// If an id is not in the vocabulary or `length` is above the number of positions.
    pub fn forward<'e>(&self, exec: &'e Exec<'_>, ids: &[u32], length: usize) -> Result<Tensor<'e>> {
        let mut h = embed(exec, &self.embedding, ids, length)?;
        exec.observe(format_args!("text.embeddings"), &h);
        for (i, layer) in self.layers.iter().enumerate() {
            h = self.layer(exec, layer, h)?;
            exec.observe(format_args!("text.layers.{i}"), &h);
        }
        h = layer_norm(exec, &self.final_norm, &h)?;
        exec.observe(format_args!("text.final_layer_norm"), &h);
        Ok(h)
    }

    fn layer<'e>(&self, exec: &'e Exec<'_>, layer: &Layer, mut h: Tensor<'e>) -> Result<Tensor<'e>> {
        let width = self.config.width;
        let mut a = layer_norm(exec, &layer.norm1, &h)?;
        a = linear(exec, &layer.qkv, &a, Activation::None, None)?;
        let (heads, precision) = (self.config.heads, Precision::F32);
        let settings = Attention { heads, head_dim: width / heads, causal: true, kv_rows: None, precision };
        let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &a, column: part * width });
        a = attention(exec, settings, q, k, v)?;
        h = linear(exec, &layer.out, &a, Activation::None, Some(&h))?;
        a = layer_norm(exec, &layer.norm2, &h)?;
        a = linear(exec, &layer.fc1, &a, self.config.activation, None)?;
        linear(exec, &layer.fc2, &a, Activation::None, Some(&h))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use serde_json::json;

    /// text_encoder/config.json of Stable Diffusion 1.5.
    fn sd15() -> Value {
        json!({
            "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
            "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
            "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
            "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32", "transformers_version": "4.22.0.dev0",
            "vocab_size": 49408
        })
    }

    #[test]
    fn reads_the_published_configuration_and_names_what_it_does_not_support() {
        let parse = |value: &Value| TextConfig::parse(Path::new("text_encoder/config.json"), value);
        let config = parse(&sd15()).unwrap();
        assert_eq!((config.width, config.layers, config.activation), (768, 12, Activation::QuickGelu));
        let cases = [
            ("model_type", json!("bert")),
            ("hidden_act", json!("relu")),
            ("use_attention_mask", json!(true)),
            ("num_attention_heads", json!(7)),
            ("num_hidden_layers", json!(0)),
            ("vocab_size", json!(-5)),
            ("layer_norm_eps", json!(0)),
        ];
        for (key, value) in cases {
            let mut config = sd15();
            config[key] = value;
            let error = parse(&config).unwrap_err();
            assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{key}: {error}");
        }
    }
}
