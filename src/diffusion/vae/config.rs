//! `vae/config.json`, in the terms of diffusers' `AutoencoderKL` (models/autoencoders/autoencoder_kl.py), whose defaults
//! apply to absent keys.

use crate::Result;
use crate::network::{ConfigFile, MAX_WIDTH};
use serde_json::Value;
use std::path::Path;

/// Architecture of the autoencoder.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of an image.
    pub image_channels: usize,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// Width of each level, finest first.
    pub channels: Vec<usize>,
    /// ResNet blocks of a level of the encoder; the decoder has one more.
    pub layers: usize,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// Latents are multiplied by this before diffusion and divided by it after.
    pub scaling_factor: f32,
    /// A 1x1 convolution after the encoder.
    pub quant_conv: bool,
    /// A 1x1 convolution before the decoder.
    pub post_quant_conv: bool,
    /// Attention between the two ResNet blocks of the middle.
    pub mid_attention: bool,
}

impl VaeConfig {
    /// Pixels of an image for each latent, in height and in width: 8 for Stable Diffusion.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Reads the content of `path`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<VaeConfig> {
        let file = ConfigFile::new(path, value)?;
        let config = VaeConfig {
            image_channels: file.usize("out_channels", Some(3), 1..=MAX_WIDTH)?,
            latent_channels: file.usize("latent_channels", Some(4), 1..=MAX_WIDTH)?,
            channels: file.list("block_out_channels", 1..=MAX_WIDTH)?,
            layers: file.usize("layers_per_block", Some(1), 1..=64)?,
            norm_groups: file.usize("norm_num_groups", Some(32), 1..=MAX_WIDTH)?,
            // Absent in the oldest files, which mean this value too.
            scaling_factor: file.positive("scaling_factor", 0.18215)?,
            quant_conv: file.bool("use_quant_conv", true)?,
            post_quant_conv: file.bool("use_post_quant_conv", true)?,
            mid_attention: file.bool("mid_block_add_attention", true)?,
        };
        file.expect("act_fn", "silu")?;
        file.expect("in_channels", 3)?;
        file.expect("out_channels", 3)?;
        file.expect("down_block_types", "DownEncoderBlock2D")?;
        file.expect("up_block_types", "UpDecoderBlock2D")?;
        for key in ["shift_factor", "latents_mean", "latents_std"] {
            file.expect(key, Value::Null)?;
        }
        // The training size bounds nothing without tiling; everything is f32, so nothing needs upcasting.
        file.ignore(&["sample_size", "force_upcast"]);
        file.finish()?;
        config.check(&file)?;
        Ok(config)
    }

    fn check(&self, file: &ConfigFile) -> Result<()> {
        if !(1..=8).contains(&self.channels.len()) {
            return Err(file.error("block_out_channels", format!("{} levels; 1 to 8 are supported", self.channels.len())));
        }
        for key in ["down_block_types", "up_block_types"] {
            if file.count(key).is_some_and(|count| count != self.channels.len()) {
                return Err(file.error(key, "needs one type for each entry of `block_out_channels`"));
            }
        }
        match self.channels.iter().find(|&&channels| !channels.is_multiple_of(self.norm_groups)) {
            Some(channels) => {
                let message = format!("{} groups do not divide a block of {channels} channels", self.norm_groups);
                Err(file.error("norm_num_groups", message))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Error;
    use serde_json::json;

    /// vae/config.json of Stable Diffusion 1.5.
    pub(crate) fn sd15() -> Value {
        json!({
            "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
            "sample_size": 512,
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
        })
    }

    #[test]
    fn reads_the_published_configuration_and_names_what_it_does_not_support() {
        let parse = |value: &Value| VaeConfig::parse(Path::new("vae/config.json"), value);
        let config = parse(&sd15()).unwrap();
        assert_eq!((config.factor(), config.scaling_factor, config.latent_channels), (8, 0.18215, 4));
        assert!(config.quant_conv && config.post_quant_conv && config.mid_attention);
        let cases = [
            ("act_fn", json!("relu")),
            ("in_channels", json!(4)),
            ("out_channels", json!(1)),
            ("latent_channels", json!(0)),
            ("block_out_channels", json!([])),
            ("layers_per_block", json!("2")),
            ("norm_num_groups", json!(48)),
            ("scaling_factor", json!(0)),
            ("shift_factor", json!(0.1)),
            ("latents_mean", json!([0, 0, 0, 0])),
            ("latents_std", json!([1, 1, 1, 1])),
            ("use_quant_conv", json!("no")),
            ("use_post_quant_conv", json!(0)),
            ("mid_block_add_attention", json!("yes")),
            ("down_block_types", json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"])),
            ("down_block_types", json!(["DownEncoderBlock2D"])),
            ("up_block_types", json!(["AttnUpDecoderBlock2D"])),
            ("a_setting_of_tomorrow", json!("on")),
        ];
        for (key, value) in cases {
            let mut config = sd15();
            config[key] = value;
            let error = parse(&config).expect_err(key);
            assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{key}: {error}");
        }
    }
}
