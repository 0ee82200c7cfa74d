//! Matrix products with prepared weights: one engine for linear layers and convolutions.
//!
//! The result is cut into tasks, regions of positions by groups of panels of columns, and every task goes through the sum block
//! by block: it copies the part of the input under its windows (`patch`), multiplies it with each panel of the block
//! (`kernel`), and keeps its sums in memory of the worker until the last block, after which they are finished and stored once
//! (`epilogue`). Patch, sums and one panel of a block fit the second-level cache; weights are read once for each region.
//!
//! 3x3 convolutions of stride 1 may instead be packed for `winograd`, which needs fewer products.
//!
//! The order of every sum is a function of the layer alone (`weights`). How the result is cut may follow batch, image size and
//! number of threads: it does not change a bit.

mod epilogue;
mod kernel;
mod patch;
mod tasks;
mod weights;
mod winograd;

pub use epilogue::{Activation, Epilogue};
pub(super) use tasks::SCRATCH;
pub use weights::{Layout, Weights};

use super::parallel::{for_each_task, with_scratch};
use super::{Cpu, Isa};
use crate::device::Precision;
use epilogue::{Checked, Finish};
use kernel::{LINE, PANEL, Segment, Tile, kernels, most_rows, prefetch};
use patch::Patch;
use tasks::{Task, Tasks};
use weights::{Block, SEGMENTS};

/// The left-hand side: images `[batch, height, width, channels]`, whose channels may lie in two tensors.
/// A matrix `[rows, channels]` is one image of one row.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The values.
    pub x: &'a [f32],
    /// Channels of `x`.
    pub channels: usize,
    /// More channels of the same positions, and how many.
    pub skip: Option<(&'a [f32], usize)>,
    /// Images.
    pub batch: usize,
    /// Rows of an image, as stored.
    pub height: usize,
    /// Columns of an image, as stored.
    pub width: usize,
    /// Rows and columns to read instead, where each position stands for a square of 2 x 2: twice the stored ones, or one less.
    pub upsample: Option<[usize; 2]>,
}

impl Input<'_> {
    fn scale(&self) -> usize {
        if self.upsample.is_some() { 2 } else { 1 }
    }

    /// Rows and columns that the window sees.
    fn extent(&self) -> [usize; 2] {
        self.upsample.unwrap_or([self.height, self.width])
    }
}

/// The window that slides over the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// 1 or 3.
    pub size: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros above and to the left.
    pub before: usize,
    /// Zeros below and to the right.
    pub after: usize,
}

impl Window {
    /// A matrix product.
    pub const POINT: Window = Window { size: 1, stride: 1, before: 0, after: 0 };

    /// Positions of the result along an extent of the (doubled) input; `None` if the window does not fit.
    pub fn positions(&self, extent: usize) -> Option<usize> {
        let room = (extent + self.before + self.after).checked_sub(self.size)?;
        Some(room / self.stride + 1)
    }
}

