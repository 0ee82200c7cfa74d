//! 3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3): 16 products of a channel for 4 positions, not 36.
//!
//! A tile of 2x2 positions of the result sees 4x4 of the input, d. With g the 3x3 taps, `Y = A^T [(G g G^T) * (B^T d B)] A`, summed over
//! channels between the brackets: a matrix product for each of the 16 points (S. Winograd, Arithmetic Complexity of Computations, 1980;
//! A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016). Weights take 16/9 of the memory.
//!
//! Measured on Zen 5, one core, useful operations over the multiply-add peak, direct -> this: 64x64 x 320 channels 0.93 -> 1.8,
//! 32x32 x 640 channels 0.94 -> 1.65, 1920 -> 640 channels 0.93 -> 1.3 (its weights come from memory), the autoencoder 0.9 -> 1.5-1.7.
//! F(4x4, 3x3) would halve the products again, but its coefficients up to 8 cost about a decimal digit.
//!
//! All coefficients are 0, 1 or 1/2, and sums are shorter by a factor of nine, so that the error is about that of the direct sum.

use super::kernel::{LINE, PANEL, SLICE, Segment, Tile, kernels, most_rows};
use super::patch::{Patch, Region};
use super::weights::{Block, SEGMENTS};
use super::{Cut, Job, SCRATCH};
use crate::device::cpu::parallel::{for_each_task, with_scratch};
use crate::device::cpu::vector::{Kernel, Simd};
use std::ops::Range;

/// Points of a tile.
pub(super) const POINTS: usize = 16;
/// Most tiles of a task.
const TILES: usize = 32;
/// Most bytes of weights of a task: they stay in the third-level cache while all tasks with the same columns pass.
const WEIGHTS: usize = 8 << 20;
/// Most panels whose sums are kept from block to block.
const KEPT: usize = 4;

/// Turns the taps of a row of the weight, `[channels, 9]`, into points, `[channels, 16]`: `G g G^T`.
pub(super) fn transform_weights(taps: &[f32], points: &mut [f32]) {
    let half = |a: [f64; 3]| [a[0], 0.5 * (a[0] + a[1] + a[2]), 0.5 * (a[0] - a[1] + a[2]), a[2]];
    for (g, points) in taps.as_chunks::<9>().0.iter().zip(points.as_chunks_mut::<POINTS>().0) {
        let g = g.map(f64::from);
        let columns: [[f64; 4]; 3] = std::array::from_fn(|v| half([g[v], g[3 + v], g[6 + v]]));
        for u in 0..4 {
            let row = half([columns[0][u], columns[1][u], columns[2][u]]);
            points[4 * u..4 * u + 4].copy_from_slice(&row.map(|x| x as f32));
        }
    }
}

/// Some rows and columns of tiles, and some panels.
struct Task {
    rows: Range<usize>,
    columns: Range<usize>,
    panels: Range<usize>,
}

