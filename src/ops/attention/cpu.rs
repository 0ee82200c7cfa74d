//! Attention on the CPU.
//!
//! Queries lie along the lanes of the vectors, two registers of them to a task; keys, and channels of values, are broadcast. So
//! the maxima and sums of the softmax need no horizontal steps, no head width is padded, and both products are the same small
//! kernel, `tile += panel^T rows`:
//!
//! | product | tile | panel | rows |
//! |---|---|---|---|
//! | scores = K Q^T | keys x queries | keys, channel by channel | Q^T: a row for each channel |
//! | result = V^T P | channels x queries | values, key by key | P: a row for each key |
//!
//! Keys and values are brought into panels once, by [`pack`]; tasks then take (sample, head, block of queries) and walk the keys
//! in blocks of [`KEY_BLOCK`] that stay in the first-level cache, rescaling what they have when the maximum of a row grows.
//! Every query computes alone, in its lane, in one order of additions: its bits depend on nothing else in the batch.

use super::AttentionShape;
use crate::device::Cpu;
use crate::device::cpu::blocks::{Block, Walk, for_each_block};
use crate::device::cpu::math::exp2;
use crate::device::cpu::parallel::with_scratch;
use crate::device::cpu::vector::{Bf16Kernel, Kernel, Simd, SimdBf16};
use rayon::prelude::*;

/// Keys that are scored, exponentiated and multiplied with their values before the next ones. Even, for pairs of bf16.
const KEY_BLOCK: usize = 192;

/// Bytes of keys and values that stay in the second-level cache beside everything else.
const KEPT: usize = 512 * 1024;

/// The score of a key that is not visible, and the maximum of no scores: 2^x of it is 0, and it is finite.
const HIDDEN: f32 = -1e30;

/// Words of channels that are summed before the next ones: their rows of queries stay in the first-level cache.
const DEPTH: usize = 192;

/// Registers of queries in a task.
const REGISTERS: usize = 2;

/// The channels of one operand in rows of `stride` values, from `column`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) column: usize,
}

/// How operands of the products are stored: in words of 32 bits.
trait Operand<S: Simd> {
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
fn tiles(len: usize, limit: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = len.div_ceil(limit);
    (0..count).map(move |i| (i * len / count, (i + 1) * len / count - i * len / count))
}

/// Rows of one head: row i is `values[i * stride..][..d]`.
#[derive(Clone, Copy)]
struct Head<'a> {
    values: &'a [f32],
    stride: usize,
    d: usize,
}

