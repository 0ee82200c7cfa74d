//! Operations on single elements and whole samples.

mod cases;
mod cpu;
pub(crate) mod gpu;
#[cfg(test)]
mod tests;
mod timestep;

pub use cases::cases;
pub use timestep::timestep_embedding;

use super::embed;
use crate::device::{Cost, Cpu, Device, Exec, Gpu, Tensor};
use crate::tensor::Shape;
use crate::{Error, Result};

/// A new tensor of `shape`, announced as `op`, and its values if the pass is running. `reads` counts the elements read.
fn produce<'e>(
    exec: &'e Exec<'_>,
    op: &'static str,
    shape: Shape,
    flops: usize,
    reads: usize,
    on_cpu: impl FnOnce(&Cpu, &mut [f32]),
    on_gpu: impl FnOnce(&Gpu, &mut Tensor<'e>) -> Result<()>,
) -> Result<Tensor<'e>> {
    let mut out = exec.alloc(shape, exec.storage())?;
    let bytes = out.dtype().size() * (reads + shape.len());
    let running = exec.begin(Cost { op, shape, flops: (flops * shape.len()) as u64, bytes: bytes as u64 });
    match exec.device() {
        Device::Cpu(cpu) if running => on_cpu(cpu, out.f32_mut()),
        Device::Cpu(_) => {}
        Device::Gpu(gpu) => on_gpu(gpu, &mut out)?,
    }
    Ok(out)
}

/// x sigmoid(x), in a new tensor.
pub fn silu<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    let on_cpu = |cpu: &Cpu, out: &mut [f32]| cpu::map(cpu, cpu::Silu, [x.f32()], out);
    produce(exec, "silu", x.shape(), 4, x.shape().len(), on_cpu, |gpu, out| gpu::silu(exec, gpu, x, out))
}

/// x + y.
///
/// # Errors
/// If their shapes differ.
pub fn add<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, y: &Tensor<'_>) -> Result<Tensor<'e>> {
    if x.shape() != y.shape() {
        return Err(Error::shape("add", format!("{x:?} and {y:?}")));
    }
    let on_cpu = |cpu: &Cpu, out: &mut [f32]| cpu::map(cpu, cpu::Add, [x.f32(), y.f32()], out);
    produce(exec, "add", x.shape(), 1, 2 * x.shape().len(), on_cpu, |gpu, out| gpu::add(exec, gpu, x, y, out))
}

/// The whole batch, `times` over: `[B, ..]` -> `[times * B, ..]`.
///
/// # Errors
/// If x is empty, or `times` zero.
pub fn repeat_batch<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, times: usize) -> Result<Tensor<'e>> {
    if times == 0 || x.shape().is_empty() {
        return Err(Error::shape("repeat_batch", format!("{x:?}, {times} times")));
    }
    let len = x.shape().len();
    let on_cpu = |_: &Cpu, out: &mut [f32]| out.chunks_exact_mut(len).for_each(|o| o.copy_from_slice(x.f32()));
    let mut out = produce(exec, "repeat_batch", with_batch(x, times * x.dims()[0]), 0, len, on_cpu, |_, out| {
        (0..times).try_for_each(|i| out.copy_part(i * len, x, 0, len))
    })?;
    if let Some((kind, statistics)) = x.attached_statistics() {
        let (of_x, len) = (statistics.shape(), statistics.shape().len());
        let mut repeated = exec.alloc(with_batch(&statistics, times * of_x.dims()[0]), statistics.dtype())?;
        (0..times).try_for_each(|i| repeated.copy_part(i * len, &statistics, 0, len))?;
        out.attach(kind, repeated);
    }
    Ok(out)
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
    let start = |b: usize| (b * length + position(b)) * width;
    let on_cpu = |_: &Cpu, out: &mut [f32]| {
        for (b, row) in out.chunks_exact_mut(width).enumerate() {
            row.copy_from_slice(&x.f32()[start(b)..][..width]);
        }
    };
    produce(exec, OP, Shape::from([batch, width]), 0, batch * width, on_cpu, |gpu, out| {
        embed::gpu::select(exec, gpu, &(0..batch).map(|b| position(b) as u32).collect::<Vec<_>>(), x, out)
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
///
/// # Errors
/// If the batch is odd or empty.
pub fn guidance<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, scale: f32) -> Result<Tensor<'e>> {
    if !x.dims()[0].is_multiple_of(2) || x.shape().is_empty() {
        return Err(Error::shape("guidance", format!("{x:?} is not two halves")));
    }
    let on_cpu = |cpu: &Cpu, out: &mut [f32]| {
        let (unconditional, conditional) = x.f32().split_at(out.len());
        cpu::map(cpu, cpu::Guide { scale }, [unconditional, conditional], out);
    };
    let shape = with_batch(x, x.dims()[0] / 2);
    produce(exec, "guidance", shape, 3, x.shape().len(), on_cpu, |gpu, out| gpu::guide(exec, gpu, scale, x, out))
}

/// x * factor.
pub fn scale<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, factor: f32) -> Result<Tensor<'e>> {
    let on_cpu = |cpu: &Cpu, out: &mut [f32]| cpu::map(cpu, cpu::Scale { factor }, [x.f32()], out);
    produce(exec, "scale", x.shape(), 1, x.shape().len(), on_cpu, |gpu, out| gpu::scale(exec, gpu, factor, x, out))
}
