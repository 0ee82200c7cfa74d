//! 14 x 32 sums in 28 of the 32 registers: in a step, 2 loads of columns and 14 broadcasts for 28 multiply-adds, so that the two
//! multiply-add pipes are the limit (14 cycles) and the two load ports are not (8 cycles). Prefetching the next panel is worth
//! 2 to 4 % when weights come from the third-level cache or from memory. Tried: 2 to 16 segments of 32 steps a call, unrolling by
//! 1 to 8: within 1 % of each other, at 96-97 % of the multiply-add peak; 4 rows 82 %, 6 and more 96 %.

use super::{Kernel, PANEL, SLICE, Tile};
use std::arch::x86_64::*;

pub(super) static F32: [Kernel; 14] = [
    f32::<1>, f32::<2>, f32::<3>, f32::<4>, f32::<5>, f32::<6>, f32::<7>, f32::<8>, f32::<9>, f32::<10>, f32::<11>, f32::<12>,
    f32::<13>, f32::<14>,
];

pub(super) static BF16: [Kernel; 14] = [
    bf16::<1>, bf16::<2>, bf16::<3>, bf16::<4>, bf16::<5>, bf16::<6>, bf16::<7>, bf16::<8>, bf16::<9>, bf16::<10>, bf16::<11>,
    bf16::<12>, bf16::<13>, bf16::<14>,
];

/// Registers of a panel row.
const WIDE: usize = PANEL / 16;

/// # Safety
/// As [`Kernel`].
#[target_feature(enable = "avx512f")]
unsafe fn f32<const ROWS: usize>(tile: &Tile<'_>) {
    // SAFETY: passed on; multiply-add is avx512f.
    unsafe { sum::<ROWS>(tile, |c, a, b| _mm512_fmadd_ps(a, b, c)) }
}

/// # Safety
/// As [`Kernel`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16<const ROWS: usize>(tile: &Tile<'_>) {
    // SAFETY: passed on; the registers hold 32 bf16 each.
    unsafe {
        sum::<ROWS>(tile, |c, a, b| {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        })
    }
}

/// # Safety
/// As [`Kernel`]; `multiply_add` uses what the caller enables.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn sum<const ROWS: usize>(tile: &Tile<'_>, multiply_add: impl Fn(__m512, __m512, __m512) -> __m512) {
    // SAFETY: the caller vouches for all memory of the tile; prefetches may go anywhere.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); WIDE]; ROWS];
        let (mut b, mut ahead) = (tile.b, tile.ahead);
        let mut step = |a: *const f32, b: *const f32| {
            let columns: [__m512; WIDE] = std::array::from_fn(|j| _mm512_load_ps(b.add(j * 16)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let row = _mm512_set1_ps(*a.add(i * SLICE));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = multiply_add(*sum, row, column);
                }
            }
        };
        for segment in tile.segments {
            let a = tile.a.add(segment.offset);
            let mut k = 0;
            while k + 4 <= segment.steps {
                for _ in 0..tile.ahead_lines {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    ahead = ahead.wrapping_add(16);
                }
                for u in 0..4 {
                    step(a.add(k + u), b.add((k + u) * PANEL));
                }
                k += 4;
            }
            while k < segment.steps {
                step(a.add(k), b.add(k * PANEL));
                k += 1;
            }
            b = b.add(segment.steps * PANEL);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let c = tile.c.add(i * PANEL + j * 16);
                let sum = if tile.accumulate { _mm512_add_ps(_mm512_load_ps(c), sum) } else { sum };
                _mm512_store_ps(c, sum);
            }
        }
    }
}
