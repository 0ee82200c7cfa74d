//! Normalisations on the CPU.
//!
//! Group norm reads its input twice, because a group's statistics need all of a sample. Sums are taken channel by channel over
//! chunks of positions, in f32 and relative to the channel's first value, so that a mean far from zero costs no precision;
//! chunks are then added in f64, in order. Chunks depend on the shape of one sample alone, and so do the bits of the result.

use super::Norm;
use crate::device::Cpu;
use crate::device::cpu::blocks::{Block, Walk, for_each_block};
use crate::device::cpu::math::silu;
use crate::device::cpu::parallel::with_scratch;
use crate::device::cpu::vector::{Kernel, Simd};
use std::ops::Range;

/// Elements of a chunk: 64 KiB, so that tasks are many and chunk sums few.
const CHUNK: usize = 16 * 1024;

/// The input of a group norm: one or two tensors with the same positions, whose channels follow each other.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) x: &'a [f32],
    pub(super) skip: &'a [f32],
    /// Channels of x.
    pub(super) x_channels: usize,
    /// Channels of both.
    pub(super) channels: usize,
    /// Positions of a sample.
    pub(super) positions: usize,
}

impl<'a> Input<'a> {
    /// `count` positions from `first`, counted over the whole batch: those of x and those of the skip connection.
    fn positions(&self, first: usize, count: usize) -> [&'a [f32]; 2] {
        let part = |values: &'a [f32], width: usize| &values[first * width..(first + count) * width];
        [part(self.x, self.x_channels), part(self.skip, self.channels - self.x_channels)]
    }
}

/// Positions of a chunk.
fn chunk(channels: usize) -> usize {
    (CHUNK / channels).max(1)
}

/// Chunks of a sample.
pub(super) fn chunks(positions: usize, channels: usize) -> usize {
    positions.div_ceil(chunk(channels))
}

/// `sums` is room for [B, chunks, 2 C], `lines` for [B, 3 C].
pub(super) fn group_norm(
    cpu: &Cpu,
    norm: &Norm,
    input: Input<'_>,
    silu: bool,
    sums: &mut [f32],
    lines: &mut [f32],
    out: &mut [f32],
) {
    let Input { x_channels, channels, positions, .. } = input;
    let (chunk, chunks) = (chunk(channels), chunks(positions, channels));
    for_each_block(sums, 2 * channels, [1, 2 * channels], Walk::Down, |index, _, mut sums| {
        let (sample, first) = (index / chunks * positions, index % chunks * chunk);
        let values = input.positions(sample + first, chunk.min(positions - first));
        let origins = input.positions(sample, 1);
        let (sum, squares) = sums.row(0).split_at_mut(channels);
        let (x_sum, skip_sum) = sum.split_at_mut(x_channels);
        let (x_squares, skip_squares) = squares.split_at_mut(x_channels);
        cpu.vectorise(Sums { values: values[0], origin: origins[0], sum: x_sum, squares: x_squares });
        cpu.vectorise(Sums { values: values[1], origin: origins[1], sum: skip_sum, squares: skip_squares });
    });
    for_each_block(lines, 3 * channels, [1, 3 * channels], Walk::Down, |sample, _, mut lines| {
        let sums = &sums[sample * chunks * 2 * channels..][..chunks * 2 * channels];
        let [x, skip] = input.positions(sample * positions, 1);
        set_lines(norm, positions, sums, x.iter().chain(skip), lines.row(0));
    });
    for_each_block(out, channels, [chunk, channels], Walk::Down, |first, _, mut out| {
        let [x, skip] = input.positions(first, out.rows());
        for (part, columns) in [(x, 0..x_channels), (skip, x_channels..channels)] {
            cpu.vectorise(Apply { x: part, first, positions, columns, lines, channels, silu, out: &mut out });
        }
    });
}

/// For each channel, sums of x - origin and of its square over some positions.
struct Sums<'a> {
    values: &'a [f32],
    origin: &'a [f32],
    sum: &'a mut [f32],
    squares: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.origin.len();
        self.sum.fill(0.0);
        self.squares.fill(0.0);
        // Four positions for each time that the sums are loaded and stored.
        for rows in self.values.chunks(4 * width.max(1)) {
            for c in (0..width).step_by(S::LANES) {
                let origin = s.load_partial(&self.origin[c..]);
                let mut sum = s.load_partial(&self.sum[c..]);
                let mut squares = s.load_partial(&self.squares[c..]);
                for row in rows.chunks_exact(width) {
                    let x = s.sub(s.load_partial(&row[c..]), origin);
                    sum = s.add(sum, x);
                    squares = s.mul_add(x, x, squares);
                }
                s.store_partial(sum, &mut self.sum[c..]);
                s.store_partial(squares, &mut self.squares[c..]);
            }
        }
    }
}

