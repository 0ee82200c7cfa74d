//! From the decoder's values to bytes.

use super::quantise;
use crate::device::{Cost, Device, Exec, Tensor};
use crate::tensor::DType;
use crate::{Error, Result};
use rayon::prelude::*;

pub(super) const OP: &str = "to_pixels";

/// Elements of a task.
const CHUNK: usize = 64 * 1024;

/// Pixels of an image x in [-1, 1]: `255 clamp(x/2 + 1/2, 0, 1)`, rounded to the nearest integer and halves to the even one, each step
/// in f32, as diffusers' `VaeImageProcessor` and numpy do it. False if a value is infinite or NaN: then the image must not be used.
///
/// # Errors
/// If `out` has another length than x.
pub fn to_pixels(exec: &Exec<'_>, x: &Tensor<'_>, out: &mut [u8]) -> Result<bool> {
    let elements = x.shape().len();
    if out.len() != elements {
        return Err(Error::shape(OP, format!("{x:?} into {} bytes", out.len())));
    }
    match exec.device() {
        Device::Cpu(_) => Ok(!exec.begin(cost(x)) || convert(x.f32(), out)),
        Device::Gpu(_) => {
            let (mut bytes, mut flags) = (exec.alloc(x.shape(), DType::U8)?, exec.alloc([1], DType::U32)?);
            quantise(exec, x, &mut bytes, &mut flags)?;
            let mut found = [0];
            bytes.read_u8(out)?;
            flags.read_u32(&mut found)?;
            Ok(found == [0])
        }
    }
}

/// What the pixels of x cost.
pub(super) fn cost(x: &Tensor<'_>) -> Cost {
    let elements = x.shape().len();
    Cost { op: OP, shape: x.shape(), flops: 6 * elements as u64, bytes: (x.bytes() + elements) as u64 }
}

/// True if all values are finite.
fn convert(x: &[f32], out: &mut [u8]) -> bool {
    let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(o, &x)| *o = pixel(x)));
    all_finite(x)
}

fn pixel(x: f32) -> u8 {
    // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded as an integer would be.
    const INTEGERS: f32 = 12_582_912.0;
    ((x * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0 + INTEGERS - INTEGERS) as u8
}

/// True if no value is infinite or NaN.
pub fn all_finite(values: &[f32]) -> bool {
    // No early exit inside a chunk, so that the compiler can use vectors.
    values.chunks(CHUNK).all(|chunk| chunk.iter().fold(true, |all, x| all & x.is_finite()))
}
