//! The left-hand side on its way to the kernels: the part of the input under a task's windows, as rows of [`SLICE`] steps.
//!
//! Every position of the (doubled, padded) input is copied once, not once for each tap: the taps of a window are rows at other
//! offsets. Memory: `[slices][patch height][planes][plane width][SLICE]`; with stride 2 even and odd columns lie in two planes,
//! so that the positions of a tap are always neighbours.

use super::kernel::{SLICE, Segment};
use super::weights::{Block, Weights};
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

    fn row_elements(&self) -> usize {
        self.window.stride * self.plane * SLICE
    }

    /// Elements of one slice.
    fn slice_elements(&self) -> usize {
        (self.first_row(self.region.rows.end - 1) + self.window.size.max(self.window.stride)) * self.row_elements()
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
            |channels, cell| match channels.as_array::<SLICE>() {
                Some(channels) => *cell = *channels,
                None => cell[..channels.len()].copy_from_slice(channels),
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
            |channels, cell| match channels.as_array::<{ 2 * SLICE }>() {
                Some(channels) => round(s, channels, cell),
                None => round(s, channels, cell),
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

impl Fill<'_> {
    #[inline(always)]
    fn slices(self, store: impl Fn(&[f32], &mut [f32; SLICE])) {
        let Fill { patch, input, weights, block, cells } = self;
        let wide = weights.slice_channels();
        let slices = cells[..patch.elements(block.slices)].chunks_exact_mut(patch.slice_elements());
        for (first, slice) in (block.first_slice * wide..).step_by(wide).zip(slices) {
            let channels = first..weights.layout().channels.min(first + wide);
            patch.cells(input, slice, |position, cell| match input.skip {
                Some((skip, width)) if channels.start >= input.channels => {
                    store(&skip[position * width..][channels.start - input.channels..channels.end - input.channels], cell);
                }
                Some((skip, width)) if channels.end > input.channels => {
                    let split = input.channels - channels.start;
                    let mut both = [0.0; 2 * SLICE];
                    both[..split].copy_from_slice(&input.x[position * input.channels..][channels.start..input.channels]);
                    both[split..channels.len()].copy_from_slice(&skip[position * width..][..channels.len() - split]);
                    store(&both[..channels.len()], cell);
                }
                _ => store(&input.x[position * input.channels..][channels.clone()], cell),
            });
        }
    }
}

impl Patch {
    /// Goes through the cells of a slice: calls `copy` with the position of the input for those inside the images, and zeros the others.
    #[inline(always)]
    fn cells(&self, input: &Input<'_>, slice: &mut [f32], copy: impl Fn(usize, &mut [f32; SLICE])) {
        let (scale, step, [height, width]) = (input.scale(), self.window.stride, input.extent());
        let mut lines = slice.chunks_exact_mut(self.row_elements());
        let mut row = self.region.rows.start;
        while row < self.region.rows.end {
            // The rows of the patch under the rows of the result that lie in the same image.
            let image = row / self.image_rows;
            let end = self.region.rows.end.min((image + 1) * self.image_rows);
            let count = (end - row) * step + self.window.size.saturating_sub(step);
            let top = (row - image * self.image_rows) * step;
            for (i, line) in lines.by_ref().take(count).enumerate() {
                // Rows and columns of the doubled input; those before it wrap to huge numbers.
                let y = (top + i).wrapping_sub(self.window.before);
                if y >= height {
                    line.fill(0.0);
                    continue;
                }
                let source = (image * input.height + y / scale) * input.width;
                for (p, plane) in line.chunks_exact_mut(self.plane * SLICE).enumerate() {
                    let left = (self.region.columns.start * step + p).wrapping_sub(self.window.before);
                    for (j, cell) in bytemuck::cast_slice_mut::<_, [f32; SLICE]>(plane).iter_mut().enumerate() {
                        let x = left.wrapping_add(j * step);
                        if x < width {
                            copy(source + x / scale, cell);
                        } else {
                            *cell = [0.0; SLICE];
                        }
                    }
                }
            }
            row = end;
        }
    }
}
