//! Operations on single elements and whole samples.

use crate::Result;
use crate::device::{Exec, Tensor};

/// x sigmoid(x), in a new tensor.
pub fn silu<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>) -> Result<Tensor<'e>> {
    let _ = (exec, x);
    unimplemented!()
}

/// x + y, same shapes.
pub fn add<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, y: &Tensor<'_>) -> Result<Tensor<'e>> {
    let _ = (exec, x, y);
    unimplemented!()
}

/// The whole batch, `times` over: `[B, ..]` -> `[times * B, ..]`.
pub fn repeat_batch<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, times: usize) -> Result<Tensor<'e>> {
    let _ = (exec, x, times);
    unimplemented!()
}

/// Sinusoidal embedding of `timesteps` -> `[N, dim]`; `flip` puts cosines first, `shift` is the frequency shift (diffusers' `get_timestep_embedding`).
pub fn timestep_embedding<'e>(exec: &'e Exec<'_>, timesteps: &[f32], dim: usize, flip: bool, shift: f32) -> Result<Tensor<'e>> {
    let _ = (exec, timesteps, dim, flip, shift);
    unimplemented!()
}

/// Classifier-free guidance on a batch `[2 B, ..]`, unconditional half first: `u + scale (c - u)` -> `[B, ..]`.
pub fn guidance<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, scale: f32) -> Result<Tensor<'e>> {
    let _ = (exec, x, scale);
    unimplemented!()
}

/// x * factor.
pub fn scale<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, factor: f32) -> Result<Tensor<'e>> {
    let _ = (exec, x, factor);
    unimplemented!()
}
