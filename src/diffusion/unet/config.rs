//! `unet/config.json`, in the terms of diffusers' `UNet2DConditionModel` (models/unets/unet_2d_condition.py), whose defaults
//! apply to absent keys.

use crate::Result;
use crate::network::{ConfigFile, MAX_WIDTH};
use serde_json::Value;
use std::path::Path;

/// Most skip connections of a network; Stable Diffusion has 12.
pub(super) const MAX_SKIPS: usize = 64;

/// One level of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelConfig {
    /// Width of its layers.
    pub channels: usize,
    /// ResNet blocks on the way down; one more on the way up.
    pub layers: usize,
    /// Heads of its attentions.
    pub heads: usize,
    /// Transformer blocks in each of its attentions.
    pub transformer_layers: usize,
    /// Width of the text states that its cross-attentions read.
    pub context: usize,
    /// Attention after each ResNet block on the way down (`CrossAttnDownBlock2D`).
    pub down_attention: bool,
    /// Attention after each ResNet block on the way up (`CrossAttnUpBlock2D`).
    pub up_attention: bool,
}

/// Architecture of the denoising network.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Latent size the model was trained at, if the file names it.
    pub sample_size: Option<usize>,
    /// Levels, finest first.
    pub levels: Vec<LevelConfig>,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// Added to the variance in ResNet blocks and before the last convolution. Transformers use 1e-6.
    pub norm_eps: f32,
    /// Linear projections around a transformer; 1x1 convolutions otherwise. The same map, stored in another shape.
    pub linear_projection: bool,
    /// Cosines before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Frequency shift of the time embedding.
    pub freq_shift: f32,
    /// Width of the guidance embedding of a distilled model, which then runs without an unconditional half.
    pub guidance_embedding: Option<usize>,
}

impl UnetConfig {
    /// Width of the time embedding: four times the first level (`time_embed_dim`).
    pub fn time_width(&self) -> usize {
        4 * self.levels[0].channels
    }

    /// Reads the content of `path`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the key for a value that is malformed or not supported.
    pub fn parse(path: &Path, value: &Value) -> Result<UnetConfig> {
        let file = ConfigFile::new(path, value)?;
        let config = UnetConfig {
            in_channels: file.usize("in_channels", Some(4), 1..=MAX_WIDTH)?,
            out_channels: file.usize("out_channels", Some(4), 1..=MAX_WIDTH)?,
            sample_size: file.optional_usize("sample_size", 1..=MAX_WIDTH)?,
            levels: levels(&file)?,
            norm_groups: file.usize("norm_num_groups", Some(32), 1..=MAX_WIDTH)?,
            norm_eps: file.positive("norm_eps", 1e-5)?,
            linear_projection: file.bool("use_linear_projection", false)?,
            flip_sin_to_cos: file.bool("flip_sin_to_cos", true)?,
            freq_shift: file.number("freq_shift", 0.0)?,
            guidance_embedding: file.optional_usize("time_cond_proj_dim", 4..=MAX_WIDTH)?,
        };
        refuse_unsupported(&file)?;
        file.finish()?;
        config.check(&file)?;
        Ok(config)
    }

    /// Checks that hold between values.
    fn check(&self, file: &ConfigFile) -> Result<()> {
        if self.in_channels != self.out_channels {
            let found = format!("{} in, {} out", self.in_channels, self.out_channels);
            return Err(file.error("in_channels", format!("{found}: inpainting and depth models are not supported")));
        }
        for level in &self.levels {
            if !level.channels.is_multiple_of(self.norm_groups) {
                let message = format!("{} groups do not divide a block of {} channels", self.norm_groups, level.channels);
                return Err(file.error("norm_num_groups", message));
            }
        }
        let last = self.levels.len() - 1;
        for (i, level) in self.levels.iter().enumerate() {
            let attends = level.down_attention || level.up_attention || i == last;
            if attends && !level.channels.is_multiple_of(level.heads) {
                let message = format!("{} heads do not divide a block of {} channels", level.heads, level.channels);
                return Err(file.error("attention_head_dim", message));
            }
        }
        if !self.levels[0].channels.is_multiple_of(2) || self.guidance_embedding.is_some_and(|width| !width.is_multiple_of(2)) {
            return Err(file.error("block_out_channels", "sinusoidal embeddings need an even width"));
        }
        if self.freq_shift >= (self.levels[0].channels / 2) as f32 {
            return Err(file.error("freq_shift", "must be less than half the channels of the first block"));
        }
        let skips: usize = 1 + self.levels.iter().map(|level| level.layers + 1).sum::<usize>();
        if skips > MAX_SKIPS {
            return Err(file.error("layers_per_block", format!("{skips} skip connections; at most {MAX_SKIPS} are supported")));
        }
        Ok(())
    }
}

