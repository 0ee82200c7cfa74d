//! Matrix products with fused epilogues: `y = act(x W^T + b) + residual`.
//!
//! x `[M, I]`, W `[O, I]`, y `[M, O]`; f32 in memory on a CPU, on a GPU the storage type, but for the bias. 2 M O I floating-point operations; M I + O I + M O elements read or written once.

mod cases;
pub(crate) mod gpu;
mod layer;
pub(crate) mod tiling;

pub use crate::device::cpu::gemm::Activation;
pub use cases::{Case, cases};
pub(crate) use layer::{Packed, packed_layout};

use crate::device::cpu::gemm::{Epilogue, Input, Layout, Window};
use crate::device::{Cost, Device, Exec, Precision, Statistics, Tensor};
use crate::ops::norm::{LayerNorm, Norm, layer_norm, row_statistics};
use crate::tensor::{HostTensor, Shape};
use crate::{Error, Result};

/// A linear layer in the layout of the device.
#[derive(Debug)]
pub struct Linear {
    packed: Packed,
    norm: Option<Before>,
    statistics: Option<Statistics>,
}

/// The layer norm of a layer's input.
#[derive(Debug)]
enum Before {
    /// An operation of its own, on a CPU.
    Apart(Norm),
    /// Folded into the weights, with this added to the variance.
    Folded(f32),
}

impl Linear {
    /// Packs `parts`, weights `[O_i, I]` with optional biases `[O_i]`, stacked along the output: one part for a plain layer, three for QKV.
    /// Declared-only tensors (no bytes) give a layer that can be recorded but not run.
    ///
    /// # Errors
    /// If a weight or bias has another shape, or the device does not compute in `precision`.
    pub fn prepare(device: &Device, precision: Precision, parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)]) -> Result<Linear> {
        Linear::prepare_after(None, device, precision, parts)
    }

    /// As [`Linear::prepare`], of the layer norm of what is given to the layer.
    ///
    /// # Errors
    /// As [`Linear::prepare`], and if the norm is of another width.
    pub fn prepare_after(
        norm: Option<&LayerNorm<'_>>,
        device: &Device,
        precision: Precision,
        parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)],
    ) -> Result<Linear> {
        let Some((first, _)) = parts.first() else { return Err(Error::shape("linear", "a layer without parts")) };
        let (mut outputs, inputs) = (0, matrix(first)?.1);
        for (weight, _) in parts {
            let (rows, columns) = matrix(weight)?;
            if columns != inputs {
                return Err(Error::shape("linear", format!("{} has {columns} inputs, {} has {inputs}", weight.name, first.name)));
            }
            outputs += rows;
        }
        let layout = Layout { outputs, channels: inputs, taps: 1, gated: false, winograd: false };
        Linear::pack(norm, device, precision, layout, parts)
    }

    /// Packs a GEGLU projection: weight `[2 O, I]`, bias `[2 O]`, values first, then gates.
    ///
    /// # Errors
    /// As [`Linear::prepare`], and if the rows are odd in number.
    pub fn prepare_geglu(
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Linear> {
        Linear::prepare_geglu_after(None, device, precision, weight, bias)
    }

    /// As [`Linear::prepare_geglu`], of the layer norm of what is given to the layer.
    ///
    /// # Errors
    /// As [`Linear::prepare_geglu`], and if the norm is of another width.
    pub fn prepare_geglu_after(
        norm: Option<&LayerNorm<'_>>,
        device: &Device,
        precision: Precision,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Linear> {
        let (rows, channels) = matrix(&weight)?;
        if rows % 2 != 0 {
            return Err(Error::shape("linear", format!("{}: GEGLU needs an even number of rows, not {rows}", weight.name)));
        }
        let layout = Layout { outputs: rows / 2, channels, taps: 1, gated: true, winograd: false };
        Linear::pack(norm, device, precision, layout, &[(weight, bias)])
    }

    fn pack(
        norm: Option<&LayerNorm<'_>>,
        device: &Device,
        precision: Precision,
        layout: Layout,
        parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)],
    ) -> Result<Linear> {
        for tensor in norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]) {
            if tensor.shape != [layout.channels] {
                let message = format!("{}: expected [{}], found {:?}", tensor.name, layout.channels, tensor.shape);
                return Err(Error::shape("linear", message));
            }
        }
        let packed = Packed::new("linear", device, precision, layout, parts, norm)?;
        let before = |norm: &LayerNorm<'_>| match device {
            Device::Cpu(_) => Norm::prepare(device, 1, norm.eps, norm.weight.clone(), norm.bias.clone()).map(Before::Apart),
            Device::Gpu(_) => Ok(Before::Folded(norm.eps)),
        };
        Ok(Linear { packed, norm: norm.map(before).transpose()?, statistics: None })
    }

    /// The same layer, whose results carry statistics for the norm that reads them next, on a GPU and where they have whole parts.
    /// Only one of the GPU's tiles takes statistics of rows, so they also choose the tile: ask for them only where a norm reads them.
    ///
    /// # Panics
    /// If the layer was packed for GEGLU, whose kernels take none.
    pub fn with_statistics(self, kind: Statistics) -> Linear {
        assert!(!self.packed.layout().gated, "statistics of a layer packed for GEGLU");
        Linear { statistics: Some(kind), ..self }
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.packed.layout().channels
    }

    /// Width of the result (after GEGLU, if that is what it was packed for).
    pub fn outputs(&self) -> usize {
        self.packed.layout().outputs
    }
}

