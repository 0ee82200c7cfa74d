//! CLIP's text transformer (transformers' `CLIPTextModel`), up to its last hidden state.

use super::layers::{ClipLayers, LayersConfig, PRECISION, Sight};
use crate::device::{Device, Exec, Tensor};
use crate::network::Build;
use crate::network::{ConfigFile, MAX_WIDTH};
use crate::ops::embed::{Embedding, embed};
use crate::ops::gemm::Activation;
use crate::ops::norm::{Norm, layer_norm};
use crate::tokenizer::ClipTokenizer;
use crate::weights::Loader;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// `text_encoder/config.json` (transformers' `CLIPTextConfig`, whose defaults apply to absent keys).
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_positions: usize,
    /// The transformer.
    pub layers: LayersConfig,
}

impl TextConfig {
    /// Reads the content of `path`. Keys of transformers that concern training, generation or other tasks are not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<TextConfig> {
        TextConfig::read(&ConfigFile::new(path, value)?)
    }

    /// Reads a file, or the part of one that is about the text model.
    pub(crate) fn read(file: &ConfigFile) -> Result<TextConfig> {
        file.expect("model_type", "clip_text_model")?;
        // Pipelines hide the padding from text encoders that ask for it; CLIP as Stable Diffusion uses it reads all 77.
        file.expect("use_attention_mask", false)?;
        let (activation, norm_eps) = (Activation::QuickGelu, 1e-5);
        let layers = LayersConfig { width: 512, inner: 2048, count: 12, heads: 8, activation, norm_eps };
        Ok(TextConfig {
            vocab_size: file.usize("vocab_size", Some(49408), 1..=1 << 20)?,
            max_positions: file.usize("max_position_embeddings", Some(77), 1..=MAX_WIDTH)?,
            layers: LayersConfig::read(file, layers)?,
        })
    }

    /// Checks that there is an embedding for every id and position that the tokenizer may give.
    ///
    /// # Errors
    /// [`Error::Usage`] naming both sizes.
    pub fn check_tokenizer(&self, tokenizer: &ClipTokenizer) -> Result<()> {
        let (ids, length) = (tokenizer.vocab_size() as usize, tokenizer.max_length());
        if ids > self.vocab_size || length > self.max_positions {
            let message = format!(
                "the tokenizer makes {length} ids below {ids}; the text encoder has {} tokens and {} positions",
                self.vocab_size, self.max_positions
            );
            return Err(Error::usage(message, "use the tokenizer and the text encoder of the same model"));
        }
        Ok(())
    }
}

/// Token ids to hidden states.
#[derive(Debug)]
pub struct TextEncoder {
    config: TextConfig,
    embedding: Embedding,
    layers: ClipLayers,
    final_norm: Norm,
}

impl TextEncoder {
    /// Takes the weights under their names without the prefix `text_model.`.
    pub fn new(config: TextConfig, device: &Device, loader: &Loader<'_>) -> Result<TextEncoder> {
        let build = Build::new(device, PRECISION, loader);
        let width = config.layers.width;
        let tables = build.scope("embeddings");
        let tokens = tables.tensor("token_embedding.weight", &[config.vocab_size, width]);
        let positions = tables.tensor("position_embedding.weight", &[config.max_positions, width]);
        let embedding = Embedding::prepare(device, tokens, positions)?;
        let layers = ClipLayers::new(&build, config.layers.clone(), Sight::Before)?;
        let final_norm = build.norm("final_layer_norm", width, 1, config.layers.norm_eps)?;
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
        h = self.layers.forward(exec, "text", h)?;
        h = layer_norm(exec, &self.final_norm, &h)?;
        exec.observe(format_args!("text.final_layer_norm"), &h);
        Ok(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!((config.layers.width, config.layers.count, config.layers.activation), (768, 12, Activation::QuickGelu));
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
