//! 2-D convolution, channels-last, as an implicit matrix product: no column buffer.
//!
//! `y[b, i, j, o] = sum over u, v, c of x[b, s i + u - p, s j + v - p, c] W[o, c, u, v] + bias[o]` with stride s, p zeros above and
//! to the left. 2 O I k^2 floating-point operations for each position of the result.

mod cases;
pub(crate) mod gpu;

pub use cases::{Case, cases};

use crate::device::cpu::gemm::{Activation, Epilogue, Input, Layout, Window};
use crate::device::{Cost, Cpu, Device, Exec, Precision, Statistics, Tensor};
use crate::ops::gemm::Packed;
use crate::tensor::{HostTensor, Shape};
use crate::{Error, Result};

/// Where zeros are added for a 3x3 kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// One on each side for 3x3, none for 1x1.
    #[default]
    Same,
    /// One at the bottom and right only: the down-sampler of the VAE encoder.
    BottomRight,
}

/// How a convolution is computed. Same result up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Every tap of every position.
    Direct,
    /// F(2x2, 3x3): 16 products where the direct sum has 36, weights of 16/9 of the size. f32 and 3x3 kernels of stride 1 only.
    Winograd,
}

impl Algorithm {
    /// What [`Conv2d::prepare`] uses for a weight of `shape`: a function of the layer alone, so that no bit depends on the batch.
    ///
    /// Winograd's algorithm where it is faster by half or more and few weights grow: in Stable Diffusion the two outer levels of the U-Net
    /// and the autoencoder. The inner levels hold most of the weights, and their images are small.
    pub fn choose(precision: Precision, shape: &[usize], stride: usize) -> Algorithm {
        match *shape {
            [outputs, channels, size, _]
                if Algorithm::winograd_computes(precision, size, stride) && (64..=640).contains(&outputs) && channels >= 64 =>
            {
                Algorithm::Winograd
            }
            _ => Algorithm::Direct,
        }
    }

    fn winograd_computes(precision: Precision, size: usize, stride: usize) -> bool {
        precision == Precision::F32 && size == 3 && stride == 1
    }
}

/// A convolution in the layout of the device: kernel 1x1 or 3x3.
#[derive(Debug)]
pub struct Conv2d {
    /// 1 or 2.
    pub stride: usize,
    /// Placement of the zeros.
    pub padding: Padding,
    packed: Packed,
    statistics: Option<Statistics>,
}

impl Conv2d {
    /// Packs a weight `[O, I, k, k]` and a bias `[O]`.
    /// Declared-only tensors (no bytes) give a layer that can be recorded but not run.
    ///
    /// # Errors
    /// If the kernel is not 1x1 or 3x3, the stride not 1 or 2, or the bias does not fit.
    pub fn prepare(
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        stride: usize,
        padding: Padding,
    ) -> Result<Conv2d> {
        let algorithm = match device {
            Device::Cpu(_) => Algorithm::choose(precision, &weight.shape, stride),
            Device::Gpu(_) => Algorithm::Direct,
        };
        Conv2d::prepare_as(algorithm, device, precision, weight, bias, stride, padding)
    }

    /// As [`Conv2d::prepare`], with an algorithm of the caller's choice.
    ///
    /// # Errors
    /// As [`Conv2d::prepare`]; if the algorithm does not compute this convolution.
    pub fn prepare_as(
        algorithm: Algorithm,
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        stride: usize,
        padding: Padding,
    ) -> Result<Conv2d> {
        let (outputs, channels, size) = match weight.shape[..] {
            [o, i, 1, 1] if o > 0 && i > 0 => (o, i, 1),
            [o, i, 3, 3] if o > 0 && i > 0 => (o, i, 3),
            _ => {
                let message = format!("{}: expected [O, I, 1, 1] or [O, I, 3, 3], found {:?}", weight.name, weight.shape);
                return Err(Error::shape("conv2d", message));
            }
        };
        if !(1..=2).contains(&stride) {
            return Err(Error::shape("conv2d", format!("{}: stride {stride}; 1 and 2 are supported", weight.name)));
        }
        if algorithm == Algorithm::Winograd && !Algorithm::winograd_computes(precision, size, stride) {
            let message = format!("{}: Winograd's algorithm is for f32 and 3x3 kernels of stride 1", weight.name);
            return Err(Error::shape("conv2d", message));
        }
        if let (Algorithm::Winograd, Device::Gpu(_)) = (algorithm, device) {
            return Err(Error::shape("conv2d", format!("{}: a GPU has no kernel of Winograd's algorithm", weight.name)));
        }
        let layout = Layout { outputs, channels, taps: size * size, gated: false, winograd: algorithm == Algorithm::Winograd };
        let packed = Packed::new("conv2d", device, precision, layout, &[(weight, bias)], None)?;
        Ok(Conv2d { stride, padding, packed, statistics: None })
    }

    /// The same layer, whose results carry statistics for the group norm that reads them next, on a GPU and where they have whole parts.
    pub fn with_statistics(self) -> Conv2d {
        Conv2d { statistics: Some(Statistics::Channels), ..self }
    }

