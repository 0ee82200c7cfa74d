//! What linear layers and convolutions hold: packed weights and a bias.

use crate::device::cpu::gemm::{Epilogue, Input, Layout, Weights, Window, product};
use crate::device::{Buffer, Cpu, Device, Exec, Precision};
use crate::ops::norm::LayerNorm;
use crate::tensor::{DType, HostTensor, PackedLayout};
use crate::{Error, Result};
use std::cell::LazyCell;

/// Weights in the layout of the device, with a bias; or only their extents, if the tensors were declared without data.
#[derive(Debug)]
pub(crate) struct Packed {
    layout: Layout,
    /// Type of a weight.
    dtype: DType,
    weights: Option<Held>,
}

#[derive(Debug)]
enum Held {
    Cpu(Weights),
    Gpu(Matrix),
}

/// What a GPU multiplies with.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// `[rows, taps, channels]`, in the storage type: a row for each column of the product. With gates they take turns, 8 rows of values,
    /// then the 8 of their gates, and rows of zeros fill the last turn.
    pub weight: Buffer,
    /// `[rows]`, f32.
    pub bias: Buffer,
    /// Sums of the rows of `weight` `[rows]`, f32, if a layer norm is folded into them.
    pub sums: Option<Buffer>,
}

/// A layer norm of the input, as weights take it in: `norm(x) W^T = factor (x V^T - mean sums(V)) + W b`, where the columns of V
/// are those of W times the weights of the norm, and b is its bias.
struct Fold {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Fold {
    fn new(norm: &LayerNorm<'_>) -> Fold {
        let values = |tensor: &HostTensor<'_>| {
            let mut values = vec![0.0; tensor.len()];
            tensor.copy_f32(0, &mut values);
            values
        };
        Fold { weight: values(&norm.weight), bias: values(&norm.bias) }
    }

    /// A row of V from one of W.
    fn scale(&self, row: &mut [f32]) {
        row.iter_mut().zip(&self.weight).for_each(|(w, scale)| *w *= scale);
    }

    /// The product of a row of W with b.
    fn shift(&self, row: &[f32]) -> f32 {
        row.iter().zip(&self.bias).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum::<f64>() as f32
    }

    /// The sum of a row of V, as `dtype` stores it, from one of W.
    fn sum(&self, dtype: DType, row: &mut [f32]) -> f32 {
        self.scale(row);
        row.iter().map(|&v| f64::from(dtype.round(v))).sum::<f64>() as f32
    }
}

/// Version of what is kept of weights for the next load: of the bytes of every buffer made by [`Matrix::pack`], [`Buffer::of`] and others that
/// [keep](HostTensor::keep) theirs. Count up when one of them makes other bytes of the same tensors under the same name; a test notices.
const LAYOUT: u32 = 1;

/// How weights are packed for a device; none where they are not kept: a CPU packs them by itself.
pub(crate) fn packed_layout(device: &Device) -> Option<PackedLayout> {
    let storage = matches!(device, Device::Gpu(gpu) if !gpu.is_predicted()).then(|| device.storage());
    storage.map(|storage| PackedLayout { version: LAYOUT, storage })
}

/// Rows of a turn of values or gates: columns of the kernels' `mma` tile.
const TURN: usize = 8;

impl Matrix {
    /// `read(i, row)` gives row i of the file, `[channels, taps]`. The buffers are kept under the name of `first`.
    fn pack(
        device: &Device,
        dtype: DType,
        layout: Layout,
        first: &HostTensor<'_>,
        bias: &LazyCell<Vec<f32>, impl FnOnce() -> Vec<f32>>,
        norm: Option<&LayerNorm<'_>>,
        read: impl Fn(usize, &mut [f32]),
    ) -> Result<Matrix> {
        let order = Matrix::order(layout);
        let name = |what: &str| {
            let (normed, gated) = (if norm.is_some() { "normed " } else { "" }, if layout.gated { "gated " } else { "" });
            format!("{normed}{gated}{what}")
        };
        let fold = LazyCell::new(|| norm.map(Fold::new));
        let mut row = vec![0.0; layout.channels * layout.taps];

        let shape = [order.len(), layout.taps, layout.channels];
        let weight = Buffer::from_rows(device, first.keep(&name("rows")), shape, dtype, |i, out| {
            let Some(place) = order[i] else { return out.fill(0.0) };
            read(place, &mut row);
            if let Some(fold) = &*fold {
                fold.scale(&mut row);
            }
            for (tap, out) in out.chunks_exact_mut(layout.channels).enumerate() {
                out.iter_mut().zip(row[tap..].iter().step_by(layout.taps)).for_each(|(out, &x)| *out = x);
            }
        })?;
        let bias = Buffer::from_rows(device, first.keep(&name("bias")), [order.len()], DType::F32, |i, out| {
            let Some(place) = order[i] else { return out.fill(0.0) };
            out[0] = bias[place];
            if let Some(fold) = &*fold {
                read(place, &mut row);
                out[0] += fold.shift(&row);
            }
        })?;
        let sum = |i: usize, out: &mut [f32]| match (order[i], &*fold) {
            (Some(place), Some(fold)) => {
                read(place, &mut row);
                out[0] = fold.sum(dtype, &mut row);
            }
            _ => out.fill(0.0),
        };
        let sums = || Buffer::from_rows(device, first.keep(&name("sums")), [order.len()], DType::F32, sum);
        Ok(Matrix { weight, bias, sums: norm.map(|_| sums()).transpose()? })
    }

