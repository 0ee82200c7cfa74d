//! Operands of attention on the CPU, brought into the order in which the products read them.
//!
//! A panel holds some rows of a tile (keys, or channels of values) for the whole summed index (channels, or keys of a block): for
//! each word of the summed index, the words of those rows side by side. Panels follow each other without padding:
//! `[P, heads, blocks of keys, panels]`.

use super::AttentionShape;
use crate::device::Cpu;
use crate::device::cpu::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
use rayon::prelude::*;

/// Keys that are scored, exponentiated and multiplied with their values before the next ones: fewer of wide heads, so that keys
/// and values of a block take at most a quarter of the second-level cache. Even, for pairs of bf16.
pub(super) fn key_block(words_of_a_key: usize) -> usize {
    (32 * 1024 / words_of_a_key).clamp(32, 192) & !1
}

/// Registers of queries in a task.
pub(super) const REGISTERS: usize = 2;

/// The channels of one operand in rows of `stride` values, from `column`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) column: usize,
}

/// How operands of the products are stored: in words of 32 bits.
pub(super) trait Operand<S: Simd> {
    /// Consecutive elements of the summed index in one word.
    const PACK: usize;
    /// Words of elements that lie in different registers; of the first alone if `PACK` is 1.
    fn words(s: S, low: S::V, high: S::V) -> S::V;
    /// Words of neighbouring elements, a register of them or as many as there are.
    fn neighbours(s: S, x: &[f32]) -> S::V;
    /// c + the products of the elements of a and b.
    fn mul_add(s: S, a: S::V, b: S::V, c: S::V) -> S::V;
}

/// A word is an f32.
struct Single;

impl<S: Simd> Operand<S> for Single {
    const PACK: usize = 1;
    #[inline(always)]
    fn words(_: S, low: S::V, _: S::V) -> S::V {
        low
    }
    #[inline(always)]
    fn neighbours(s: S, x: &[f32]) -> S::V {
        s.load_partial(x)
    }
    #[inline(always)]
    fn mul_add(s: S, a: S::V, b: S::V, c: S::V) -> S::V {
        s.mul_add(a, b, c)
    }
}

/// A word is two bfloat16.
struct Pair;

impl<S: SimdBf16> Operand<S> for Pair {
    const PACK: usize = 2;
    #[inline(always)]
    fn words(s: S, low: S::V, high: S::V) -> S::V {
        s.pair_bf16(low, high)
    }
    #[inline(always)]
    fn neighbours(s: S, x: &[f32]) -> S::V {
        s.neighbours_bf16(s.load_partial(x), s.load_partial(x.get(S::LANES..).unwrap_or(&[])))
    }
    #[inline(always)]
    fn mul_add(s: S, a: S::V, b: S::V, c: S::V) -> S::V {
        s.dot_bf16(c, a, b)
    }
}

/// `0..len` in the fewest tiles of at most `limit`, as equal as possible: `(start, length)`.
#[inline(always)]
pub(super) fn tiles(len: usize, limit: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = len.div_ceil(limit);
    (0..count).map(move |i| (i * len / count, (i + 1) * len / count - i * len / count))
}

/// Rows of one head: row i is `values[i * stride..][..d]`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) d: usize,
}

impl<'a> Head<'a> {
    fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.d]
    }

    /// A panel for sums over channels: for each word of channels, those of rows `first..first + rows`, and zeros up to `width`.
    #[inline(always)]
    pub(super) fn panel_of_channels<S: Simd, O: Operand<S>>(
        &self,
        s: S,
        first: usize,
        rows: usize,
        width: usize,
        panel: &mut [f32],
    ) {
        for i in (0..width).step_by(S::LANES) {
            for (c, panel) in (0..self.d).step_by(S::LANES * O::PACK).zip(panel.chunks_mut(S::LANES * width)) {
                let mut square = [s.splat(0.0); 16];
                for (j, words) in square.iter_mut().enumerate().take(S::LANES) {
                    if i + j < rows {
                        *words = O::neighbours(s, &self.row(first + i + j)[c..]);
                    }
                }
                s.transpose(&mut square);
                let end = width.min(i + S::LANES);
                panel.chunks_exact_mut(width).zip(square).for_each(|(panel, words)| s.store_partial(words, &mut panel[i..end]));
            }
        }
    }

    /// A panel for sums over rows: for each word of the first `rows` rows, `width` channels from `channel`.
    #[inline(always)]
    fn panel_of_rows<S: Simd, O: Operand<S>>(&self, s: S, rows: usize, channel: usize, width: usize, panel: &mut [f32]) {
        let channels = |row: usize| if row < rows { &self.row(row)[channel..][..width] } else { &[] };
        for (word, panel) in panel.chunks_exact_mut(width).enumerate() {
            let low = channels(word * O::PACK);
            let high = if O::PACK == 2 { channels(word * O::PACK + 1) } else { low };
            for c in (0..width).step_by(S::LANES) {
                let [low, high] = [low, high].map(|x| s.load_partial(x.get(c..).unwrap_or(&[])));
                s.store_partial(O::words(s, low, high), &mut panel[c..]);
            }
        }
    }
}

