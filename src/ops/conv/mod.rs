//! 2-D convolution, channels-last, as an implicit matrix product: no column buffer.

use crate::Result;
use crate::device::{Device, Exec, Precision, Tensor};
use crate::weights::HostTensor;

/// Where zeros are added for a 3x3 kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// One on each side for 3x3, none for 1x1.
    #[default]
    Same,
    /// One at the bottom and right only: the down-sampler of the VAE encoder.
    BottomRight,
}

/// A convolution in the layout of the device: kernel 1x1 or 3x3.
#[derive(Debug)]
pub struct Conv2d {
    /// 1 or 2.
    pub stride: usize,
    /// Placement of the zeros.
    pub padding: Padding,
}

impl Conv2d {
    /// Packs a weight `[O, I, k, k]` and a bias `[O]`.
    pub fn prepare(
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        stride: usize,
        padding: Padding,
    ) -> Result<Conv2d> {
        let _ = (device, precision, weight, bias);
        Ok(Conv2d { stride, padding })
    }
}

/// What is fused around a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'t, 'e> {
    /// A second input whose channels follow the first's: a skip connection, read in place. Same `[B, H, W]`.
    pub skip: Option<&'t Tensor<'e>>,
    /// Double the input by nearest neighbour first.
    pub upsample: bool,
    /// Added to every position: `[O]`, the time embedding.
    pub channel_bias: Option<&'t Tensor<'e>>,
    /// Added to the result: same shape.
    pub residual: Option<&'t Tensor<'e>>,
}

/// x `[B, H, W, I]` -> `[B, H', W', O]`.
pub fn conv2d<'e>(exec: &'e Exec<'_>, layer: &Conv2d, x: &Tensor<'_>, fused: Fused<'_, '_>) -> Result<Tensor<'e>> {
    let _ = (exec, layer, x, fused);
    unimplemented!()
}
