//! The sinusoidal embedding of timesteps.

use super::produce;
use crate::device::{Cpu, Exec, Tensor};
use crate::{Error, Result};

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
    let compute = |out: &mut [f32]| {
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
    };
    // A few thousand numbers, once before the loop: made on the host for a GPU too.
    let shape = [timesteps.len(), dim].into();
    let on_cpu = |_: &Cpu, out: &mut [f32]| compute(out);
    produce(exec, OP, shape, 4, timesteps.len(), on_cpu, |_, out| {
        let mut values = vec![0.0; timesteps.len() * dim];
        compute(&mut values);
        out.write_f32(&values)
    })
}