fn levels(file: &ConfigFile) -> Result<Vec<LevelConfig>> {
    let channels = file.list("block_out_channels", 1..=MAX_WIDTH)?;
    let count = channels.len();
    if !(1..=16).contains(&count) {
        return Err(file.error("block_out_channels", format!("{count} blocks; 1 to 16 are supported")));
    }
    let down = file.choices("down_block_types", &[("DownBlock2D", false), ("CrossAttnDownBlock2D", true)])?;
    let up = file.choices("up_block_types", &[("UpBlock2D", false), ("CrossAttnUpBlock2D", true)])?;
    for (key, types) in [("down_block_types", &down), ("up_block_types", &up)] {
        if types.len() != count {
            return Err(file.error(key, format!("{} types for the {count} entries of `block_out_channels`", types.len())));
        }
    }
    let layers = file.per_block("layers_per_block", count, 2, 1..=MAX_SKIPS)?;
    // A naming error kept by all published files: this is the number of heads, not their width (diffusers issue 2011).
    let heads = file.per_block("attention_head_dim", count, 8, 1..=MAX_WIDTH)?;
    let transformer_layers = file.per_block("transformer_layers_per_block", count, 1, 1..=MAX_SKIPS)?;
    let context = file.per_block("cross_attention_dim", count, 1280, 1..=MAX_WIDTH)?;
    if context.iter().any(|&width| width != context[0]) {
        return Err(file.error("cross_attention_dim", "different widths for different blocks are not supported"));
    }
    let level = |i: usize| LevelConfig {
        channels: channels[i],
        layers: layers[i],
        heads: heads[i],
        transformer_layers: transformer_layers[i],
        context: context[i],
        down_attention: down[i],
        up_attention: up[count - 1 - i],
    };
    Ok((0..count).map(level).collect())
}

