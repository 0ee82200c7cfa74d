//! The residual block of the denoising network and of the autoencoder (diffusers' `ResnetBlock2D`).

use crate::Result;
use crate::device::{Exec, Tensor};
use crate::network::Build;
use crate::ops::conv::{Conv2d, Fused, conv2d};
use crate::ops::norm::{Norm, group_norm};

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + bias)))`, where x may be two tensors side by side and the bias is
/// the block's projection of the time embedding.
#[derive(Debug)]
pub(super) struct ResnetBlock {
    norm1: Norm,
    conv1: Conv2d,
    norm2: Norm,
    conv2: Conv2d,
    /// 1x1, where the width changes.
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub fn new(build: &Build, inputs: usize, outputs: usize, groups: usize, eps: f32) -> Result<ResnetBlock> {
        Ok(ResnetBlock {
            norm1: build.norm("norm1", inputs, groups, eps)?,
            conv1: build.conv("conv1", inputs, outputs, 3)?.with_statistics(),
            norm2: build.norm("norm2", outputs, groups, eps)?,
            conv2: build.conv("conv2", outputs, outputs, 3)?.with_statistics(),
            shortcut: (inputs != outputs).then(|| build.conv("conv_shortcut", inputs, outputs, 1)).transpose()?,
        })
    }

    /// x `[B, H, W, I]`, skip `[B, H, W, J]` with I + J inputs, bias `[O]` -> `[B, H, W, O]`.
    pub fn forward<'e>(
        &self,
        exec: &'e Exec<'_>,
        x: &Tensor<'_>,
        skip: Option<&Tensor<'_>>,
        bias: Option<&Tensor<'_>>,
    ) -> Result<Tensor<'e>> {
        // Assigned and not shadowed, so that each tensor is freed as soon as the next one exists.
        let mut h = group_norm(exec, &self.norm1, x, skip, true)?;
        h = conv2d(exec, &self.conv1, &h, Fused { channel_bias: bias, ..Fused::default() })?;
        h = group_norm(exec, &self.norm2, &h, None, true)?;
        let shortcut = match &self.shortcut {
            Some(conv) => Some(conv2d(exec, conv, x, Fused { skip, ..Fused::default() })?),
            None => None,
        };
        let residual = shortcut.as_ref().unwrap_or(x);
        conv2d(exec, &self.conv2, &h, Fused { residual: Some(residual), ..Fused::default() })
    }
}