/// Extents of a weight `[O, I]` or, stored as a convolution, `[O, I, 1, 1]`.
fn matrix(weight: &HostTensor<'_>) -> Result<(usize, usize)> {
    match weight.shape[..] {
        [rows, columns] | [rows, columns, 1, 1] if rows > 0 && columns > 0 => Ok((rows, columns)),
        _ => Err(Error::shape("linear", format!("{}: expected [outputs, inputs], found {:?}", weight.name, weight.shape))),
    }
}

/// `act(x W^T + b) + residual`, or of the layer norm of x: x `[.., I]` -> `[.., O]`, same leading extents.
///
/// # Errors
/// If x is not `I` wide, the residual is not shaped as the result, or GEGLU is asked of a layer not packed for it (or the reverse).
pub fn linear<'e>(
    exec: &'e Exec<'_>,
    layer: &Linear,
    x: &Tensor<'_>,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
) -> Result<Tensor<'e>> {
    let layout = layer.packed.layout();
    if x.shape().last() != layout.channels {
        return Err(Error::shape(
            "linear",
            format!("the layer takes {} channels, the input is {:?}", layout.channels, x.shape()),
        ));
    }
    if layout.gated != (activation == Activation::Geglu) {
        let packed = if layout.gated { "for GEGLU" } else { "without gates" };
        return Err(Error::shape("linear", format!("{activation:?} of a layer packed {packed}")));
    }
    let mut dims = [1; 4];
    let rank = x.dims().len();
    dims[..rank].copy_from_slice(x.dims());
    dims[rank - 1] = layout.outputs;
    let shape = Shape::new(&dims[..rank]);
    if let Some(r) = residual.filter(|r| r.shape() != shape) {
        return Err(Error::shape("linear", format!("the residual is {:?}, the result {shape:?}", r.shape())));
    }
    // What the norm needs, before the product is announced: on a CPU its result, on a GPU statistics.
    let (normed, rows) = match (&layer.norm, exec.device()) {
        (Some(Before::Apart(norm)), _) => (Some(layer_norm(exec, norm, x)?), None),
        (Some(Before::Folded(eps)), Device::Gpu(gpu)) => {
            let rows = match x.statistics(Statistics::Rows) {
                Some(rows) => rows,
                None => row_statistics(exec, gpu, x)?,
            };
            (None, Some(gpu::RowNorm { rows, eps: *eps }))
        }
        _ => (None, None),
    };
    let x = normed.as_ref().unwrap_or(x);
    let mut out = exec.alloc(shape, exec.storage())?;
    let elements = x.shape().len() + shape.len() + residual.map_or(0, |r| r.shape().len());
    let cost = Cost {
        op: "linear",
        shape,
        flops: 2 * (shape.rows() * layout.elements()) as u64,
        bytes: (out.dtype().size() * elements) as u64 + layer.packed.bytes(),
    };
    let running = exec.begin(cost);
    match exec.device() {
        Device::Cpu(cpu) if running => {
            let (channels, width) = (layout.channels, shape.rows());
            let input = Input { x: x.f32(), channels, skip: None, batch: 1, height: 1, width, upsample: None };
            let epilogue = Epilogue { channel_bias: None, activation, residual: residual.map(|r| r.f32()) };
            layer.packed.apply(cpu, &input, Window::POINT, epilogue, out.f32_mut())?;
        }
        Device::Cpu(_) => {}
        Device::Gpu(gpu) => gpu::linear(exec, gpu, layer, x, rows.as_ref(), activation, residual, &mut out)?,
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
