//! The levels of the network: ResNet blocks, each with or without a transformer, and a change of resolution.

use super::pass::{Pass, Skips};
use super::text::TextProjections;
use super::time::{TimeProjections, TimeSlot};
use super::transformer::{Transformer, TransformerConfig};
use super::{LevelConfig, UnetConfig};
use crate::Result;
use crate::device::{Exec, Tensor};
use crate::diffusion::resnet::ResnetBlock;
use crate::network::Build;
use crate::ops::conv::{Conv2d, Fused, Padding, conv2d};
use std::fmt;

/// What the constructors of blocks share: the configuration, and the layers gathered from all of them.
pub(super) struct Gather<'c, 'a> {
    pub config: &'c UnetConfig,
    pub time: TimeProjections<'a>,
    pub text: TextProjections,
}

/// A ResNet block with its time bias.
#[derive(Debug)]
struct TimedResnet {
    block: ResnetBlock,
    time: TimeSlot,
}

impl TimedResnet {
    fn new<'a>(build: &Build<'_, 'a>, inputs: usize, outputs: usize, gather: &mut Gather<'_, 'a>) -> Result<TimedResnet> {
        let config = gather.config;
        let block = ResnetBlock::new(build, inputs, outputs, config.norm_groups, config.norm_eps)?;
        Ok(TimedResnet { block, time: gather.time.add(build, config.time_width(), outputs) })
    }

    fn forward<'e>(&self, exec: &'e Exec<'_>, pass: &Pass<'_>, x: &Tensor<'_>, skip: Option<&Tensor<'_>>) -> Result<Tensor<'e>> {
        self.block.forward(exec, x, skip, Some(&pass.bias(exec, self.time)))
    }
}

fn transformer(build: &Build, level: &LevelConfig, gather: &mut Gather) -> Result<Transformer> {
    let config = TransformerConfig {
        channels: level.channels,
        heads: level.heads,
        layers: level.transformer_layers,
        context: level.context,
        groups: gather.config.norm_groups,
        linear_projection: gather.config.linear_projection,
    };
    Transformer::new(build, config, &mut gather.text)
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
#[derive(Debug)]
pub(super) struct DownBlock {
    layers: Vec<(TimedResnet, Option<Transformer>)>,
    downsampler: Option<Conv2d>,
}

impl DownBlock {
    /// Level `i` of the way down, at `build`.
    pub fn new<'a>(build: &Build<'_, 'a>, i: usize, gather: &mut Gather<'_, 'a>) -> Result<DownBlock> {
        let levels = &gather.config.levels;
        let level = &levels[i];
        let mut layers = Vec::new();
        for j in 0..level.layers {
            let inputs = if j == 0 && i > 0 { levels[i - 1].channels } else { level.channels };
            let resnet = TimedResnet::new(&build.scope("resnets").scope(j), inputs, level.channels, gather)?;
            let place = build.scope("attentions").scope(j);
            let attention = level.down_attention.then(|| transformer(&place, level, gather)).transpose()?;
            layers.push((resnet, attention));
        }
        let (c, last) = (level.channels, i + 1 == levels.len());
        let downsampler = (!last).then(|| build.strided_conv("downsamplers.0.conv", c, c, 3, 2, Padding::Same)).transpose()?;
        Ok(DownBlock { layers, downsampler: downsampler.map(Conv2d::with_statistics) })
    }

    /// Takes the newest skip as input; its outputs are added to the skips. `name` is for observers.
    pub fn forward<'e>(
        &self,
        exec: &'e Exec<'_>,
        pass: &Pass<'_>,
        name: fmt::Arguments<'_>,
        skips: &mut Skips<'e>,
    ) -> Result<()> {
        for (j, (resnet, attention)) in self.layers.iter().enumerate() {
            let mut h = resnet.forward(exec, pass, skips.last()?, None)?;
            exec.observe(format_args!("{name}.resnets.{j}"), &h);
            if let Some(attention) = attention {
                h = attention.forward(exec, pass, format_args!("{name}.attentions.{j}"), &h)?;
                exec.observe(format_args!("{name}.attentions.{j}"), &h);
            }
            skips.push(exec, h)?;
        }
        if let Some(conv) = &self.downsampler {
            let h = conv2d(exec, conv, skips.last()?, Fused::default())?;
            exec.observe(format_args!("{name}.downsamplers.0"), &h);
            skips.push(exec, h)?;
        }
        Ok(())
    }
}