/// From the sums of all chunks of a sample, for each channel: the mean of its group, what to multiply the rest with, what to add.
fn set_lines<'a>(norm: &Norm, positions: usize, sums: &[f32], origin: impl Iterator<Item = &'a f32>, lines: &mut [f32]) {
    let (channels, count) = (norm.channels(), positions as f64);
    let size = channels / norm.groups;
    let (means, rest) = lines.split_at_mut(channels);
    let (factors, biases) = rest.split_at_mut(channels);
    biases.copy_from_slice(norm.bias.f32());
    with_scratch(4 * channels, 0, |scratch| {
        // f64: sums and squares of x - origin, then mean and sum of squared deviations of each channel.
        let totals: &mut [f64] = bytemuck::cast_slice_mut(scratch);
        totals.fill(0.0);
        for chunk in sums.chunks_exact(2 * channels) {
            totals.iter_mut().zip(chunk).for_each(|(total, &sum)| *total += f64::from(sum));
        }
        let (sums, squares) = totals.split_at_mut(channels);
        for ((sum, squares), &origin) in sums.iter_mut().zip(squares.iter_mut()).zip(origin) {
            *squares -= *sum * *sum / count;
            *sum = f64::from(origin) + *sum / count;
        }
        for first in (0..channels).step_by(size) {
            let group = first..first + size;
            let mean = sums[group.clone()].iter().sum::<f64>() / size as f64;
            let between: f64 = sums[group.clone()].iter().map(|m| (m - mean) * (m - mean)).sum();
            let within: f64 = squares[group.clone()].iter().sum();
            let variance = (within / count + between) / size as f64;
            let factor = 1.0 / (variance.max(0.0) + f64::from(norm.eps)).sqrt();
            for c in group {
                means[c] = mean as f32;
                factors[c] = (factor * f64::from(norm.weight.f32()[c])) as f32;
            }
        }
    });
}

/// Brings some channels of some positions onto the line of each channel, y = (x - mean) factor + bias.
struct Apply<'a, 'm> {
    /// Rows of `columns.len()` channels.
    x: &'a [f32],
    /// Number of the first row, counted over the whole batch, and of rows of a sample.
    first: usize,
    positions: usize,
    /// The channels of x among those of the result.
    columns: Range<usize>,
    /// `[B, 3, channels]`: means, factors, biases.
    lines: &'a [f32],
    channels: usize,
    silu: bool,
    out: &'a mut Block<'m>,
}

impl Kernel for Apply<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (columns, channels) = (self.columns, self.channels);
        for (row, x) in self.x.chunks_exact(columns.len().max(1)).enumerate() {
            let lines = &self.lines[(self.first + row) / self.positions * 3 * channels..];
            let [mean, factor, bias] = [0, 1, 2].map(|line| &lines[line * channels..][columns.clone()]);
            let out = &mut self.out.row(row)[columns.clone()];
            for c in (0..x.len()).step_by(S::LANES) {
                let centred = s.sub(s.load_partial(&x[c..]), s.load_partial(&mean[c..]));
                let y = s.mul_add(centred, s.load_partial(&factor[c..]), s.load_partial(&bias[c..]));
                s.store_partial(if self.silu { silu(s, y) } else { y }, &mut out[c..]);
            }
        }
    }
}

pub(super) fn layer_norm(cpu: &Cpu, norm: &Norm, x: &[f32], out: &mut [f32]) {
    let channels = norm.channels();
    for_each_block(out, channels, [chunk(channels), channels], Walk::Down, |first, _, mut out| {
        let x = &x[first * channels..][..out.rows() * channels];
        cpu.vectorise(LayerNorm { norm, x, out: &mut out });
    });
}

/// Layer norm of some rows.
struct LayerNorm<'a, 'm> {
    norm: &'a Norm,
    x: &'a [f32],
    out: &'a mut Block<'m>,
}

impl Kernel for LayerNorm<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (weight, bias) = (self.norm.weight.f32(), self.norm.bias.f32());
        let count = weight.len() as f32;
        for (row, x) in self.x.chunks_exact(weight.len()).enumerate() {
            let out = self.out.row(row);
            let mean = sum::<S, false>(s, x, 0.0) / count;
            let variance = sum::<S, true>(s, x, mean) / count;
            let (mean, factor) = (s.splat(mean), s.splat(1.0 / (variance + self.norm.eps).sqrt()));
            for c in (0..x.len()).step_by(S::LANES) {
                let centred = s.mul(s.sub(s.load_partial(&x[c..]), mean), factor);
                let y = s.mul_add(centred, s.load_partial(&weight[c..]), s.load_partial(&bias[c..]));
                s.store_partial(y, &mut out[c..]);
            }
        }
    }
}

/// Sum of x - origin over a row, or of its square.
#[inline(always)]
fn sum<S: Simd, const SQUARED: bool>(s: S, x: &[f32], origin: f32) -> f32 {
    const CHAINS: usize = 4;
    let at = s.splat(origin);
    let add = |sum, x| {
        let x = s.sub(s.load(x), at);
        if SQUARED { s.mul_add(x, x, sum) } else { s.add(sum, x) }
    };
    let mut sums = [s.splat(0.0); CHAINS];
    let blocks = x.chunks_exact(CHAINS * S::LANES);
    let vectors = blocks.remainder().chunks_exact(S::LANES);
    let rest = vectors.remainder();
    for block in blocks {
        for i in 0..CHAINS {
            sums[i] = add(sums[i], &block[i * S::LANES..]);
        }
    }
    for vector in vectors {
        sums[0] = add(sums[0], vector);
    }
    let total = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
    rest.iter().fold(total, |total, x| total + if SQUARED { (x - origin) * (x - origin) } else { x - origin })
}
