//! Group norm (channels-last, optionally with SiLU) and layer norm. Statistics in f32, always in the same order.

mod cases;
mod cpu;
pub(crate) mod gpu;
#[cfg(test)]
mod tests;

pub use cases::{GroupCase, group_cases, layer_cases};

use crate::device::{Buffer, Cost, Device, Exec, Gpu, Tensor};
use crate::tensor::{DType, HostTensor};
use crate::{Error, Result};

/// Scale and shift of a normalisation.
#[derive(Debug)]
pub struct Norm {
    /// Groups of channels (1 for layer norm).
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    weight: Buffer,
    bias: Buffer,
}

/// The tensors of a layer norm that a linear layer applies to its input.
#[derive(Clone, Debug)]
pub struct LayerNorm<'a> {
    /// `[C]`
    pub weight: HostTensor<'a>,
    /// `[C]`
    pub bias: HostTensor<'a>,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// Takes weight and bias `[C]`, f32 on every device.
    ///
    /// # Errors
    /// If they have other shapes, or C is no multiple of `groups`.
    pub fn prepare(device: &Device, groups: usize, eps: f32, weight: HostTensor<'_>, bias: HostTensor<'_>) -> Result<Norm> {
        let channels = match (weight.shape.as_slice(), bias.shape.as_slice()) {
            (&[c], &[d]) if c == d && c > 0 => c,
            (w, b) => return Err(Error::shape("norm", format!("`{}` {w:?} and `{}` {b:?} are not [C]", weight.name, bias.name))),
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::shape("norm", format!("`{}`: {channels} channels in {groups} groups", weight.name)));
        }
        let [weight, bias] = [Buffer::of(device, &weight, DType::F32)?, Buffer::of(device, &bias, DType::F32)?];
        Ok(Norm { groups, eps, weight, bias })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.weight.shape().len()
    }
}

/// Group norm over `[B, H, W, C]`: y = (x - mean) / sqrt(variance + eps) weight + bias, mean and variance over the channels of a
/// group at all positions of a sample (Wu & He 2018). With `skip`, over the channels of both, whose concatenation is the result. `silu` applies x sigmoid(x) after.
/// Memory bounds it: the input is read twice, the result written once. On a GPU the input is read once where x and skip carry
/// [`crate::device::Statistics::Channels`].
///
/// # Errors
/// If x is empty, the channels are not those of the norm, or x and skip differ in anything but channels.
pub fn group_norm<'e>(
    exec: &'e Exec<'_>,
    norm: &Norm,
    x: &Tensor<'_>,
    skip: Option<&Tensor<'_>>,
    silu: bool,
) -> Result<Tensor<'e>> {
    const OP: &str = "group_norm";
    let &[batch, height, width, x_channels] = x.dims() else {
        return Err(Error::shape(OP, format!("{x:?} is not [B, H, W, C]")));
    };
    let mut channels = x_channels;
    if let Some(skip) = skip {
        if skip.dims()[..] != [batch, height, width, skip.shape().last()] {
            return Err(Error::shape(OP, format!("the skip connection {skip:?} does not go with {x:?}")));
        }
        channels += skip.shape().last();
    }
    if channels != norm.channels() || x.shape().is_empty() {
        return Err(Error::shape(OP, format!("{channels} channels of {x:?} for a norm of {}", norm.channels())));
    }
    let mut out = exec.alloc([batch, height, width, channels], exec.storage())?;
    let (elements, size) = (out.shape().len() as u64, out.dtype().size() as u64);
    let reads = if gpu::parts(norm, x, skip).is_some() { 1 } else { 2 };
    let (flops, bytes) = (elements * if silu { 10 } else { 6 }, (reads + 1) * size * elements);
    let cost = Cost { op: OP, shape: out.shape(), flops, bytes };
    match exec.device() {
        Device::Cpu(cpu) => {
            let chunks = cpu::chunks(height * width, channels);
            let mut sums = exec.alloc([batch, chunks, 2 * channels], DType::F32)?;
            let mut lines = exec.alloc([batch, 3 * channels], DType::F32)?;
            if exec.begin(cost) {
                let skip = skip.map_or(&[][..], |skip| skip.f32());
                let input = cpu::Input { x: x.f32(), skip, x_channels, channels, positions: height * width };
                cpu::group_norm(cpu, norm, input, silu, sums.f32_mut(), lines.f32_mut(), out.f32_mut());
            }
        }
        Device::Gpu(gpu) => {
            exec.begin(cost);
            gpu::group_norm(exec, gpu, norm, x, skip, silu, &mut out)?;
        }
    }
    Ok(out)
}

/// Layer norm over the last extent: the same formula with mean and variance over each row (Ba et al. 2016).
///
/// # Errors
/// If x is empty, its last extent is not that of the norm, or the norm has groups.
pub fn layer_norm<'e>(exec: &'e Exec<'_>, norm: &Norm, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    const OP: &str = "layer_norm";
    if x.shape().last() != norm.channels() || norm.groups != 1 || x.shape().is_empty() {
        return Err(Error::shape(OP, format!("{x:?} for a norm of {} channels in {} groups", norm.channels(), norm.groups)));
    }
    let mut out = exec.alloc(x.shape(), exec.storage())?;
    let (elements, size) = (out.shape().len() as u64, out.dtype().size() as u64);
    let running = exec.begin(Cost { op: OP, shape: out.shape(), flops: 6 * elements, bytes: 2 * size * elements });
    match exec.device() {
        Device::Cpu(cpu) if running => cpu::layer_norm(cpu, norm, x.f32(), out.f32_mut()),
        Device::Cpu(_) => {}
        Device::Gpu(gpu) => gpu::layer_norm(exec, gpu, norm, x, &mut out)?,
    }
    Ok(out)
}

/// Mean, and sum of squares about it, of each row of x: `[rows, 1, 2]`, on a GPU.
///
/// # Errors
/// If x has more rows or columns than the kernel counts to.
pub(crate) fn row_statistics<'e>(exec: &'e Exec<'_>, gpu: &Gpu, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    let (elements, size) = (x.shape().len() as u64, x.dtype().size() as u64);
    let mut out = exec.alloc([x.shape().rows(), 1, 2], DType::F32)?;
    exec.begin(Cost { op: "row_statistics", shape: x.shape(), flops: 4 * elements, bytes: size * elements });
    gpu::row_statistics(exec, gpu, x, &mut out)?;
    Ok(out)
}