/// `UNetMidBlock2DCrossAttn`.
#[derive(Debug)]
pub(super) struct MidBlock {
    resnet0: TimedResnet,
    attention: Transformer,
    resnet1: TimedResnet,
}

impl MidBlock {
    pub fn new<'a>(build: &Build<'_, 'a>, level: &LevelConfig, gather: &mut Gather<'_, 'a>) -> Result<MidBlock> {
        let c = level.channels;
        Ok(MidBlock {
            resnet0: TimedResnet::new(&build.scope("resnets.0"), c, c, gather)?,
            attention: transformer(&build.scope("attentions.0"), level, gather)?,
            resnet1: TimedResnet::new(&build.scope("resnets.1"), c, c, gather)?,
        })
    }

    pub fn forward<'e>(&self, exec: &'e Exec<'_>, pass: &Pass<'_>, skips: &mut Skips<'e>) -> Result<Tensor<'e>> {
        let mut h = self.resnet0.forward(exec, pass, skips.last()?, None)?;
        exec.observe(format_args!("unet.mid_block.resnets.0"), &h);
        h = self.attention.forward(exec, pass, format_args!("unet.mid_block.attentions.0"), &h)?;
        exec.observe(format_args!("unet.mid_block.attentions.0"), &h);
        skips.match_batch(exec, h.dims()[0])?;
        h = self.resnet1.forward(exec, pass, &h, None)?;
        exec.observe(format_args!("unet.mid_block.resnets.1"), &h);
        Ok(h)
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<(TimedResnet, Option<Transformer>)>,
    upsampler: Option<Conv2d>,
}

impl UpBlock {
    /// The way up through level `i` (counted from the finest), at `build`.
    pub fn new<'a>(build: &Build<'_, 'a>, i: usize, gather: &mut Gather<'_, 'a>) -> Result<UpBlock> {
        let levels = &gather.config.levels;
        let level = &levels[i];
        let coarser = levels.get(i + 1).unwrap_or(level).channels;
        let finer = levels[i.saturating_sub(1)].channels;
        let mut layers = Vec::new();
        for j in 0..=level.layers {
            // The first block continues from the coarser level; the last skip is the first output of this level's way down.
            let below = if j == 0 { coarser } else { level.channels };
            let skip = if j == level.layers { finer } else { level.channels };
            let resnet = TimedResnet::new(&build.scope("resnets").scope(j), below + skip, level.channels, gather)?;
            let place = build.scope("attentions").scope(j);
            let attention = level.up_attention.then(|| transformer(&place, level, gather)).transpose()?;
            layers.push((resnet, attention));
        }
        let c = level.channels;
        let upsampler = (i > 0).then(|| build.conv("upsamplers.0.conv", c, c, 3)).transpose()?;
        Ok(UpBlock { layers, upsampler: upsampler.map(Conv2d::with_statistics) })
    }

    /// h `[B, H, W, I]` and the newest skips -> `[B, H', W', O]`, of the size of the next skip.
    pub fn forward<'e>(
        &self,
        exec: &'e Exec<'_>,
        pass: &Pass<'_>,
        name: fmt::Arguments<'_>,
        mut h: Tensor<'e>,
        skips: &mut Skips<'e>,
    ) -> Result<Tensor<'e>> {
        for (j, (resnet, attention)) in self.layers.iter().enumerate() {
            let skip = skips.pop()?;
            h = resnet.forward(exec, pass, &h, Some(&skip))?;
            drop(skip);
            exec.observe(format_args!("{name}.resnets.{j}"), &h);
            if let Some(attention) = attention {
                h = attention.forward(exec, pass, format_args!("{name}.attentions.{j}"), &h)?;
                exec.observe(format_args!("{name}.attentions.{j}"), &h);
            }
        }
        if let Some(conv) = &self.upsampler {
            let &[_, height, width, _] = skips.last()?.dims() else { return Err(super::not_an_image(&h)) };
            h = conv2d(exec, conv, &h, Fused { upsample: Some([height, width]), ..Fused::default() })?;
            exec.observe(format_args!("{name}.upsamplers.0"), &h);
        }
        Ok(h)
    }
}
