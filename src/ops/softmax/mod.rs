//! The softmax of rows: `y = e^(scale x) / sum of e^(scale x)`.
//!
//! Each row relative to its largest value, so that nothing overflows. A row of which all is -inf, or that holds NaN or (scaled) +inf,
//! gives NaN, as PyTorch's does; single -inf give 0. 5 floating-point operations an element, which is read and written once.

mod cpu;
pub(crate) mod gpu;
#[cfg(test)]
mod tests;

use super::cases::{ElementCost, RowsCase};
use crate::device::{Cost, Device, Exec, Tensor};
use crate::{Error, Result};

const OP: &str = "softmax";

/// x `[.., C]` -> the same shape, each row of C summing to one.
///
/// # Errors
/// If x is empty, or `scale` not a finite number.
pub fn softmax<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, scale: f32) -> Result<Tensor<'e>> {
    if x.shape().is_empty() || !scale.is_finite() {
        return Err(Error::shape(OP, format!("{x:?} times {scale}")));
    }
    let mut out = exec.alloc(x.shape(), exec.storage())?;
    let (elements, size) = (out.shape().len() as u64, out.dtype().size() as u64);
    let running = exec.begin(Cost { op: OP, shape: out.shape(), flops: 5 * elements, bytes: 2 * size * elements });
    match exec.device() {
        Device::Cpu(cpu) if running => cpu::softmax(cpu, scale, x.shape().last(), x.f32(), out.f32_mut()),
        Device::Cpu(_) => {}
        Device::Gpu(_) => gpu::softmax(exec, scale, x, &mut out)?,
    }
    Ok(out)
}

/// Rows of scores, in SD 1.5 at 512 x 512 with a batch of two and in the text encoder, and of similarities to a text memory: the same
/// list serves tests and benches.
pub fn cases() -> Vec<RowsCase> {
    let case = |name, rows, width| RowsCase::new(name, rows, width, ElementCost { flops: 5, moved: 2 });
    vec![
        case("cross 64x64", 2 * 8 * 4096, 77),
        case("self 16x16", 2 * 8 * 256, 256),
        case("self 32x32", 2 * 8 * 1024, 1024),
        case("text", 2 * 12 * 77, 77),
        case("memory", 256, 50_000),
    ]
}