impl<'a> Head<'a> {
    fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.d]
    }

    /// A panel for sums over channels: for each word of channels, those of rows `first..first + rows`, and zeros up to `width`.
    #[inline(always)]
    fn panel_of_channels<S: Simd, O: Operand<S>>(&self, s: S, first: usize, rows: usize, width: usize, panel: &mut [f32]) {
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
    let heads = packed_k.par_chunks_exact_mut(k_words).zip(packed_v.par_chunks_exact_mut(v_words)).enumerate();
    heads.for_each(|(index, (packed_k, packed_v))| {
        let (pair, head) = (index / shape.heads, index % shape.heads);
        let block_k = KEY_BLOCK * k_words / shape.keys;
        let block_v = KEY_BLOCK * d / if shape.bf16(cpu) { 2 } else { 1 };
        let blocks = packed_k.par_chunks_mut(block_k).zip(packed_v.par_chunks_mut(block_v)).enumerate();
        blocks.for_each(|(block, (packed_k, packed_v))| {
            let first = block * KEY_BLOCK;
            let keys = KEY_BLOCK.min(shape.keys - first);
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
trait Task {
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
    fn run(&self, cpu: &Cpu, task: impl Task) {
        let task = On(task);
        match if self.bf16(cpu) { cpu.vectorise_bf16(task) } else { Err(task) } {
            Ok(()) => {}
            Err(task) => cpu.vectorise(task),
        }
    }
}

/// Attention of all queries to packed keys and values.
pub(super) fn attend(
    cpu: &Cpu,
    shape: &AttentionShape,
    kv_rows: Option<&[usize]>,
    q: Rows<'_>,
    [packed_k, packed_v]: [&[f32]; 2],
    out: &mut [f32],
) {
    let d = shape.head_dim;
    let [k_words, v_words] = packed_words(cpu, shape);
    let width = shape.width();
    let query_block = REGISTERS * cpu.lanes();
    // Neighbouring tasks share what costs more to fetch: keys and values of their head, or the lines that their queries lie in.
    let walk = if 4 * (k_words + v_words) * shape.heads <= KEPT { Walk::Across } else { Walk::Down };
    out.par_chunks_exact_mut(shape.queries * width).enumerate().for_each(|(sample, out)| {
        for_each_block(out, width, [query_block, d], walk, |first, column, out| {
            let pair = kv_rows.map_or(sample, |rows| rows[sample]);
            let head = pair * shape.heads + column / d;
            let start = (sample * shape.queries + first) * q.stride + q.column + column;
            let q = Head { values: &q.values[start..], stride: q.stride, d };
            let (k, v) = (&packed_k[head * k_words..][..k_words], &packed_v[head * v_words..][..v_words]);
            with_scratch((2 * d + KEY_BLOCK) * query_block, 0, |scratch| {
                let (scores, scratch) = scratch.split_at_mut(KEY_BLOCK * query_block);
                let (result, words) = scratch.split_at_mut(d * query_block);
                shape.run(cpu, Attend { shape, first, q, k, v, out, scratch: [words, scores, result] });
            });
        });
    });
}

/// A block of queries of one head of one sample.
struct Attend<'a> {
    shape: &'a AttentionShape,
    /// Position of the first query.
    first: usize,
    q: Head<'a>,
    k: &'a [f32],
    v: &'a [f32],
    out: Block<'a>,
    /// Room for the words of the queries, the scores of a block of keys, and the result.
    scratch: [&'a mut [f32]; 3],
}

impl Task for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, O: Operand<S>>(self, s: S) {
        attend_block::<S, O>(s, self);
    }
}

/// The value of `$function::<.., M>(..)` for the M that equals `$len`, 1 to 12.
macro_rules! with_tile {
    ($len:expr, |$m:ident| $body:expr) => {
        with_tile!(@ $len, $m, $body, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $len:expr, $m:ident, $body:expr, $($n:literal)*) => {
        match $len {
            $($n => { const $m: usize = $n; $body })*
            _ => unreachable!("tiles have at most 12 rows"),
        }
    };
}

/// Two registers: one for each half of the queries of a task.
type Lanes<S> = [<S as Simd>::V; REGISTERS];

#[inline(always)]
fn attend_block<S: Simd, O: Operand<S>>(s: S, mut task: Attend<'_>) {
    let Attend { shape, first, scratch: [ref mut q, ref mut scores, ref mut result], .. } = task;
    let (d, queries, lanes) = (shape.head_dim, task.out.rows(), REGISTERS * S::LANES);
    let words = d.div_ceil(O::PACK);
    let q = &mut q[..words * lanes];
    task.q.panel_of_channels::<S, O>(s, 0, queries, lanes, q);
    result.fill(0.0);
    let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
    let none = [s.splat(HIDDEN); REGISTERS];
    let mut softmax = Softmax { scale: s.splat(scale), max: none, base: none, sum: [s.splat(0.0); REGISTERS] };
    let seen = if shape.causal { shape.keys.min(first + queries) } else { shape.keys };
    for start in (0..seen).step_by(KEY_BLOCK) {
        let keys = KEY_BLOCK.min(shape.keys - start);
        let k = &task.k[start * words..][..keys * words];
        let v_words = keys.div_ceil(O::PACK);
        let v = &task.v[start / O::PACK * d..][..v_words * d];

        for (word, depth) in tiles(words, DEPTH) {
            let q = &q[word * lanes..][..depth * lanes];
            for (row, len) in tiles(keys, S::ACCUMULATORS / REGISTERS) {
                let panel = &k[row * words + word * len..][..len * depth];
                let out = &mut scores[row * lanes..][..len * lanes];
                with_tile!(len, |M| {
                    let mut tile = if word == 0 { [[s.splat(0.0); REGISTERS]; M] } else { load_tile::<S, M>(s, out) };
                    product::<S, O, M>(s, panel, q, &mut tile);
                    store_tile(s, &tile, out);
                });
            }
        }
        if shape.causal && start + keys > first {
            mask::<S>(first, start, &mut scores[..keys * lanes]);
        }
        let shrink = softmax.block::<O>(s, scores, keys);
        let probabilities = &scores[..v_words * lanes];
        for (channel, len) in tiles(d, S::ACCUMULATORS / REGISTERS) {
            let panel = &v[channel * v_words..][..len * v_words];
            let out = &mut result[channel * lanes..][..len * lanes];
            with_tile!(len, |M| {
                let mut tile = load_tile::<S, M>(s, out);
                for j in 0..REGISTERS {
                    tile.iter_mut().for_each(|row| row[j] = s.mul(row[j], shrink[j]));
                }
                product::<S, O, M>(s, panel, probabilities, &mut tile);
                store_tile(s, &tile, out);
            });
        }
    }
    finish(s, result, softmax.sum, &mut task.out);
}

/// `tile[i] += sum over r of panel[r][i] rows[r]`.
#[inline(always)]
fn product<S: Simd, O: Operand<S>, const M: usize>(s: S, panel: &[f32], rows: &[f32], tile: &mut [Lanes<S>; M]) {
    let mut sums = *tile;
    for (column, row) in panel.chunks_exact(M).zip(rows.chunks_exact(REGISTERS * S::LANES)) {
        let row = load_lanes(s, row);
        for i in 0..M {
            let x = s.splat(column[i]);
            for j in 0..REGISTERS {
                sums[i][j] = O::mul_add(s, x, row[j], sums[i][j]);
            }
        }
    }
    *tile = sums;
}

#[inline(always)]
fn load_lanes<S: Simd>(s: S, row: &[f32]) -> Lanes<S> {
    let mut lanes = [s.splat(0.0); REGISTERS];
    for j in 0..REGISTERS {
        lanes[j] = s.load(&row[j * S::LANES..]);
    }
    lanes
}

#[inline(always)]
fn store_lanes<S: Simd>(s: S, lanes: Lanes<S>, row: &mut [f32]) {
    for j in 0..REGISTERS {
        s.store(lanes[j], &mut row[j * S::LANES..]);
    }
}

#[inline(always)]
fn load_tile<S: Simd, const M: usize>(s: S, rows: &[f32]) -> [Lanes<S>; M] {
    let mut tile = [[s.splat(0.0); REGISTERS]; M];
    for i in 0..M {
        tile[i] = load_lanes(s, &rows[i * REGISTERS * S::LANES..]);
    }
    tile
}

#[inline(always)]
fn store_tile<S: Simd, const M: usize>(s: S, tile: &[Lanes<S>; M], rows: &mut [f32]) {
    for i in 0..M {
        store_lanes(s, tile[i], &mut rows[i * REGISTERS * S::LANES..]);
    }
}

/// Hides keys that come after their query: queries from `first` in the lanes, keys from `start` in the rows.
#[inline(always)]
fn mask<S: Simd>(first: usize, start: usize, scores: &mut [f32]) {
    for (key, row) in scores.chunks_exact_mut(REGISTERS * S::LANES).enumerate() {
        let visible_from = (start + key).saturating_sub(first);
        row[..visible_from.min(REGISTERS * S::LANES)].fill(HIDDEN);
    }
}

/// The running softmax of a block of queries.
struct Softmax<S: Simd> {
    /// From products to exponents of 2, which cost less than those of e: log2(e) / sqrt(d).
    scale: S::V,
    /// Largest score so far.
    max: Lanes<S>,
    /// scale max: what is taken off exponents. Its rounding is the same for all keys, and so leaves no trace in the result.
    base: Lanes<S>,
    /// Sum of 2^(scale (score - max)) so far.
    sum: Lanes<S>,
}

impl<S: Simd> Softmax<S> {
    /// Replaces the scores of a block of keys by 2^(scale (score - max)), in words, and returns by what to multiply earlier results.
    #[inline(always)]
    fn block<O: Operand<S>>(&mut self, s: S, scores: &mut [f32], keys: usize) -> Lanes<S> {
        let lanes = REGISTERS * S::LANES;
        let mut max = self.max;
        for row in scores[..keys * lanes].chunks_exact(lanes) {
            let row = load_lanes(s, row);
            for j in 0..REGISTERS {
                max[j] = s.max(max[j], row[j]);
            }
        }
        let (mut base, mut shrink) = (max, max);
        for j in 0..REGISTERS {
            base[j] = s.mul(max[j], self.scale);
            shrink[j] = exp2(s, s.sub(self.base[j], base[j]));
        }
        let mut sum = [s.splat(0.0); REGISTERS];
        for word in 0..keys.div_ceil(O::PACK) {
            let mut parts = [[s.splat(0.0); REGISTERS]; 2];
            for (part, key) in (word * O::PACK..keys.min((word + 1) * O::PACK)).enumerate() {
                let row = load_lanes(s, &scores[key * lanes..]);
                for j in 0..REGISTERS {
                    parts[part][j] = exp2(s, s.mul_sub(row[j], self.scale, base[j]));
                    sum[j] = s.add(sum[j], parts[part][j]);
                }
            }
            for j in 0..REGISTERS {
                s.store(O::words(s, parts[0][j], parts[1][j]), &mut scores[word * lanes + j * S::LANES..]);
            }
        }
        for j in 0..REGISTERS {
            self.sum[j] = s.mul_add(self.sum[j], shrink[j], sum[j]);
        }
        (self.max, self.base) = (max, base);
        shrink
    }
}

/// Divides by the sums and brings the queries from lanes back into rows.
#[inline(always)]
fn finish<S: Simd>(s: S, result: &mut [f32], sum: Lanes<S>, out: &mut Block<'_>) {
    let lanes = REGISTERS * S::LANES;
    for row in result.chunks_exact_mut(lanes) {
        let mut values = load_lanes(s, row);
        for j in 0..REGISTERS {
            values[j] = s.div(values[j], sum[j]);
        }
        store_lanes(s, values, row);
    }
    let d = result.len() / lanes;
    for (first, channel) in (0..out.rows()).step_by(S::LANES).flat_map(|q| (0..d).step_by(S::LANES).map(move |c| (q, c))) {
        let mut square = [s.splat(0.0); 16];
        for (words, row) in square.iter_mut().zip(result[channel * lanes..].chunks_exact(lanes)).take(S::LANES) {
            *words = s.load(&row[first..]);
        }
        s.transpose(&mut square);
        let end = d.min(channel + S::LANES);
        for query in first..out.rows().min(first + S::LANES) {
            s.store_partial(square[query - first], &mut out.row(query)[channel..end]);
        }
    }
}