/// `out = epilogue(windows of input x weights)`: `[batch, height', width', outputs]`.
///
/// # Panics
/// If a length does not fit its extents.
pub fn product(cpu: &Cpu, weights: &Weights, input: &Input<'_>, window: Window, epilogue: &Epilogue<'_>, out: &mut [f32]) {
    let layout = weights.layout();
    let (mut input, scale) = (*input, input.scale());
    if window == Window::POINT && scale == 1 {
        // Without neighbours all positions are one long row.
        input = Input { batch: 1, height: 1, width: input.batch * input.height * input.width, ..input };
    }
    let [image_rows, columns] = input.extent().map(|extent| window.positions(extent).unwrap_or(0));
    let rows = input.batch * image_rows;
    let pixels = input.batch * input.height * input.width;
    let half = input.extent().map(|extent| extent.div_ceil(2));
    assert!(scale == 1 || half == [input.height, input.width], "enlarged extents");
    assert!(weights.precision() == Precision::F32 || cpu.isa() == Isa::Avx512Bf16, "bf16 weights on {}", cpu.isa().name());
    assert_eq!(layout.taps, window.size * window.size, "taps");
    assert_eq!(layout.channels, input.channels + input.skip.map_or(0, |s| s.1), "channels");
    assert_eq!(input.x.len(), pixels * input.channels, "input");
    assert!(input.skip.is_none_or(|(values, channels)| values.len() == pixels * channels), "second input");
    assert_eq!(out.len(), rows * columns * layout.outputs, "result");
    assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual");
    assert!(epilogue.channel_bias.is_none_or(|b| b.len() == layout.outputs), "channel bias");
    if out.is_empty() {
        return;
    }
    if layout.winograd {
        assert_eq!(window.stride, 1, "stride");
        return winograd::product(&Job {
            cpu,
            weights,
            input,
            window,
            epilogue,
            image_rows,
            columns,
            out: Shared(out.as_mut_ptr()),
        });
    }
    let job = Job { cpu, weights, input, window, epilogue, image_rows, columns, out: Shared(out.as_mut_ptr()) };
    let tasks = Tasks::new(rows, columns, weights, cpu.threads());
    for_each_task(tasks.count(), |i| job.run(tasks.get(i)));
}

/// Memory that tasks write disjoint parts of.
struct Shared(*mut f32);

// SAFETY: each element of the result belongs to exactly one task.
unsafe impl Sync for Shared {}

struct Job<'a> {
    cpu: &'a Cpu,
    weights: &'a Weights,
    input: Input<'a>,
    window: Window,
    epilogue: &'a Epilogue<'a>,
    /// Rows of the result in an image.
    image_rows: usize,
    /// Columns of the result.
    columns: usize,
    out: Shared,
}

/// The columns of the result that are finished with a panel.
struct Columns {
    /// First column of the result, and how many.
    first: usize,
    width: usize,
    bias: [f32; PANEL],
    gate_bias: [f32; PANEL],
}

