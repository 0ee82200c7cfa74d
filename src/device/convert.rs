//! f32 values to and from the bytes that a device stores.

use crate::tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Values converted at a time where they come from a function: small enough for the stack.
pub(super) const BLOCK: usize = 1024;

/// Writes `values` as `dtype`, rounded to nearest, ties to even.
///
/// # Panics
/// If `out` has another length or is not aligned to the type, or the type is not one of floats.
pub(super) fn encode(dtype: DType, values: &[f32], out: &mut [u8]) {
    match dtype {
        DType::F32 => out.copy_from_slice(bytemuck::cast_slice(values)),
        DType::F16 => bytemuck::cast_slice_mut::<u8, f16>(out).convert_from_f32_slice(values),
        DType::BF16 => bytemuck::cast_slice_mut::<u8, bf16>(out).convert_from_f32_slice(values),
        DType::U8 | DType::U32 => unreachable!("f32 values as {dtype}"),
    }
}

/// Reads values of `dtype`.
///
/// # Panics
/// As [`encode`].
pub(super) fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
        DType::F16 => bytemuck::cast_slice::<u8, f16>(bytes).convert_to_f32_slice(out),
        DType::BF16 => bytemuck::cast_slice::<u8, bf16>(bytes).convert_to_f32_slice(out),
        DType::U8 | DType::U32 => unreachable!("{dtype} values as f32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_round_to_nearest_and_come_back() {
        // 1 + 2^-11 lies between two f16, and goes to the even one; 1 + 2^-8 likewise in bf16.
        let values = [0.0, -0.0, 1.0, 1.0 + 2f32.powi(-11), 1.0 + 2f32.powi(-8), 65504.0, 1e-7, f32::INFINITY];
        let [f32s, f16s, bf16s] = [DType::F32, DType::F16, DType::BF16].map(|dtype| {
            let mut bytes = vec![0u32; values.len()];
            let bytes = &mut bytemuck::cast_slice_mut(&mut bytes)[..values.len() * dtype.size()];
            encode(dtype, &values, bytes);
            let mut out = [f32::NAN; 8];
            decode(dtype, bytes, &mut out);
            out
        });
        assert_eq!(f32s, values);
        assert_eq!(f16s, [0.0, -0.0, 1.0, 1.0, 1.0 + 2f32.powi(-8), 65504.0, 2f32.powi(-23), f32::INFINITY]);
        assert_eq!(bf16s, [0.0, -0.0, 1.0, 1.0, 1.0, 65536.0, bf16::from_f32(1e-7).to_f32(), f32::INFINITY]);
    }
}