    /// Rows of the file in the order of the kernels.
    fn order(layout: Layout) -> Vec<Option<usize>> {
        if !layout.gated {
            return (0..layout.outputs).map(Some).collect();
        }
        let turns = (0..layout.outputs).step_by(TURN).flat_map(|first| [(first, 0), (first, layout.outputs)]);
        turns.flat_map(|(first, part)| (first..first + TURN).map(move |i| (i < layout.outputs).then_some(part + i))).collect()
    }
}

impl Packed {
    /// Packs weights stacked along the output, and their biases (zero where there is none). A GPU folds `norm` into them.
    pub(crate) fn new(
        op: &'static str,
        device: &Device,
        precision: Precision,
        layout: Layout,
        parts: &[(HostTensor<'_>, Option<HostTensor<'_>>)],
        norm: Option<&LayerNorm<'_>>,
    ) -> Result<Packed> {
        let Some((first, _)) = parts.first() else { return Err(Error::shape(op, "a layer without parts")) };
        let row = layout.channels * layout.taps;
        for (weight, bias) in parts {
            let rows = weight.shape.first().copied().unwrap_or(0);
            if let Some(b) = bias.as_ref().filter(|b| b.shape != [rows]) {
                return Err(Error::shape(op, format!("{}: expected [{rows}], found {:?}", b.name, b.shape)));
            }
        }
        let tensors = parts.iter().flat_map(|(w, b)| [Some(w), b.as_ref()]).flatten();
        let declared =
            tensors.chain(norm.iter().flat_map(|norm| [&norm.weight, &norm.bias])).any(|tensor| tensor.bytes.is_none());
        let dtype = device.operands(precision);
        if declared && !device.is_predicted() {
            return Ok(Packed { layout, dtype, weights: None });
        }
        // Not read where a GPU is given what was kept.
        let bias = LazyCell::new(|| {
            let mut bias = vec![0.0; layout.columns()];
            let mut first = 0;
            for (weight, b) in parts {
                let rows = weight.shape[0];
                if let Some(b) = b {
                    b.copy_f32(0, &mut bias[first..first + rows]);
                }
                first += rows;
            }
            bias
        });
        let read = |mut output: usize, out: &mut [f32]| {
            for (weight, _) in parts {
                if output < weight.shape[0] {
                    return weight.copy_f32(output * row, out);
                }
                output -= weight.shape[0];
            }
        };
        let weights = match device {
            Device::Cpu(cpu) => Held::Cpu(Weights::pack(cpu, precision, layout, &bias, read)?),
            Device::Gpu(_) => Held::Gpu(Matrix::pack(device, dtype, layout, first, &bias, norm, read)?),
        };
        Ok(Packed { layout, dtype, weights: Some(weights) })
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Rows of what a GPU multiplies with: columns of the product, both parts of gated ones in whole turns.
    pub(crate) fn columns(&self) -> usize {
        if self.layout.gated { 2 * self.layout.outputs.next_multiple_of(TURN) } else { self.layout.outputs }
    }

    /// Bytes of the weights and the bias that a product reads, without padding.
    pub(crate) fn bytes(&self) -> u64 {
        (self.layout.elements() * self.dtype.size() + self.layout.columns() * 4) as u64
    }

    /// The product with the bias of the layer and whatever else `epilogue` holds.
    pub(crate) fn apply(
        &self,
        cpu: &Cpu,
        input: &Input<'_>,
        window: Window,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        match &self.weights {
            Some(Held::Cpu(weights)) => product(cpu, weights, input, window, &epilogue, out),
            Some(Held::Gpu(_)) => return Err(Error::Internal { op: "layer", message: "weights of a GPU on a CPU".into() }),
            None => return Err(declared()),
        }
        Ok(())
    }

    /// What a GPU multiplies with; none while a layer is recorded that was only declared.
    pub(crate) fn matrix(&self, exec: &Exec<'_>) -> Result<Option<&Matrix>> {
        match &self.weights {
            Some(Held::Gpu(matrix)) => Ok(Some(matrix)),
            Some(Held::Cpu(_)) => Err(Error::Internal { op: "layer", message: "weights of a CPU on a GPU".into() }),
            None if exec.is_running() => Err(declared()),
            None => Ok(None),
        }
    }
}

fn declared() -> Error {
    Error::Internal { op: "layer", message: "run with weights that were only declared".into() }
}
