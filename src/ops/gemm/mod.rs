//! Matrix products with fused epilogues: `y = act(x W^T + b) + residual`.

use crate::Result;
use crate::device::{Buffer, Device, Exec, Precision, Tensor};
use crate::weights::HostTensor;

/// Function applied to the product before the residual is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// y = x
    #[default]
    None,
    /// y = x/2 (1 + erf(x / sqrt 2)), the exact form.
    Gelu,
    /// y = x sigmoid(1.702 x), OpenAI CLIP's.
    QuickGelu,
    /// y = x sigmoid(x)
    Silu,
    /// y = value * gelu(gate) on a weight of twice the output width: value rows, then gate rows (diffusers' GEGLU).
    Geglu,
}

/// A linear layer in the layout of the device.
#[derive(Debug)]
pub struct Linear {
    bias: Option<Buffer>,
}

impl Linear {
    /// Packs `parts`, weights `[O_i, I]` with optional biases `[O_i]`, stacked along the output: one part for a plain layer, three for QKV.
    /// Declared-only tensors (no bytes) give a layer that can be recorded but not run.
    pub fn prepare(device: &Device, precision: Precision, parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)]) -> Result<Linear> {
        let _ = (device, precision, parts);
        Ok(Linear { bias: None })
    }

    /// Packs a GEGLU projection: weight `[2 O, I]`, bias `[2 O]`, values first, then gates.
    pub fn prepare_geglu(
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Linear> {
        let _ = (device, precision, weight, bias);
        Ok(Linear { bias: None })
    }

    /// Width of the result (after GEGLU, if that is what it was packed for).
    pub fn outputs(&self) -> usize {
        self.bias.as_ref().map_or(0, |b| b.shape().len())
    }
}

/// `act(x W^T + b) + residual`: x `[.., I]` -> `[.., O]`, same leading extents.
pub fn linear<'e>(
    exec: &'e Exec<'_>,
    layer: &Linear,
    x: &Tensor<'_>,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
) -> Result<Tensor<'e>> {
    let _ = (exec, layer, x, activation, residual);
    unimplemented!()
}
