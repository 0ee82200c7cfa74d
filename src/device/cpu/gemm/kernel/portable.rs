//! Plain Rust on small arrays that the compiler keeps in registers: 4 x 8 sums, four times for a panel.

use super::{Kernel, PANEL, SLICE, Tile};

pub(super) static F32: [Kernel; 4] = [f32::<1>, f32::<2>, f32::<3>, f32::<4>];

/// Columns of one pass.
const WIDTH: usize = 8;

/// # Safety
/// As [`Kernel`].
unsafe fn f32<const ROWS: usize>(tile: &Tile<'_>) {
    for first in (0..PANEL).step_by(WIDTH) {
        // SAFETY: the caller vouches for all memory of the tile; this pass stays in columns first..first + WIDTH.
        unsafe {
            let mut sums = [[0f32; WIDTH]; ROWS];
            let mut b = tile.b.add(first);
            for segment in tile.segments {
                let a = tile.a.add(segment.offset);
                for k in 0..segment.steps {
                    let columns = *b.cast::<[f32; WIDTH]>();
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let row = *a.add(i * SLICE + k);
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum += row * column;
                        }
                    }
                    b = b.add(PANEL);
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let c = &mut *tile.c.add(i * PANEL + first).cast::<[f32; WIDTH]>();
                for (c, sum) in c.iter_mut().zip(sums) {
                    *c = if tile.accumulate { *c + sum } else { *sum };
                }
            }
        }
    }
}