/// Words of the keys and of the values of one head.
pub(super) fn packed_words(cpu: &Cpu, shape: &AttentionShape) -> [usize; 2] {
    let pack = if shape.bf16(cpu) { 2 } else { 1 };
    [shape.keys * shape.head_dim.div_ceil(pack), shape.keys.div_ceil(pack) * shape.head_dim]
}

/// Brings keys and values of all samples and heads into panels `[P, heads, words]`.
pub(super) fn pack(cpu: &Cpu, shape: &AttentionShape, k: Rows<'_>, v: Rows<'_>, packed_k: &mut [f32], packed_v: &mut [f32]) {
    let d = shape.head_dim;
    let [k_words, v_words] = packed_words(cpu, shape);
    let key_block = key_block(k_words / shape.keys);
    let heads = packed_k.par_chunks_exact_mut(k_words).zip(packed_v.par_chunks_exact_mut(v_words)).enumerate();
    heads.for_each(|(index, (packed_k, packed_v))| {
        let (pair, head) = (index / shape.heads, index % shape.heads);
        let block_k = key_block * k_words / shape.keys;
        let block_v = key_block * d / if shape.bf16(cpu) { 2 } else { 1 };
        let blocks = packed_k.par_chunks_mut(block_k).zip(packed_v.par_chunks_mut(block_v)).enumerate();
        blocks.for_each(|(block, (packed_k, packed_v))| {
            let first = block * key_block;
            let keys = key_block.min(shape.keys - first);
            let from = |rows: Rows<'_>| (pair * shape.keys + first) * rows.stride + rows.column + head * d;
            let [k, v] = [k, v].map(|rows| Head { values: &rows.values[from(rows)..], stride: rows.stride, d });
            shape.run(cpu, Pack { keys, k, v, packed_k, packed_v });
        });
    });
}

/// One block of keys and values of one head.
struct Pack<'a> {
    keys: usize,
    k: Head<'a>,
    v: Head<'a>,
    packed_k: &'a mut [f32],
    packed_v: &'a mut [f32],
}

impl Task for Pack<'_> {
    #[inline(always)]
    fn run<S: Simd, O: Operand<S>>(self, s: S) {
        let (keys, d, tile) = (self.keys, self.k.d, S::ACCUMULATORS / REGISTERS);
        let words = d.div_ceil(O::PACK);
        for (start, len) in tiles(keys, tile) {
            self.k.panel_of_channels::<S, O>(s, start, len, len, &mut self.packed_k[start * words..][..len * words]);
        }
        let words = keys.div_ceil(O::PACK);
        for (start, len) in tiles(d, tile) {
            self.v.panel_of_rows::<S, O>(s, keys, start, len, &mut self.packed_v[start * words..][..len * words]);
        }
    }
}

/// A computation on operands of either kind.
pub(super) trait Task {
    fn run<S: Simd, O: Operand<S>>(self, s: S);
}

/// A [`Task`] on f32 or bf16 operands.
struct On<T>(T);

impl<T: Task> Kernel for On<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run::<S, Single>(s);
    }
}

impl<T: Task> Bf16Kernel for On<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: SimdBf16>(self, s: S) {
        self.0.run::<S, Pair>(s);
    }
}

impl AttentionShape {
    /// Runs `task` on operands of the type that this attention multiplies.
    pub(super) fn run(&self, cpu: &Cpu, task: impl Task) {
        let task = On(task);
        match if self.bf16(cpu) { cpu.vectorise_bf16(task) } else { Err(task) } {
            Ok(()) => {}
            Err(task) => cpu.vectorise(task),
        }
    }
}