impl Task {
    fn tiles(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// The convolution that `job` describes.
pub(super) fn product(job: &Job<'_>) {
    // Rows and columns of tiles; an odd extent is filled up with positions that are not stored.
    let rows = job.input.batch * job.image_rows.div_ceil(2);
    let columns = job.columns.div_ceil(2);
    let panels = job.weights.layout().panels();
    let column_parts = columns.div_ceil(TILES);
    let row_parts = rows.div_ceil((TILES / columns.div_ceil(column_parts)).max(1));
    let single = job.weights.blocks().count() == 1;
    let most = (WEIGHTS / (4 * job.weights.panel(0).len())).clamp(1, if single { panels } else { KEPT });
    let panel_parts = panels.div_ceil(most);
    let part = |total: usize, count: usize, i: usize| total * i / count..total * (i + 1) / count;
    for_each_task(row_parts * column_parts * panel_parts, |i| {
        let (i, columns) = (i / column_parts, part(columns, column_parts, i % column_parts));
        let (i, rows) = (i / row_parts, part(rows, row_parts, i % row_parts));
        run(job, &Task { rows, columns, panels: part(panels, panel_parts, i) });
    });
}

fn run(job: &Job<'_>, task: &Task) {
    let region = Region { rows: 2 * task.rows.start..2 * task.rows.end, columns: 2 * task.columns.start..2 * task.columns.end };
    let patch = Patch::new(job.window, region, 2 * job.image_rows.div_ceil(2));
    let blocks = job.weights.blocks();
    let (most, count) = blocks.fold((0, 0), |(most, count), b| (b.slices.max(most), count + 1));
    let kept = if count == 1 { 1 } else { task.panels.len() };
    let tiles = task.tiles();
    let sizes = [patch.elements(1), POINTS * most * tiles * SLICE, kept * POINTS * tiles * PANEL, 4 * tiles * PANEL];
    with_scratch(sizes.iter().sum(), SCRATCH, |scratch| {
        let (cells, rest) = scratch.split_at_mut(sizes[0]);
        let (points, rest) = rest.split_at_mut(sizes[1]);
        let (sums, result) = rest.split_at_mut(sizes[2]);
        for block in job.weights.blocks() {
            for slice in 0..block.slices {
                let one = Block { first_slice: block.first_slice + slice, slices: 1, offset: 0 };
                patch.fill(job.cpu, &job.input, job.weights, one, cells);
                job.cpu.vectorise(TransformInput { task, patch: &patch, cells, slice, slices: block.slices, points });
            }
            let last = block.first_slice + block.slices == job.weights.slices();
            for (j, panel) in task.panels.clone().enumerate() {
                let sums = &mut sums[j % kept * POINTS * tiles * PANEL..][..POINTS * tiles * PANEL];
                multiply(job, task, block, panel, points, sums);
                if last {
                    job.cpu.vectorise(TransformResult { task, sums, result });
                    store(job, task, panel, result);
                }
            }
        }
    });
}

/// Adds one block of the sum for one panel: 16 matrix products `[tiles, channels] x [channels, PANEL]`.
fn multiply(job: &Job<'_>, task: &Task, block: Block, panel: usize, points: &[f32], sums: &mut [f32]) {
    let kernels = kernels(job.weights.precision());
    let mut segments = [Segment::default(); SEGMENTS];
    for (i, segment) in segments[..block.slices].iter_mut().enumerate() {
        *segment = Segment { offset: i * task.tiles() * SLICE, steps: job.weights.slice_steps(block.first_slice + i) };
    }
    let segments = &segments[..block.slices];
    let steps: usize = segments.iter().map(|s| s.steps).sum();
    let cut = Cut::new(task.tiles(), most_rows(job.cpu));
    let share = (steps * PANEL / LINE).div_ceil(cut.count);
    let ahead_lines = (4 * share).div_ceil(steps).min(4);
    let weights = &job.weights.panel(panel)[block.offset..];
    for point in 0..POINTS {
        let b = weights[point * steps * PANEL..].as_ptr();
        let mut ahead = b.wrapping_add(steps * PANEL);
        for (first, height) in cut.tiles(0) {
            let a = points[(point * block.slices * task.tiles() + first) * SLICE..].as_ptr();
            let c = sums[(point * task.tiles() + first) * PANEL..].as_mut_ptr();
            let tile = Tile { segments, a, b, c, accumulate: block.first_slice > 0, ahead, ahead_lines };
            // SAFETY: for each point, `points` holds all slices of the block for all tiles, the panel holds all its steps, and the
            // sums hold `height` rows from the first tile.
            unsafe { kernels[height - 1](job.cpu, &tile) };
            ahead = ahead.wrapping_add(share * LINE);
        }
    }
}

/// `B^T d B` for one slice of all tiles: from the cells of the patch to `[points, slices, tiles, SLICE]`.
struct TransformInput<'a> {
    task: &'a Task,
    patch: &'a Patch,
    cells: &'a [f32],
    slice: usize,
    slices: usize,
    points: &'a mut [f32],
}

impl Kernel for TransformInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tiles = self.task.tiles();
        let line = self.patch.row_elements();
        let mut tile = 0;
        for row in self.task.rows.clone() {
            for column in self.task.columns.clone() {
                let first = self.patch.offset(2 * row, 2 * column);
                for lane in (0..SLICE).step_by(S::LANES) {
                    let mut d = [[s.splat(0.0); 4]; 4];
                    for (u, d) in d.iter_mut().enumerate() {
                        for (v, d) in d.iter_mut().enumerate() {
                            *d = s.load(&self.cells[first + u * line + v * SLICE + lane..]);
                        }
                    }
                    for d in &mut d {
                        *d = input_line(s, *d);
                    }
                    for v in 0..4 {
                        let column = input_line(s, column_of(&d, v));
                        for (u, x) in column.into_iter().enumerate() {
                            let at = (((4 * u + v) * self.slices + self.slice) * tiles + tile) * SLICE + lane;
                            s.store(x, &mut self.points[at..]);
                        }
                    }
                }
                tile += 1;
            }
        }
    }
}