impl Job<'_> {
    /// Computes one task.
    fn run(&self, task: Task) {
        let patch = Patch::new(self.window, task.region.clone(), self.image_rows);
        let most_slices = self.weights.blocks().map(|b| b.slices).max().unwrap_or(0);
        let sum_elements = task.positions() * task.kept * PANEL;
        with_scratch(patch.elements(most_slices) + sum_elements, SCRATCH, |scratch| {
            let (sums, cells) = scratch.split_at_mut(sum_elements);
            for block in self.weights.blocks() {
                patch.fill(self.cpu, &self.input, self.weights, block, cells);
                self.block(&task, &patch, block, cells, sums);
            }
        });
    }

    /// Adds one block of the sum to all positions and columns of a task; finishes them if it is the last.
    fn block(&self, task: &Task, patch: &Patch, block: Block, cells: &[f32], sums: &mut [f32]) {
        let kernels = kernels(self.weights.precision());
        let mut segments = [Segment::default(); SEGMENTS];
        let segments = patch.segments(self.weights, block, &mut segments);
        let cut = Cut::new(task.region.columns.len(), most_rows(self.cpu));
        // Each tile prefetches its share of the next panel.
        let steps: usize = segments.iter().map(|s| s.steps).sum();
        let share = (steps * PANEL / LINE).div_ceil(cut.count * task.region.rows.len());
        let ahead_lines = (4 * share).div_ceil(steps).min(4);
        let last = block.first_slice + block.slices == self.weights.slices();
        for (j, panel) in task.panels.clone().enumerate() {
            let b = self.weights.panel(panel)[block.offset..].as_ptr();
            let mut ahead = self.weights.panel((panel + 1).min(self.weights.layout().panels() - 1))[block.offset..].as_ptr();
            let columns = if last { self.columns(panel) } else { None };
            for row in task.region.rows.clone() {
                for (column, height) in cut.tiles(task.region.columns.start) {
                    let c = sums[task.sums(j, row, column)..].as_mut_ptr();
                    let a = cells[patch.offset(row, column)..].as_ptr();
                    let tile = Tile { segments, a, b, c, accumulate: block.first_slice > 0, ahead, ahead_lines };
                    if let Some(columns) = &columns {
                        self.prefetch(columns, row, column, height);
                    }
                    // SAFETY: the patch holds the rows of every segment for all positions of the task, the panel holds all
                    // steps of the block, the sums hold `height` rows from this position.
                    unsafe { kernels[height - 1](self.cpu, &tile) };
                    ahead = ahead.wrapping_add(share * LINE);
                    if let Some(columns) = &columns {
                        let tile = |j| bytemuck::cast_slice(&sums[task.sums(j, row, column)..][..height * PANEL]);
                        match self.weights.layout().gated {
                            false => self.finish(columns, row, column, tile(j), &[]),
                            true => self.finish(columns, row, column, tile(j - 1), tile(j)),
                        }
                    }
                }
            }
        }
    }

    /// What is finished with this panel: nothing if it holds values whose gates are still to come.
    fn columns(&self, panel: usize) -> Option<Columns> {
        let layout = self.weights.layout();
        let (values, first) = match (layout.gated, panel % 2) {
            (false, _) => (panel, panel * PANEL),
            (true, 1) => (panel - 1, panel / 2 * PANEL),
            (true, _) => return None,
        };
        let width = PANEL.min(layout.outputs - first);
        let mut bias = self.weights.bias(values);
        if let Some(more) = self.epilogue.channel_bias {
            bias.iter_mut().zip(&more[first..first + width]).for_each(|(b, m)| *b += m);
        }
        Some(Columns { first, width, bias, gate_bias: self.weights.bias(panel) })
    }

    /// Asks for the memory of a tile of the result and of the residual: it comes while the tile is computed.
    fn prefetch(&self, columns: &Columns, row: usize, column: usize, height: usize) {
        let stride = self.weights.layout().outputs;
        let first = (row * self.columns + column) * stride + columns.first;
        for at in (first..).step_by(stride).take(height) {
            for line in [at, at + columns.width.saturating_sub(LINE)] {
                prefetch(self.out.0.wrapping_add(line));
                if let Some(residual) = self.epilogue.residual {
                    prefetch(residual.as_ptr().wrapping_add(line));
                }
            }
        }
    }

    /// Stores a tile of the result, which begins at `row`, `column`.
    fn finish(&self, columns: &Columns, row: usize, column: usize, sums: &[[f32; PANEL]], gates: &[[f32; PANEL]]) {
        let stride = self.weights.layout().outputs;
        let at = (row * self.columns + column) * stride + columns.first;
        let tile = Finish {
            activation: self.epilogue.activation,
            sums,
            gates,
            bias: &columns.bias,
            gate_bias: &columns.gate_bias,
            residual: self.epilogue.residual.map_or(std::ptr::null(), |r| r[at..].as_ptr()),
            out: self.out.0.wrapping_add(at),
            stride,
            width: columns.width,
        };
        // SAFETY: `at` is the first of as many positions of a row of the result as there are sums, each with `width` more columns;
        // the residual is shaped alike (checked in `product`); no other task has these positions and columns.
        self.cpu.vectorise(unsafe { Checked::new(&tile) });
    }
}

/// A row of positions cut into tiles of nearly equal height.
struct Cut {
    positions: usize,
    count: usize,
}

impl Cut {
    fn new(positions: usize, most: usize) -> Cut {
        Cut { positions, count: positions.div_ceil(most) }
    }

    /// First position and height of each tile.
    fn tiles(&self, first: usize) -> impl Iterator<Item = (usize, usize)> {
        let edge = move |i: usize| self.positions * i / self.count;
        (0..self.count).map(move |i| (first + edge(i), edge(i + 1) - edge(i)))
    }
}

#[cfg(test)]
mod tests;
