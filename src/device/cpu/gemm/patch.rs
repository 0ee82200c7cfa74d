//! The left-hand side on its way to the kernels: the part of the input under a task's windows, as rows of [`SLICE`] steps.
//!
//! Every position of the (doubled, padded) input is copied once, not once for each tap: the taps of a window are rows at other
//! offsets. Memory: `[slices][patch height][planes][plane width][SLICE]`; with stride 2 even and odd columns lie in two planes,
//! so that the positions of a tap are always neighbours.

use super::kernel::{SLICE, Segment};
use super::weights::{Block, SEGMENTS, Weights};
use super::{Input, Window};
use crate::device::Precision;
use crate::device::cpu::Cpu;
use crate::device::cpu::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
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

    /// Elements of a row of the patch.
    pub fn row_elements(&self) -> usize {
        self.window.stride * self.plane * SLICE
    }

    /// Elements from one slice to the next: one cell more than it has, so that the slices of a position do not compete for a cache set.
    fn slice_elements(&self) -> usize {
        SLICE + (self.first_row(self.region.rows.end - 1) + self.window.size.max(self.window.stride)) * self.row_elements()
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
    pub fn fill(&self, cpu: &Cpu, input: &Input<'_>, weights: &Weights, block: Block, cells: &mut [f32]) {
        let fill = Fill { patch: self, input, weights, block, cells };
        match weights.precision() {
            Precision::F32 => cpu.vectorise(fill),
            Precision::Bf16 => {
                let done = cpu.vectorise_bf16(fill).is_ok();
                debug_assert!(done, "bf16 weights are only made where they can be multiplied");
            }
        }
    }
}

struct Fill<'a> {
    patch: &'a Patch,
    input: &'a Input<'a>,
    weights: &'a Weights,
    block: Block,
    cells: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.slices(
            #[inline(always)]
            |channels, cell| match <&[f32; SLICE]>::try_from(channels) {
                Ok(channels) => *cell = *channels,
                Err(_) => cell[..channels.len()].copy_from_slice(channels),
            },
        );
    }
}

impl Bf16Kernel for Fill<'_> {
    type Output = ();

    /// A step of n channels pairs channel j with channel j + n/2, as the weights do.
    #[inline(always)]
    fn run<S: SimdBf16>(self, s: S) {
        self.slices(
            #[inline(always)]
            |channels, cell| match <&[f32; 2 * SLICE]>::try_from(channels) {
                Ok(channels) => round(s, channels, cell),
                Err(_) => round(s, channels, cell),
            },
        );
    }
}

/// Rounds the channels of a cell to bf16, in pairs.
#[inline(always)]
fn round<S: SimdBf16>(s: S, channels: &[f32], cell: &mut [f32; SLICE]) {
    let (low, high) = channels.split_at(channels.len().div_ceil(2));
    for j in (0..low.len()).step_by(S::LANES) {
        s.store(s.pair_bf16(s.load_partial(&low[j..]), s.load_partial(&high[j..])), &mut cell[j..]);
    }
}

/// Some channels of every position of a tensor.
#[derive(Clone, Copy, Default)]
struct Part<'a> {
    values: &'a [f32],
    /// Channels of a position.
    width: usize,
    first: usize,
    count: usize,
}

impl<'a> Part<'a> {
    /// Channels `from..to` of a tensor of `width` channels that is `values`; those that it does not have left out.
    fn new(values: &'a [f32], width: usize, from: usize, to: usize) -> Part<'a> {
        let (first, end) = (from.min(width), to.min(width));
        Part { values, width, first, count: end - first }
    }

    #[inline(always)]
    fn at(&self, position: usize) -> &'a [f32] {
        &self.values[position * self.width + self.first..][..self.count]
    }
}

impl Fill<'_> {
    #[inline(always)]
    fn slices(self, store: impl Fn(&[f32], &mut [f32; SLICE])) {
        let Fill { patch, input, weights, block, cells } = self;
        // Each slice has channels of the first input, of the second, or of both.
        let mut parts = [[Part::default(); 2]; SEGMENTS];
        for (i, parts) in parts[..block.slices].iter_mut().enumerate() {
            let from = (block.first_slice + i) * weights.slice_channels();
            let to = weights.layout().channels.min(from + weights.slice_channels());
            let (skip, width) = input.skip.unwrap_or_default();
            let (skip_from, skip_to) = (from.saturating_sub(input.channels), to.saturating_sub(input.channels));
            *parts = [Part::new(input.x, input.channels, from, to), Part::new(skip, width, skip_from, skip_to)];
        }
        let cells: &mut [[f32; SLICE]] = bytemuck::cast_slice_mut(cells);
        let slice_cells = patch.slice_elements() / SLICE;
        patch.cells(
            input,
            #[inline(always)]
            |cell, position| {
                for (i, [first, second]) in parts[..block.slices].iter().enumerate() {
                    let cell = &mut cells[i * slice_cells + cell];
                    match position {
                        None => *cell = [0.0; SLICE],
                        Some(position) if second.count == 0 => store(first.at(position), cell),
                        Some(position) if first.count == 0 => store(second.at(position), cell),
                        Some(position) => {
                            let mut both = [0.0; 2 * SLICE];
                            both[..first.count].copy_from_slice(first.at(position));
                            both[first.count..][..second.count].copy_from_slice(second.at(position));
                            store(&both[..first.count + second.count], cell);
                        }
                    }
                }
            },
        );
    }
}

impl Patch {
    /// Calls `visit` for the cells of a slice in order: with the position of the input, or with nothing for those in the padding.
    #[inline(always)]
    fn cells(&self, input: &Input<'_>, mut visit: impl FnMut(usize, Option<usize>)) {
        let (doubling, step, [height, width]) = (u32::from(input.upsample.is_some()), self.window.stride, input.extent());
        let mut cell = 0;
        let mut row = self.region.rows.start;
        while row < self.region.rows.end {
            // The rows of the patch under the rows of the result that lie in the same image.
            let image = row / self.image_rows;
            let end = self.region.rows.end.min((image + 1) * self.image_rows);
            let top = (row - image * self.image_rows) * step;
            for i in 0..(end - row) * step + self.window.size.saturating_sub(step) {
                // Rows and columns of the doubled input; those before it wrap to huge numbers.
                let y = (top + i).wrapping_sub(self.window.before);
                let line = (image * input.height).wrapping_add(y >> doubling).wrapping_mul(input.width);
                for plane in 0..step {
                    let left = (self.region.columns.start * step + plane).wrapping_sub(self.window.before);
                    for j in 0..self.plane {
                        let x = left.wrapping_add(j * step);
                        visit(cell, (y < height && x < width).then(|| line + (x >> doubling)));
                        cell += 1;
                    }
                }
            }
            row = end;
        }
    }
}
