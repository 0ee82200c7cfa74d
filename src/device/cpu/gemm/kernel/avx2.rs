//! 6 x 16 sums in 12 of the 16 registers, twice for a panel.

use super::{Kernel, PANEL, SLICE, Tile};
use std::arch::x86_64::*;

pub(super) static F32: [Kernel; 6] = [f32::<1>, f32::<2>, f32::<3>, f32::<4>, f32::<5>, f32::<6>];

/// Columns of one pass.
const WIDTH: usize = 16;

/// # Safety
/// As [`Kernel`].
#[target_feature(enable = "avx2,fma")]
unsafe fn f32<const ROWS: usize>(tile: &Tile<'_>) {
    for first in (0..PANEL).step_by(WIDTH) {
        // SAFETY: the caller vouches for all memory of the tile; this pass stays in columns first..first + WIDTH.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); WIDTH / 8]; ROWS];
            let mut b = tile.b.add(first);
            for segment in tile.segments {
                let a = tile.a.add(segment.offset);
                for k in 0..segment.steps {
                    let columns: [__m256; WIDTH / 8] = std::array::from_fn(|j| _mm256_load_ps(b.add(j * 8)));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let row = _mm256_broadcast_ss(&*a.add(i * SLICE + k));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = _mm256_fmadd_ps(row, column, *sum);
                        }
                    }
                    b = b.add(PANEL);
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let c = tile.c.add(i * PANEL + first + j * 8);
                    let sum = if tile.accumulate { _mm256_add_ps(_mm256_load_ps(c), sum) } else { sum };
                    _mm256_store_ps(c, sum);
                }
            }
        }
    }
}
