//! [`Simd`] on x86-64: AVX2 with FMA, AVX-512, and AVX-512 with bfloat16.

use super::{Bf16Kernel, Kernel, Simd, SimdBf16};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(super) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn run_avx512_bf16<K: Bf16Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

/// Proof of AVX2 and FMA: made by [`run_avx2`] alone.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Proof of AVX-512 F, BW, DQ, VL, and of BF16 where `BF16`: made by [`run_avx512`] and [`run_avx512_bf16`] alone.
#[derive(Clone, Copy)]
pub struct Avx512<const BF16: bool>(());

/// Register arithmetic, which touches no memory.
macro_rules! arithmetic {
    ($instruction:expr) => {
        // SAFETY: `self` exists only where the processor has this instruction.
        unsafe { $instruction }
    };
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        arithmetic!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        let x = &x[..Self::LANES];
        // SAFETY: the token proves the instruction; x holds as many values as it reads.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m256 {
        if x.len() >= Self::LANES {
            return self.load(x);
        }
        let mut lanes = [0.0; Self::LANES];
        let n = x.len().min(Self::LANES);
        lanes[..n].copy_from_slice(&x[..n]);
        self.load(&lanes)
    }
    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        let out = &mut out[..Self::LANES];
        // SAFETY: the token proves the instruction; out holds as many values as it writes.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m256, out: &mut [f32]) {
        if out.len() >= Self::LANES {
            return self.store(v, out);
        }
        let mut lanes = [0.0; Self::LANES];
        self.store(v, &mut lanes);
        let n = out.len().min(Self::LANES);
        out[..n].copy_from_slice(&lanes[..n]);
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        arithmetic!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn mul_sub(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        arithmetic!(_mm256_fmsub_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        arithmetic!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        arithmetic!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale_pow2(self, a: __m256, n: __m256) -> __m256 {
        // In two steps, so that both factors are normal numbers. A NaN in n becomes a large negative integer and then some
        // power of two, which keeps a NaN in a.
        let n = self.max(self.splat(-252.0), self.min(self.splat(252.0), n));
        arithmetic!({
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let one = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, one));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), one));
            _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
        })
    }
    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        arithmetic!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m256; 16]) {
        // Squares of 4 x 4 within the 128-bit parts, then the parts.
        arithmetic!({
            for i in [0, 4] {
                let (a, b) = (_mm256_unpacklo_ps(rows[i], rows[i + 1]), _mm256_unpackhi_ps(rows[i], rows[i + 1]));
                let (c, d) = (_mm256_unpacklo_ps(rows[i + 2], rows[i + 3]), _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]));
                rows[i] = _mm256_shuffle_ps::<0x44>(a, c);
                rows[i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
                rows[i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
                rows[i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
            }
            for j in 0..4 {
                let (a, b) = (rows[j], rows[j + 4]);
                rows[j] = _mm256_permute2f128_ps::<0x20>(a, b);
                rows[j + 4] = _mm256_permute2f128_ps::<0x31>(a, b);
            }
        })
    }
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 24;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        arithmetic!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        let x = &x[..Self::LANES];
        // SAFETY: the token proves the instruction; x holds as many values as it reads.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m512 {
        if x.len() >= Self::LANES {
            return self.load(x);
        }
        if x.is_empty() {
            return self.splat(0.0); // the processor takes an age to read nothing from a place that does not exist
        }
        // SAFETY: the token proves the instruction; lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        let out = &mut out[..Self::LANES];
        // SAFETY: the token proves the instruction; out holds as many values as it writes.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, out: &mut [f32]) {
        if out.len() >= Self::LANES {
            return self.store(v, out);
        }
        // SAFETY: the token proves the instruction; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), v) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        arithmetic!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        arithmetic!(_mm512_fmsub_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        arithmetic!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        arithmetic!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale_pow2(self, a: __m512, n: __m512) -> __m512 {
        arithmetic!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        arithmetic!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes))
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; 16]) {
        // Squares of 4 x 4 within the 128-bit parts, then the 4 x 4 parts.
        arithmetic!({
            for i in [0, 4, 8, 12] {
                let (a, b) = (_mm512_unpacklo_ps(rows[i], rows[i + 1]), _mm512_unpackhi_ps(rows[i], rows[i + 1]));
                let (c, d) = (_mm512_unpacklo_ps(rows[i + 2], rows[i + 3]), _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
                rows[i] = _mm512_shuffle_ps::<0x44>(a, c);
                rows[i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                rows[i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                rows[i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
            }
            for j in 0..4 {
                let (a, b) =
                    (_mm512_shuffle_f32x4::<0x44>(rows[j], rows[j + 4]), _mm512_shuffle_f32x4::<0xee>(rows[j], rows[j + 4]));
                let (c, d) = (
                    _mm512_shuffle_f32x4::<0x44>(rows[j + 8], rows[j + 12]),
                    _mm512_shuffle_f32x4::<0xee>(rows[j + 8], rows[j + 12]),
                );
                rows[j] = _mm512_shuffle_f32x4::<0x88>(a, c);
                rows[j + 4] = _mm512_shuffle_f32x4::<0xdd>(a, c);
                rows[j + 8] = _mm512_shuffle_f32x4::<0x88>(b, d);
                rows[j + 12] = _mm512_shuffle_f32x4::<0xdd>(b, d);
            }
        })
    }
}

impl SimdBf16 for Avx512<true> {
    #[inline(always)]
    fn dot_bf16(self, c: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the instruction; the casts keep all 512 bits.
        unsafe { _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) }
    }
    #[inline(always)]
    fn pair_bf16(self, low: __m512, high: __m512) -> __m512 {
        // SAFETY: the token proves the instructions; the casts keep all 512 bits.
        unsafe {
            // 16 low halves, then 16 high ones, brought together in twos.
            let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            #[rustfmt::skip]
            let interleave = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
            );
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, halves))
        }
    }
    #[inline(always)]
    fn neighbours_bf16(self, first: __m512, second: __m512) -> __m512 {
        // SAFETY: the token proves the instruction; the cast keeps all 512 bits.
        unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)) }
    }
}
