//! Text keys and values of all cross-attentions: constant over the steps, computed once for each prompt.

use super::Unet;
use crate::Result;
use crate::device::{Buffer, Device, Exec, Tensor};
use crate::network::Build;
use crate::ops::gemm::{Activation, Linear, linear};

/// Keys and values of a set of prompts, for one network: for each cross-attention `[P, T, 2 C]`, keys first.
#[derive(Debug)]
pub struct TextState {
    keys_values: Vec<Buffer>,
    prompts: usize,
    length: usize,
}

impl TextState {
    /// Room for `prompts` prompts of `length` tokens.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if there is not that much memory.
    pub fn zeros(device: &Device, unet: &Unet, prompts: usize, length: usize) -> Result<TextState> {
        let buffer = |&width: &usize| Buffer::try_zeros(device, [prompts, length, width], device.storage());
        Ok(TextState { keys_values: unet.text.widths.iter().map(buffer).collect::<Result<_>>()?, prompts, length })
    }

    /// Number of prompts there is room for.
    pub fn prompts(&self) -> usize {
        self.prompts
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.keys_values.iter().map(Buffer::bytes).sum()
    }

    /// Keys and values of cross-attention number `index`.
    pub(super) fn keys_values(&self, index: usize) -> &Buffer {
        &self.keys_values[index]
    }
}

/// The key and value projections of all cross-attentions, in the order in which the network is built.
#[derive(Debug, Default)]
pub(super) struct TextProjections {
    layers: Vec<Linear>,
    /// Width of the result of each: twice the channels.
    widths: Vec<usize>,
}

impl TextProjections {
    /// Adds the cross-attention at `attention`; returns its number.
    pub fn add(&mut self, attention: &Build, context: usize, channels: usize) -> Result<usize> {
        // f32 always: made once for each prompt, read at every step.
        self.layers.push(attention.exact().stacked(["to_k", "to_v"], context, channels, false)?);
        self.widths.push(2 * channels);
        Ok(self.layers.len() - 1)
    }

    /// hidden `[P, T, context]` -> rows `row..row + P` of `out`.
    pub fn forward(&self, exec: &Exec<'_>, hidden: &Tensor<'_>, row: usize, out: &mut TextState) -> Result<()> {
        let &[prompts, length, _] = hidden.dims() else { return Err(super::wrong_text(hidden, out.length)) };
        if length != out.length || row + prompts > out.prompts {
            return Err(super::wrong_text(hidden, out.length));
        }
        for (layer, buffer) in self.layers.iter().zip(&mut out.keys_values) {
            let result = linear(exec, layer, hidden, Activation::None, None)?;
            let size = result.shape().len() / prompts;
            result.store_at(buffer, row * size)?;
        }
        Ok(())
    }
}
