//! Group norm (channels-last, optionally with SiLU) and layer norm. Statistics in f32, always in the same order.

use crate::Result;
use crate::device::{Device, Exec, Tensor};
use crate::weights::HostTensor;

/// Scale and shift of a normalisation.
#[derive(Debug)]
pub struct Norm {
    /// Groups of channels (1 for layer norm).
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// Takes weight and bias `[C]`.
    pub fn prepare(device: &Device, groups: usize, eps: f32, weight: HostTensor<'_>, bias: HostTensor<'_>) -> Result<Norm> {
        let _ = (device, weight, bias);
        Ok(Norm { groups, eps })
    }
}

/// Group norm over `[B, H, W, C]`; with `skip`, over the channels of both, whose concatenation is the result. `silu` applies x sigmoid(x) after.
pub fn group_norm<'e>(
    exec: &'e Exec<'_>,
    norm: &Norm,
    x: &Tensor<'_>,
    skip: Option<&Tensor<'_>>,
    silu: bool,
) -> Result<Tensor<'e>> {
    let _ = (exec, norm, x, skip, silu);
    unimplemented!()
}

/// Layer norm over the last extent.
pub fn layer_norm<'e>(exec: &'e Exec<'_>, norm: &Norm, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    let _ = (exec, norm, x);
    unimplemented!()
}