/// Settings of other members of the family, accepted only where they are off.
fn refuse_unsupported(file: &ConfigFile) -> Result<()> {
    file.expect("act_fn", "silu")?;
    file.expect("mid_block_type", "UNetMidBlock2DCrossAttn")?;
    file.expect("center_input_sample", false)?;
    file.expect("downsample_padding", 1)?;
    file.expect("conv_in_kernel", 3)?;
    file.expect("conv_out_kernel", 3)?;
    file.expect("mid_block_scale_factor", 1)?;
    file.expect("resnet_out_scale_factor", 1)?;
    file.expect("resnet_time_scale_shift", "default")?;
    file.expect("time_embedding_type", "positional")?;
    file.expect("attention_type", "default")?;
    let switches = ["only_cross_attention", "mid_block_only_cross_attention", "dual_cross_attention", "resnet_skip_time_act"];
    for key in switches.into_iter().chain(["class_embeddings_concat"]) {
        file.expect(key, false)?;
    }
    let absent = [
        "num_attention_heads",
        "class_embed_type",
        "num_class_embeds",
        "addition_embed_type",
        "addition_time_embed_dim",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
        "projection_class_embeddings_input_dim",
    ];
    for key in absent {
        file.expect(key, Value::Null)?;
    }
    // The state of the moving average of weights in training, which diffusers' `EMAModel` saves with them.
    file.ignore(&["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"]);
    // `upcast_attention` asks for f32 attention scores, which is what happens anyway; dropout is for training; the heads of
    // an additional embedding mean nothing without one.
    file.ignore(&["upcast_attention", "dropout", "addition_embed_type_num_heads"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// unet/config.json of Stable Diffusion 1.5.
    pub(crate) fn sd15() -> Value {
        json!({
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
            "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
            "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut config = sd15();
        config[key] = value;
        config
    }

    fn parse(value: &Value) -> Result<UnetConfig> {
        UnetConfig::parse(Path::new("unet/config.json"), value)
    }

    #[test]
    fn reads_the_published_configurations() {
        let config = parse(&sd15()).unwrap();
        assert_eq!(config.levels.iter().map(|l| l.channels).collect::<Vec<_>>(), [320, 640, 1280, 1280]);
        assert_eq!(config.levels.iter().map(|l| l.down_attention).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(config.levels.iter().map(|l| l.up_attention).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!((config.levels[3].heads, config.time_width()), (8, 1280));
        assert!(!config.linear_projection);

        let mut sd21 = with("attention_head_dim", json!([5, 10, 20, 20]));
        let more = json!({"cross_attention_dim": 1024, "dual_cross_attention": false, "only_cross_attention": false,
            "num_class_embeds": null, "upcast_attention": true, "use_linear_projection": true});
        sd21.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config = parse(&sd21).unwrap();
        assert_eq!(config.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [5, 10, 20, 20]);
        assert!(config.linear_projection && config.levels[0].context == 1024);
    }

    #[test]
    fn reads_values_given_for_each_block() {
        let config = parse(&with("layers_per_block", json!([1, 2, 3, 2]))).unwrap();
        assert_eq!(config.levels.iter().map(|l| l.layers).collect::<Vec<_>>(), [1, 2, 3, 2]);
        let config = parse(&with("transformer_layers_per_block", json!([1, 2, 10, 1]))).unwrap();
        assert_eq!(config.levels[2].transformer_layers, 10);
        assert_eq!(parse(&with("only_cross_attention", json!([false, false, false, false]))).unwrap(), parse(&sd15()).unwrap());
        assert_eq!(parse(&with("time_cond_proj_dim", json!(256))).unwrap().guidance_embedding, Some(256));
    }

    /// Each unsupported or malformed value is refused under the name of its key.
    #[test]
    fn names_what_it_does_not_support() {
        let cases = [
            ("act_fn", json!("gelu")),
            ("in_channels", json!(9)),
            ("center_input_sample", json!(true)),
            ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
            ("down_block_types", json!(["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"])),
            ("up_block_types", json!(["UpBlock2D"])),
            ("block_out_channels", json!([])),
            ("block_out_channels", json!([320, 640, 1280, 99999999999u64])),
            ("block_out_channels", json!("320")),
            ("layers_per_block", json!(0)),
            ("layers_per_block", json!([2, 2])),
            ("layers_per_block", json!(64)),
            ("attention_head_dim", json!(7)),
            ("attention_head_dim", json!(0)),
            ("attention_head_dim", json!(8.5)),
            ("num_attention_heads", json!(8)),
            ("norm_num_groups", json!(48)),
            ("norm_eps", json!(-1)),
            ("norm_eps", json!("small")),
            ("cross_attention_dim", json!([768, 768, 768, 1024])),
            ("transformer_layers_per_block", json!([[1, 1], 1, 1, 1])),
            ("reverse_transformer_layers_per_block", json!([1, 1, 1, 1])),
            ("only_cross_attention", json!([true, false, false, false])),
            ("mid_block_only_cross_attention", json!(true)),
            ("dual_cross_attention", json!(true)),
            ("class_embed_type", json!("timestep")),
            ("num_class_embeds", json!(1000)),
            ("addition_embed_type", json!("text_time")),
            ("encoder_hid_dim_type", json!("text_proj")),
            ("resnet_time_scale_shift", json!("scale_shift")),
            ("resnet_skip_time_act", json!(true)),
            ("resnet_out_scale_factor", json!(0.7)),
            ("mid_block_scale_factor", json!(1.4)),
            ("time_embedding_type", json!("fourier")),
            ("time_embedding_dim", json!(512)),
            ("time_embedding_act_fn", json!("silu")),
            ("timestep_post_act", json!("silu")),
            ("conv_in_kernel", json!(5)),
            ("conv_out_kernel", json!(1)),
            ("downsample_padding", json!(0)),
            ("attention_type", json!("gated")),
            ("cross_attention_norm", json!("layer_norm")),
            ("flip_sin_to_cos", json!(1)),
            ("freq_shift", json!(160)),
            ("a_setting_of_tomorrow", json!(3)),
        ];
        for (key, value) in cases {
            let error = parse(&with(key, value.clone())).expect_err(&format!("{key} {value}"));
            assert!(matches!(&error, crate::Error::Config { key: named, .. } if named == key), "{key} {value}: {error}");
            assert!(error.to_string().contains("unet/config.json"), "{error}");
        }
        assert!(parse(&with("a_setting_of_tomorrow", json!(false))).is_ok(), "switched off");
        assert!(parse(&with("optimization_step", json!(37000))).is_ok(), "state of a moving average");
        assert!(parse(&json!([1])).is_err());
    }
}
