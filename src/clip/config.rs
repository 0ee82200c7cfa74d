//! `config.json` of a CLIP folder.

use super::text::TextConfig;
use super::vision::VisionConfig;
use crate::Result;
use crate::network::{ConfigFile, MAX_WIDTH};
use serde_json::Value;
use std::path::Path;

/// `config.json` (transformers' `CLIPConfig`, whose defaults apply to absent keys).
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text model.
    pub text: TextConfig,
    /// Where the text model has read the whole text.
    pub end_of_text: EndOfText,
    /// The image model.
    pub vision: VisionConfig,
    /// Width of the features.
    pub projection_dim: usize,
}

impl ClipConfig {
    /// Reads the content of `path`. Keys of transformers that concern training, generation or other tasks are not looked at.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<ClipConfig> {
        let file = ConfigFile::new(path, value)?;
        file.expect("model_type", "clip")?;
        let text = part(&file, ["text_config_dict", "text_config"])?;
        let vision = part(&file, ["vision_config_dict", "vision_config"])?;
        Ok(ClipConfig {
            end_of_text: EndOfText::read(&text)?,
            text: TextConfig::read(&text)?,
            vision: VisionConfig::read(&vision)?,
            projection_dim: file.usize("projection_dim", Some(512), 1..=MAX_WIDTH)?,
        })
    }
}

/// The first of two objects that is there. Older files have both, and transformers lets the first win as a whole.
fn part(file: &ConfigFile, [older, newer]: [&str; 2]) -> Result<ConfigFile> {
    let found = file.section(older).or_else(|| file.section(newer));
    found.ok_or_else(|| file.error(newer, "is missing or not an object"))
}

/// How the position is found whose hidden state stands for the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfText {
    /// The first position of the largest id: end-of-text is the last entry of CLIP's vocabulary.
    LargestId,
    /// The first position of this id.
    Id(u32),
}

impl EndOfText {
    /// Files written before transformers 4.31 say 2, which is not the id of anything; they mean the largest id.
    fn read(text: &ConfigFile) -> Result<EndOfText> {
        Ok(match text.usize("eos_token_id", Some(49407), 0..=u32::MAX as usize)? {
            2 => EndOfText::LargestId,
            id => EndOfText::Id(id as u32),
        })
    }

    /// The position in the ids of one text. Without the id it is 0, as in transformers; ids of a tokenizer always have it.
    pub fn position(self, ids: &[u32]) -> usize {
        let id = match self {
            EndOfText::LargestId => ids.iter().copied().max(),
            EndOfText::Id(id) => Some(id),
        };
        ids.iter().position(|&other| Some(other) == id).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::ops::gemm::Activation;
    use serde_json::json;

    /// The keys of openai/clip-vit-large-patch14 that matter, of which some stand twice.
    fn large() -> Value {
        let text = json!({"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12});
        let vision = json!({"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
            "patch_size": 14});
        let mut config = json!({"architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
            "model_type": "clip", "projection_dim": 768, "torch_dtype": "float32", "text_config": text, "vision_config": vision,
            "text_config_dict": text, "vision_config_dict": vision});
        config["text_config"]["eos_token_id"] = json!(2);
        config["text_config"]["model_type"] = json!("clip_text_model");
        config["vision_config"]["hidden_act"] = json!("quick_gelu");
        config
    }

    fn parse(value: &Value) -> Result<ClipConfig> {
        ClipConfig::parse(Path::new("clip/config.json"), value)
    }

    #[test]
    fn reads_the_published_configuration() {
        let config = parse(&large()).unwrap();
        assert_eq!((config.text.layers.width, config.text.vocab_size, config.projection_dim), (768, 49408, 768));
        assert_eq!((config.vision.layers.width, config.vision.layers.count), (1024, 24));
        assert_eq!((config.vision.positions(), config.vision.layers.activation), (257, Activation::QuickGelu));
        // The older objects win as a whole: this one has no id, so the default applies.
        assert_eq!(config.end_of_text, EndOfText::Id(49407));
        let mut newer = large();
        newer["text_config_dict"] = Value::Null;
        assert_eq!(parse(&newer).unwrap().end_of_text, EndOfText::LargestId);
    }

    #[test]
    fn names_what_it_does_not_support() {
        let cases = [
            (&["model_type"][..], json!("siglip")),
            (&["projection_dim"], json!(0)),
            (&["text_config"], json!(7)),
            (&["text_config", "eos_token_id"], json!([49407])),
            (&["text_config", "hidden_act"], json!("relu")),
            (&["vision_config", "num_attention_heads"], json!(7)),
            (&["vision_config", "num_channels"], json!(1)),
            (&["vision_config", "patch_size"], json!([14, 14])),
            (&["vision_config", "patch_size"], json!(225)),
            (&["vision_config", "model_type"], json!("siglip_vision_model")),
        ];
        for (path, value) in cases {
            let mut config = large();
            config["text_config_dict"] = Value::Null;
            config["vision_config_dict"] = Value::Null;
            *path.iter().fold(&mut config, |at, key| &mut at[*key]) = value;
            let error = parse(&config).unwrap_err();
            assert!(matches!(&error, Error::Config { key, .. } if *key == path.join(".")), "{path:?}: {error}");
        }
    }

    #[test]
    fn the_end_is_the_first_position_of_its_id() {
        assert_eq!(EndOfText::LargestId.position(&[7, 3, 9, 9, 0]), 2);
        assert_eq!(EndOfText::Id(3).position(&[7, 3, 9, 3, 0]), 1);
        assert_eq!(EndOfText::Id(4).position(&[7, 3]), 0);
    }
}
