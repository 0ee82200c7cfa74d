//! Operations on single elements and whole samples.

use crate::device::{Cost, Device, Exec, Tensor};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// A new tensor of `shape`, announced as `op`, and its values if the pass is running. `reads` counts the elements read.
fn produce<'e>(
    exec: &'e Exec<'_>,
    op: &'static str,
    shape: Shape,
    flops: usize,
    reads: usize,
    compute: impl FnOnce(&Device, &mut [f32]),
) -> Result<Tensor<'e>> {
    let mut out = exec.alloc(shape, DType::F32)?;
    let cost = Cost { op, shape, flops: (flops * shape.len()) as u64, bytes: (4 * (reads + shape.len())) as u64 };
    if let Some(device) = exec.launch(cost) {
        compute(device, out.f32_mut());
    }
    Ok(out)
}

/// x sigmoid(x), in a new tensor.
pub fn silu<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    produce(exec, "silu", x.shape(), 4, x.shape().len(), |_, out| {
        out.iter_mut().zip(x.f32()).for_each(|(o, &x)| *o = x / (1.0 + (-x).exp()));
    })
}

/// x + y, same shapes.
pub fn add<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, y: &Tensor<'_>) -> Result<Tensor<'e>> {
    if x.shape() != y.shape() {
        return Err(Error::shape("add", format!("{x:?} and {y:?}")));
    }
    produce(exec, "add", x.shape(), 1, 2 * x.shape().len(), |_, out| {
        out.iter_mut().zip(x.f32()).zip(y.f32()).for_each(|((o, x), y)| *o = x + y);
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

/// The shape of `x` with another first extent.
fn with_batch(x: &Tensor<'_>, batch: usize) -> Shape {
    let mut dims = [1; 4];
    let rank = x.dims().len();
    dims[..rank].copy_from_slice(x.dims());
    dims[0] = batch;
    Shape::new(&dims[..rank])
}

/// Sinusoidal embedding of `timesteps` -> `[N, dim]`; `flip` puts cosines first, `shift` is the frequency shift (diffusers' `get_timestep_embedding`).
///
/// With h = dim / 2, angle i of timestep t is `t exp(-ln(10000) i / (h - shift))`; an odd last channel is zero. Every step is
/// rounded to f32, as there.
pub fn timestep_embedding<'e>(exec: &'e Exec<'_>, timesteps: &[f32], dim: usize, flip: bool, shift: f32) -> Result<Tensor<'e>> {
    const OP: &str = "timestep_embedding";
    let half = dim / 2;
    if timesteps.is_empty() || half == 0 || half as f32 <= shift {
        return Err(Error::shape(OP, format!("{} timesteps, {dim} channels, shift {shift}", timesteps.len())));
    }
    produce(exec, OP, [timesteps.len(), dim].into(), 4, timesteps.len(), |_, out| {
        let (sine, cosine) = if flip { (half, 0) } else { (0, half) };
        for (out, &t) in out.chunks_exact_mut(dim).zip(timesteps) {
            out.fill(0.0);
            for i in 0..half {
                let exponent = -10000f64.ln() as f32 * i as f32 / (half as f32 - shift);
                let angle = t * f64::from(exponent).exp() as f32;
                out[sine + i] = f64::from(angle).sin() as f32;
                out[cosine + i] = f64::from(angle).cos() as f32;
            }
        }
    })
}

/// Classifier-free guidance on a batch `[2 B, ..]`, unconditional half first: `u + scale (c - u)` -> `[B, ..]`.
pub fn guidance<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, scale: f32) -> Result<Tensor<'e>> {
    if !x.dims()[0].is_multiple_of(2) || x.shape().is_empty() {
        return Err(Error::shape("guidance", format!("{x:?} is not two halves")));
    }
    produce(exec, "guidance", with_batch(x, x.dims()[0] / 2), 3, x.shape().len(), |_, out| {
        let (unconditional, conditional) = x.f32().split_at(out.len());
        out.iter_mut().zip(unconditional).zip(conditional).for_each(|((o, u), c)| *o = u + scale * (c - u));
    })
}

/// x * factor.
pub fn scale<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, factor: f32) -> Result<Tensor<'e>> {
    produce(exec, "scale", x.shape(), 1, x.shape().len(), |_, out| {
        out.iter_mut().zip(x.f32()).for_each(|(o, x)| *o = x * factor);
    })
}