/// `B^T d`.
#[inline(always)]
fn input_line<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; 4] {
    [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[1], d[3])]
}

/// Column `v` of four rows.
#[inline(always)]
fn column_of<V: Copy, const N: usize>(rows: &[[V; N]; 4], v: usize) -> [V; 4] {
    [rows[0][v], rows[1][v], rows[2][v], rows[3][v]]
}

/// `A^T m A` for one panel of all tiles: from `[points, tiles, PANEL]` to rows of positions, `[2 rows, 2 columns, PANEL]`.
struct TransformResult<'a> {
    task: &'a Task,
    sums: &'a [f32],
    result: &'a mut [f32],
}

impl Kernel for TransformResult<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tiles, across) = (self.task.tiles(), self.task.columns.len());
        for tile in 0..tiles {
            for lane in (0..PANEL).step_by(S::LANES) {
                let mut m = [[s.splat(0.0); 4]; 4];
                for (u, m) in m.iter_mut().enumerate() {
                    for (v, m) in m.iter_mut().enumerate() {
                        *m = s.load(&self.sums[((4 * u + v) * tiles + tile) * PANEL + lane..]);
                    }
                }
                let rows = [result_line(s, m[0]), result_line(s, m[1]), result_line(s, m[2]), result_line(s, m[3])];
                for v in 0..2 {
                    let column = result_line(s, column_of(&rows, v));
                    for (u, y) in column.into_iter().enumerate() {
                        let position = (2 * (tile / across) + u) * 2 * across + 2 * (tile % across) + v;
                        s.store(y, &mut self.result[position * PANEL + lane..]);
                    }
                }
            }
        }
    }
}

/// `A^T m`.
#[inline(always)]
fn result_line<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 2] {
    [s.add(s.add(m[0], m[1]), m[2]), s.sub(s.sub(m[1], m[2]), m[3])]
}

/// Finishes the positions of a task that exist.
fn store(job: &Job<'_>, task: &Task, panel: usize, result: &[f32]) {
    let Some(columns) = job.columns(panel) else { return };
    let image_tiles = job.image_rows.div_ceil(2);
    let (width, first) = (2 * task.columns.len(), 2 * task.columns.start);
    for (i, row) in (2 * task.rows.start..2 * task.rows.end).enumerate() {
        let (image, y) = (row / (2 * image_tiles), row % (2 * image_tiles));
        if y < job.image_rows {
            let positions = &result[i * width * PANEL..][..width.min(job.columns - first) * PANEL];
            job.finish(&columns, image * job.image_rows + y, first, bytemuck::cast_slice(positions), &[]);
        }
    }
}
