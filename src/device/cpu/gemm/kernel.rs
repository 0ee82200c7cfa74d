//! The innermost loop: a tile of the result, some rows by one panel of [`PANEL`] columns, over some stretch of the sum.
//!
//! A *step* is the unit of the sum: one 4-byte element of each row and of each column. It is one channel in f32 and a pair of
//! channels in bf16, so that both are laid out alike. Rows keep [`SLICE`] steps each, one row after the other.
//!
//! Every element of the result has one accumulator and takes its steps in order, whatever the height of the tile and its place.
//!
//! AVX-512: 14 x 32 sums in 28 of the 32 registers; a step takes 2 loads of columns and 14 broadcasts for 28 multiply-adds, so the
//! two multiply-add pipes are the limit (14 cycles), not the two load ports (8 cycles). Measured on Zen 5, as shares of the
//! multiply-add peak: 6 to 14 rows 0.96, 4 rows 0.82; 8 to 16 segments a call, unrolling by 1 to 8: all within 0.01 of each
//! other; prefetching the next panel: 0.94 -> 0.96 where weights come from beyond the second-level cache.
//! AVX2 and portable lanes: 6 rows by 2 registers, as often as it takes to cross the panel.

use crate::device::Precision;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Columns of a panel of weights.
pub(super) const PANEL: usize = 32;
/// Steps of a row that lie together: 128 bytes.
pub(super) const SLICE: usize = 32;
/// Registers that cross a tile.
const WIDE: usize = 2;
/// Rows of the highest tile.
const MOST_ROWS: usize = 14;

/// A stretch of consecutive steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// Where the first row has them, in elements after [`Tile::a`].
    pub offset: usize,
    /// How many, at most [`SLICE`].
    pub steps: usize,
}

/// One call of a kernel: `c (+)= sum over segments of a b`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<'s> {
    pub segments: &'s [Segment],
    /// Rows, [`SLICE`] elements apart.
    pub a: *const f32,
    /// Columns: [`PANEL`] elements for each step, segment after segment.
    pub b: *const f32,
    /// Sums, rows [`PANEL`] elements apart.
    pub c: *mut f32,
    /// Add to the sums instead of replacing them.
    pub accumulate: bool,
    /// What to prefetch: `ahead_lines` cache lines for every 4 steps. May point anywhere.
    pub ahead: *const f32,
    pub ahead_lines: usize,
}

/// Computes a tile.
///
/// # Safety
/// Every segment of every row, the columns of all steps and the sums are valid memory; nothing else uses the sums.
pub(super) type TileKernel = unsafe fn(&Cpu, &Tile<'_>);

/// Rows of the highest tile.
pub(super) fn most_rows(cpu: &Cpu) -> usize {
    struct MostRows;
    impl Kernel for MostRows {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            rows::<S>()
        }
    }
    cpu.vectorise(MostRows)
}

/// As many as leave registers for a row of columns and a broadcast.
#[inline(always)]
fn rows<S: Simd>() -> usize {
    if S::LANES == 16 { MOST_ROWS } else { S::ACCUMULATORS / WIDE }
}

/// The kernels for tiles of 1 row, 2 rows, and so on up to [`most_rows`].
pub(super) fn kernels(precision: Precision) -> &'static [TileKernel; MOST_ROWS] {
    macro_rules! each_height {
        ($kernel:ident) => {
            &[
                $kernel::<1>,
                $kernel::<2>,
                $kernel::<3>,
                $kernel::<4>,
                $kernel::<5>,
                $kernel::<6>,
                $kernel::<7>,
                $kernel::<8>,
                $kernel::<9>,
                $kernel::<10>,
                $kernel::<11>,
                $kernel::<12>,
                $kernel::<13>,
                $kernel::<14>,
            ]
        };
    }
    match precision {
        Precision::F32 => each_height!(f32_tile),
        Precision::Bf16 => each_height!(bf16_tile),
    }
}

/// # Safety
/// As [`TileKernel`].
unsafe fn f32_tile<const ROWS: usize>(cpu: &Cpu, tile: &Tile<'_>) {
    struct F32<'t, const ROWS: usize>(&'t Tile<'t>);
    impl<const ROWS: usize> Kernel for F32<'_, ROWS> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            // SAFETY: only made below, where the caller vouches for the tile.
            unsafe { multiply::<S, ROWS>(s, self.0, |sum, a, b| s.mul_add(a, b, sum)) }
        }
    }
    cpu.vectorise(F32::<ROWS>(tile));
}

/// # Safety
/// As [`TileKernel`].
unsafe fn bf16_tile<const ROWS: usize>(cpu: &Cpu, tile: &Tile<'_>) {
    struct Bf16<'t, const ROWS: usize>(&'t Tile<'t>);
    impl<const ROWS: usize> Bf16Kernel for Bf16<'_, ROWS> {
        type Output = ();
        #[inline(always)]
        fn run<S: SimdBf16>(self, s: S) {
            // SAFETY: only made below, where the caller vouches for the tile.
            unsafe { multiply::<S, ROWS>(s, self.0, |sum, a, b| s.dot_bf16(sum, a, b)) }
        }
    }
    let done = cpu.vectorise_bf16(Bf16::<ROWS>(tile)).is_ok();
    debug_assert!(done, "bf16 weights are only made where they can be multiplied");
}

/// # Safety
/// As [`TileKernel`].
#[inline(always)]
unsafe fn multiply<S: Simd, const ROWS: usize>(s: S, tile: &Tile<'_>, multiply_add: impl Fn(S::V, S::V, S::V) -> S::V) {
    if ROWS > rows::<S>() {
        return; // never called: more sums than registers
    }
    for first in (0..PANEL).step_by(WIDE * S::LANES) {
        // SAFETY: the caller vouches for all memory of the tile; this pass stays in the columns from `first`.
        unsafe {
            let mut sums = [[s.splat(0.0); WIDE]; ROWS];
            let (mut b, mut ahead) = (tile.b.add(first), tile.ahead);
            let step = |sums: &mut [[S::V; WIDE]; ROWS], a: *const f32, b: *const f32| {
                let columns: [S::V; WIDE] = std::array::from_fn(|j| s.load(from_raw_parts(b.add(j * S::LANES), S::LANES)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = s.splat(*a.add(i * SLICE));
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
                        prefetch(ahead);
                        ahead = ahead.wrapping_add(16);
                    }
                    for u in k..k + 4 {
                        step(&mut sums, a.add(u), b.add(u * PANEL));
                    }
                    k += 4;
                }
                for u in k..segment.steps {
                    step(&mut sums, a.add(u), b.add(u * PANEL));
                }
                b = b.add(segment.steps * PANEL);
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let c = from_raw_parts_mut(tile.c.add(i * PANEL + first + j * S::LANES), S::LANES);
                    s.store(if tile.accumulate { s.add(s.load(c), sum) } else { sum }, c);
                }
            }
        }
    }
}

/// Asks for a cache line without waiting for it.
#[inline(always)]
pub(super) fn prefetch(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of the baseline; prefetching reads nothing that a program can see, from any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
