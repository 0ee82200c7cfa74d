//! Operations on single elements and whole samples.

mod cpu;
mod pixels;
#[cfg(test)]
mod tests;
mod timestep;

pub use pixels::{all_finite, to_pixels};
pub use timestep::timestep_embedding;

use crate::device::{Cost, Cpu, Device, Exec, Tensor};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// A new tensor of `shape`, announced as `op`, and its values if the pass is running. `reads` counts the elements read.
fn produce<'e>(
    exec: &'e Exec<'_>,
    op: &'static str,
    shape: Shape,
    flops: usize,
    reads: usize,
    compute: impl FnOnce(&Cpu, &mut [f32]),
) -> Result<Tensor<'e>> {
    let mut out = exec.alloc(shape, DType::F32)?;
    let cost = Cost { op, shape, flops: (flops * shape.len()) as u64, bytes: (4 * (reads + shape.len())) as u64 };
    if let Some(Device::Cpu(cpu)) = exec.launch(cost) {
        compute(cpu, out.f32_mut());
    }
    Ok(out)
}

/// x sigmoid(x), in a new tensor.
pub fn silu<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    produce(exec, "silu", x.shape(), 4, x.shape().len(), |cpu, out| {
        cpu::map(cpu, cpu::Silu, [x.f32()], out);
    })
}

/// x + y, same shapes.
pub fn add<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, y: &Tensor<'_>) -> Result<Tensor<'e>> {
    if x.shape() != y.shape() {
        return Err(Error::shape("add", format!("{x:?} and {y:?}")));
    }
    produce(exec, "add", x.shape(), 1, 2 * x.shape().len(), |cpu, out| {
        cpu::map(cpu, cpu::Add, [x.f32(), y.f32()], out);
    })
}

/// The whole batch, `times` over: `[B, ..]` -> `[times * B, ..]`.
pub fn repeat_batch<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, times: usize) -> Result<Tensor<'e>> {
    if times == 0 || x.shape().is_empty() {
        return Err(Error::shape("repeat_batch", format!("{x:?}, {times} times")));
    }
    produce(exec, "repeat_batch", with_batch(x, times * x.dims()[0]), 0, x.shape().len(), |_, out| {
        out.chunks_exact_mut(x.shape().len()).for_each(|o| o.copy_from_slice(x.f32()));
    })
}

/// One position of each sample: x `[B, T, C]` -> `[B, C]`, of sample b position `position(b)`.
///
/// # Errors
/// If x is not `[B, T, C]`, or a position not one of its own.
pub fn select_positions<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, position: impl Fn(usize) -> usize) -> Result<Tensor<'e>> {
    const OP: &str = "select_positions";
    let &[batch, length, width] = x.dims() else { return Err(Error::shape(OP, format!("{x:?} is not [B, T, C]"))) };
    if let Some(b) = (0..batch).find(|&b| position(b) >= length) {
        return Err(Error::shape(OP, format!("position {} of sample {b} of {x:?}", position(b))));
    }
    produce(exec, OP, Shape::from([batch, width]), 0, batch * width, |_, out| {
        for (b, row) in out.chunks_exact_mut(width).enumerate() {
            row.copy_from_slice(&x.f32()[(b * length + position(b)) * width..][..width]);
        }
    })
}

/// The shape of `x` with another first extent.
fn with_batch(x: &Tensor<'_>, batch: usize) -> Shape {
    let mut dims = [1; 4];
    let rank = x.dims().len();
    dims[..rank].copy_from_slice(x.dims());
    dims[0] = batch;
    Shape::new(&dims[..rank])
}

/// Classifier-free guidance on a batch `[2 B, ..]`, unconditional half first: `u + scale (c - u)` -> `[B, ..]`.
pub fn guidance<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, scale: f32) -> Result<Tensor<'e>> {
    if !x.dims()[0].is_multiple_of(2) || x.shape().is_empty() {
        return Err(Error::shape("guidance", format!("{x:?} is not two halves")));
    }
    produce(exec, "guidance", with_batch(x, x.dims()[0] / 2), 3, x.shape().len(), |cpu, out| {
        let (unconditional, conditional) = x.f32().split_at(out.len());
        cpu::map(cpu, cpu::Guide { scale }, [unconditional, conditional], out);
    })
}

/// x * factor.
pub fn scale<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, factor: f32) -> Result<Tensor<'e>> {
    produce(exec, "scale", x.shape(), 1, x.shape().len(), |cpu, out| {
        cpu::map(cpu, cpu::Scale { factor }, [x.f32()], out);
    })
}
