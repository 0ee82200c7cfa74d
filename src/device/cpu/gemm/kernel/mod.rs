//! The innermost loops: a tile of the result, some rows by one panel of [`PANEL`] columns, over some stretch of the sum.
//!
//! A *step* is the unit of the sum: one 4-byte element of each row and of each column. It is one channel in f32 and a pair of
//! channels in bf16, so that both are laid out alike. Rows keep [`SLICE`] steps each, one row after the other.
//!
//! Every element of the result has one accumulator in each kernel and takes its steps in order: its bits depend neither on the
//! height of the tile nor on its place in it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::device::Precision;
use crate::device::cpu::Isa;

/// Columns of a panel of weights.
pub(super) const PANEL: usize = 32;
/// Steps of a row that lie together: 128 bytes.
pub(super) const SLICE: usize = 32;

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
    /// Lines to prefetch, `ahead_lines` for every 4 steps. May point anywhere.
    pub ahead: *const f32,
    pub ahead_lines: usize,
}

/// Computes a tile.
///
/// # Safety
/// The processor has the instruction set; every segment of every row, the columns of all steps and the sums are valid memory.
pub(super) type Kernel = unsafe fn(&Tile<'_>);

/// The kernels for tiles of 1 row, 2 rows, and so on.
pub(super) fn kernels(isa: Isa, precision: Precision) -> &'static [Kernel] {
    match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        (_, Precision::Bf16) => &avx512::BF16,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Precision::F32) => &avx512::F32,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Precision::F32) => &avx2::F32,
        _ => &portable::F32,
    }
}