    /// Channels of the input, both tensors together if there is a skip connection.
    pub fn inputs(&self) -> usize {
        self.packed.layout().channels
    }

    /// Channels of the result.
    pub fn outputs(&self) -> usize {
        self.packed.layout().outputs
    }

    fn window(&self) -> Window {
        let size = if self.packed.layout().taps == 1 { 1 } else { 3 };
        let (before, after) = match (size, self.padding) {
            (1, _) => (0, 0),
            (_, Padding::Same) => (1, 1),
            (_, Padding::BottomRight) => (0, 1),
        };
        Window { size, stride: self.stride, before, after }
    }
}

/// What is fused around a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused<'t, 'e> {
    /// A second input whose channels follow the first's: a skip connection, read in place. Same `[B, H, W]`.
    pub skip: Option<&'t Tensor<'e>>,
    /// Enlarge the input by nearest neighbour first, to this height and width: twice its own, or one less.
    pub upsample: Option<[usize; 2]>,
    /// Added to every position: `[O]`, the time embedding.
    pub channel_bias: Option<&'t Tensor<'e>>,
    /// Added to the result: same shape.
    pub residual: Option<&'t Tensor<'e>>,
}

/// x `[B, H, W, I]` -> `[B, H', W', O]`.
///
/// # Errors
/// If a shape does not fit.
pub fn conv2d<'e>(exec: &'e Exec<'_>, layer: &Conv2d, x: &Tensor<'_>, fused: Fused<'_, '_>) -> Result<Tensor<'e>> {
    let shape = result_shape(layer, x, &fused)?;
    let layout = layer.packed.layout();
    let mut out = exec.alloc(shape, exec.storage())?;
    let read = |t: Option<&Tensor<'_>>| t.map_or(0, |t| t.shape().len());
    let elements = x.shape().len() + shape.len() + read(fused.skip) + read(fused.channel_bias) + read(fused.residual);
    let cost = Cost {
        op: "conv2d",
        shape,
        flops: 2 * (shape.rows() * layout.elements()) as u64,
        bytes: (out.dtype().size() * elements) as u64 + layer.packed.bytes(),
    };
    let running = exec.begin(cost);
    match exec.device() {
        Device::Cpu(cpu) if running => on_cpu(cpu, layer, x, fused, &mut out)?,
        Device::Cpu(_) => {}
        Device::Gpu(gpu) => gpu::conv2d(exec, gpu, layer, x, fused, &mut out)?,
    }
    Ok(out)
}

fn on_cpu(cpu: &Cpu, layer: &Conv2d, x: &Tensor<'_>, fused: Fused<'_, '_>, out: &mut Tensor<'_>) -> Result<()> {
    let &[batch, height, width, channels] = x.dims() else { return Ok(()) };
    let input = Input {
        x: x.f32(),
        channels,
        skip: fused.skip.map(|s| (s.f32(), s.shape().last())),
        batch,
        height,
        width,
        upsample: fused.upsample,
    };
    let epilogue = Epilogue {
        channel_bias: fused.channel_bias.map(|t| t.f32()),
        activation: Activation::None,
        residual: fused.residual.map(|t| t.f32()),
    };
    layer.packed.apply(cpu, &input, layer.window(), epilogue, out.f32_mut())
}

/// Checks that everything fits and returns the shape of the result.
fn result_shape(layer: &Conv2d, x: &Tensor<'_>, fused: &Fused<'_, '_>) -> Result<Shape> {
    let fail = |message: String| Err(Error::shape("conv2d", message));
    let (layout, window) = (layer.packed.layout(), layer.window());
    let &[batch, height, width, channels] = x.dims() else {
        return fail(format!("expected [B, H, W, C], found {:?}", x.shape()));
    };
    let mut total = channels;
    if let Some(skip) = fused.skip {
        if skip.dims().len() != 4 || skip.dims()[..3] != x.dims()[..3] {
            return fail(format!("the skip connection is {:?}, the input {:?}", skip.shape(), x.shape()));
        }
        total += skip.shape().last();
    }
    if total != layout.channels {
        return fail(format!("the layer takes {} channels, the input has {total}", layout.channels));
    }
    let [tall, wide] = fused.upsample.unwrap_or([height, width]);
    if fused.upsample.is_some() && (tall.div_ceil(2), wide.div_ceil(2)) != (height, width) {
        return fail(format!("{height} x {width} cannot be enlarged to {tall} x {wide}: twice that or one less"));
    }
    let (Some(rows), Some(columns)) = (window.positions(tall), window.positions(wide)) else {
        return fail(format!("an image of {tall} x {wide} is smaller than the kernel"));
    };
    let shape = Shape::from([batch, rows, columns, layout.outputs]);
    if let Some(bias) = fused.channel_bias.filter(|b| b.shape().len() != layout.outputs) {
        return fail(format!("the channel bias is {:?}, the result has {} channels", bias.shape(), layout.outputs));
    }
    if let Some(residual) = fused.residual.filter(|r| r.shape() != shape) {
        return fail(format!("the residual is {:?}, the result {shape:?}", residual.shape()));
    }
    Ok(shape)
}

#[cfg(test)]
mod tests;
