//! The left-hand side on its way to the kernels: the part of the input under a task's windows, as rows of [`SLICE`] steps.
//!
//! Every position of the (doubled, padded) input is copied once, not once for each tap: the taps of a window are rows at other
//! offsets. Memory: `[slices][patch height][planes][plane width][SLICE]`; with stride 2 even and odd columns lie in two planes,
//! so that the positions of a tap are always neighbours.

use super::kernel::{SLICE, Segment};
use super::weights::{Block, Weights, step_channels};
use super::{Input, Window};
use crate::device::Precision;
use std::ops::Range;

/// A part of the result: some rows (of all images, one after the other) and some columns.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// Where the patch of a region keeps things.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    window: Window,
    region: Region,
    /// Rows of the result in an image.
    image_rows: usize,
    /// Columns of a plane.
    plane: usize,
}

impl Patch {
    pub fn new(window: Window, region: Region, image_rows: usize) -> Patch {
        let columns = (region.columns.len() - 1) * window.stride + window.size;
        Patch { window, region, image_rows, plane: columns.div_ceil(window.stride) }
    }

    /// Rows of the patch before the windows of a row of the result: neighbours in an image share rows, images do not.
    fn first_row(&self, row: usize) -> usize {
        let images = row / self.image_rows - self.region.rows.start / self.image_rows;
        (row - self.region.rows.start) * self.window.stride + images * self.window.size.saturating_sub(self.window.stride)
    }

    fn row_elements(&self) -> usize {
        self.window.stride * self.plane * SLICE
    }

    /// Elements of one slice.
    fn slice_elements(&self) -> usize {
        (self.first_row(self.region.rows.end - 1) + self.window.size) * self.row_elements()
    }

    /// Elements for `slices` slices.
    pub fn elements(&self, slices: usize) -> usize {
        self.slice_elements() * slices
    }

    /// Offset of a position of the result under the first tap.
    pub fn offset(&self, row: usize, column: usize) -> usize {
        self.first_row(row) * self.row_elements() + (column - self.region.columns.start) * SLICE
    }

    /// The stretches of the sum in a block, in the order of the weights.
    pub fn segments<'s>(&self, weights: &Weights, block: Block, segments: &'s mut [Segment]) -> &'s [Segment] {
        let (size, stride) = (self.window.size, self.window.stride);
        let mut count = 0;
        for slice in 0..block.slices {
            for tap in 0..size * size {
                let (u, v) = (tap / size, tap % size);
                let column = v % stride * self.plane + v / stride;
                let offset = slice * self.slice_elements() + u * self.row_elements() + column * SLICE;
                segments[count] = Segment { offset, steps: weights.slice_steps(block.first_slice + slice) };
                count += 1;
            }
        }
        &segments[..count]
    }

    /// Copies the slices of a block.
    pub fn fill(&self, input: &Input<'_>, weights: &Weights, block: Block, out: &mut [f32]) {
        let wide = weights.slice_channels();
        for (slice, out) in out[..self.elements(block.slices)].chunks_exact_mut(self.slice_elements()).enumerate() {
            let first = (block.first_slice + slice) * wide;
            let channels = first..weights.layout().channels.min(first + wide);
            self.fill_slice(input, weights.precision(), channels, out);
        }
    }

    fn fill_slice(&self, input: &Input<'_>, precision: Precision, channels: Range<usize>, out: &mut [f32]) {
        let scale = input.scale();
        let step = self.window.stride;
        let mut lines = out.chunks_exact_mut(self.row_elements());
        let mut row = self.region.rows.start;
        while row < self.region.rows.end {
            // The rows of the patch under the rows of the result that lie in the same image.
            let image = row / self.image_rows;
            let end = self.region.rows.end.min((image + 1) * self.image_rows);
            let count = (end - 1 - row) * step + self.window.size;
            let top = (row - image * self.image_rows) * step;
            for (i, line) in lines.by_ref().take(count).enumerate() {
                // Rows and columns of the doubled input; those in the padding wrap to huge numbers.
                let y = (top + i).wrapping_sub(self.window.before);
                if y >= input.height * scale {
                    line.fill(0.0);
                    continue;
                }
                let source = (image * input.height + y / scale) * input.width;
                for (p, plane) in line.chunks_exact_mut(self.plane * SLICE).enumerate() {
                    let left = (self.region.columns.start * step + p).wrapping_sub(self.window.before);
                    for (j, cell) in bytemuck::cast_slice_mut::<_, [f32; SLICE]>(plane).iter_mut().enumerate() {
                        let x = left.wrapping_add(j * step);
                        if x >= input.width * scale {
                            *cell = [0.0; SLICE];
                        } else {
                            copy_cell(input, precision, source + x / scale, channels.clone(), cell);
                        }
                    }
                }
            }
            row = end;
        }
    }
}

/// Copies some channels of a position; the steps after them, if any, are zeros or not read.
#[inline(always)]
fn copy_cell(input: &Input<'_>, precision: Precision, position: usize, channels: Range<usize>, cell: &mut [f32; SLICE]) {
    let (from, count) = (channels.start, channels.len());
    let values: &[f32] = match input.skip {
        Some((skip, skip_channels)) if from >= input.channels => {
            &skip[position * skip_channels + from - input.channels..][..count]
        }
        Some((skip, skip_channels)) if channels.end > input.channels => {
            // A slice with channels of both.
            let mut both = [0.0; 2 * SLICE];
            let split = input.channels - from;
            both[..split].copy_from_slice(&input.x[position * input.channels + from..][..split]);
            both[split..count].copy_from_slice(&skip[position * skip_channels..][..count - split]);
            return copy_values(precision, &both[..count], cell);
        }
        _ => &input.x[position * input.channels + from..][..count],
    };
    copy_values(precision, values, cell);
}

#[inline(always)]
fn copy_values(precision: Precision, values: &[f32], cell: &mut [f32; SLICE]) {
    debug_assert!(values.len() <= SLICE * step_channels(precision));
    match precision {
        Precision::F32 => match values.as_array::<SLICE>() {
            Some(values) => *cell = *values,
            None => cell[..values.len()].copy_from_slice(values),
        },
        // SAFETY: bf16 weights are only made where the processor has AVX512-BF16.
        #[cfg(target_arch = "x86_64")]
        Precision::Bf16 => unsafe { round_avx512(values, cell) },
        #[cfg(not(target_arch = "x86_64"))]
        Precision::Bf16 => unreachable!("bf16 weights are only made where the processor has AVX512-BF16"),
    }
}

/// Rounds at most 64 values to bf16, to nearest even, and fills up with zeros.
///
/// # Safety
/// The processor has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round_avx512(values: &[f32], cell: &mut [f32; SLICE]) {
    use std::arch::x86_64::*;
    let count = values.len();
    for half in 0..2 {
        let load = |quarter: usize| {
            let left = count.saturating_sub(quarter * 16).min(16);
            // SAFETY: only `left` elements from quarter * 16 are read, all inside `values`.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << left) - 1) as u16, values.as_ptr().wrapping_add(quarter * 16)) }
        };
        let pairs = _mm512_cvtne2ps_pbh(load(2 * half + 1), load(2 * half));
        // SAFETY: a cell holds 32 elements of 4 bytes: two registers.
        unsafe { _mm512_storeu_ps(cell.as_mut_ptr().add(half * 16), std::mem::transmute::<__m512bh, __m512>(pairs)) };
    }
}
