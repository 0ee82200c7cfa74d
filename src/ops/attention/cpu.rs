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
//! Keys and values are brought into [`panels`](super::panels) once; tasks then take (sample, head, block of queries) and walk the keys
//! in blocks that stay in the cache, rescaling what they have when the maximum of a row grows.
//! Every query computes alone, in its lane, in one order of additions: its bits depend on nothing else in the batch.
//!
//! What bounds it: 4 D operations and one exponential (11 instructions for a register of them) for each query and key, so at
//! D = 40 in f32 at most 85% of the multiply-add peak. Shares of the peak of one core with AVX-512, 4096 x 4096, D = 40:
//!
//! | tried | f32 | bf16 | kept |
//! |---|---|---|---|
//! | tiles of 12 x 32 for both products, blocks of 96 keys, operands packed one by one | 74% | 45% | |
//! | packing with vectors, transposing in registers | 74% | 57% | yes |
//! | no masked load of an empty tail: it reads nothing, but from no valid address, in microcode | 74% | 61% | yes |
//! | blocks of 48 / 144 / 288 keys | 72 / 72 / 72% | 61 / 61 / 60% | no |
//! | blocks of 192 keys | 74% | 62% | yes |
//! | wide heads in parts of at most 192 channels, at D = 512 | 52% to 63% | 78% to 81% | yes |
//! | four groups of queries to a block of keys and values, fewer keys of wide heads | 74% to 78% | 62% to 64% | yes |
//! | the same at D = 512, when neighbours keep the shared cache busy | 38% to 71% | 76% to 69% | yes |
//! | all heads of a block of queries in turn, where their keys fit the second-level cache (77 keys) | 29% to 31% | 12% | yes |

use super::AttentionShape;
use super::panels::{Head, Operand, REGISTERS, Rows, Task, key_block, packed_words, tiles};
use crate::device::Cpu;
use crate::device::cpu::blocks::{Block, Walk, for_each_block};
use crate::device::cpu::math::exp2;
use crate::device::cpu::parallel::with_scratch;
use crate::device::cpu::vector::Simd;
use rayon::prelude::*;

/// Bytes of keys and values that stay in the second-level cache beside everything else.
const KEPT: usize = 512 * 1024;

/// Groups of queries of a task whose keys and values do not stay in the cache.
const GROUPS: usize = 4;

/// The score of a key that is not visible, and the maximum of no scores: 2^x of it is 0, and it is finite.
const HIDDEN: f32 = -1e30;

/// Words of channels that are summed before the next ones: their rows of queries stay in the first-level cache.
const DEPTH: usize = 192;

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
    let lanes = REGISTERS * cpu.lanes();
    let (bytes, key_block) = (4 * (k_words + v_words), key_block(k_words / shape.keys));
    // Keys and values of a head that do not stay in the cache are fetched once for several groups of queries, if that leaves
    // every thread some tasks.
    let tasks = shape.batch * shape.heads * shape.queries.div_ceil(GROUPS * lanes);
    let groups = if bytes > KEPT && tasks >= 4 * cpu.threads() { GROUPS } else { 1 };
    // Neighbouring tasks share what costs more to fetch: keys and values of their head, or the lines that their queries lie in.
    let walk = if bytes * shape.heads <= KEPT { Walk::Across } else { Walk::Down };
    out.par_chunks_exact_mut(shape.queries * width).enumerate().for_each(|(sample, out)| {
        for_each_block(out, width, [groups * lanes, d], walk, |first, column, out| {
            let pair = kv_rows.map_or(sample, |rows| rows[sample]);
            let head = pair * shape.heads + column / d;
            let start = (sample * shape.queries + first) * q.stride + q.column + column;
            let q = Head { values: &q.values[start..], stride: q.stride, d };
            let (k, v) = (&packed_k[head * k_words..][..k_words], &packed_v[head * v_words..][..v_words]);
            with_scratch((2 * groups * d + key_block) * lanes, 0, |scratch| {
                let (scores, scratch) = scratch.split_at_mut(key_block * lanes);
                let (results, queries) = scratch.split_at_mut(groups * d * lanes);
                shape.run(cpu, Attend { shape, first, q, k, v, out, queries, scores, results });
            });
        });
    });
}

/// Some groups of queries, as many as there are lanes in each, of one head of one sample.
struct Attend<'a> {
    shape: &'a AttentionShape,
    /// Position of the first query.
    first: usize,
    q: Head<'a>,
    k: &'a [f32],
    v: &'a [f32],
    out: Block<'a>,
    /// Room for the words of the queries and for the results, group after group, and for the scores of a block of keys.
    queries: &'a mut [f32],
    scores: &'a mut [f32],
    results: &'a mut [f32],
}

impl Task for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, O: Operand<S>>(self, s: S) {
        let Attend { shape, first, mut out, queries, scores, results, .. } = self;
        let (d, lanes) = (shape.head_dim, REGISTERS * S::LANES);
        let words = d.div_ceil(O::PACK);
        let key_block = key_block(words);
        let (q_len, result_len) = (words * lanes, d * lanes);
        let groups = out.rows().div_ceil(lanes);
        for (group, q) in queries.chunks_exact_mut(q_len).enumerate().take(groups) {
            self.q.panel_of_channels::<S, O>(s, group * lanes, lanes.min(out.rows() - group * lanes), lanes, q);
        }
        results.fill(0.0);
        let mut softmax = [Softmax::new(s, d); GROUPS];
        let seen = if shape.causal { shape.keys.min(first + out.rows()) } else { shape.keys };
        for start in (0..seen).step_by(key_block) {
            let keys = key_block.min(shape.keys - start);
            let v_words = keys.div_ceil(O::PACK);
            let (k, v) = (&self.k[start * words..][..keys * words], &self.v[start / O::PACK * d..][..v_words * d]);
            for (group, softmax) in softmax.iter_mut().enumerate().take(groups) {
                score::<S, O>(s, k, keys, &queries[group * q_len..][..q_len], scores);
                if shape.causal {
                    hide::<S>(first + group * lanes, start, &mut scores[..keys * lanes]);
                }
                let shrink = softmax.block::<O>(s, scores, keys);
                gather::<S, O>(s, v, &scores[..v_words * lanes], shrink, &mut results[group * result_len..][..result_len]);
            }
        }
        for (group, result) in results.chunks_exact_mut(result_len).enumerate().take(groups) {
            finish(s, result, softmax[group].sum, group * lanes, &mut out);
        }
    }
}

/// The value of an expression in which M is the constant that equals `$len`, 1 to 12.
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

/// `scores = K Q^T` for a block of keys and a group of queries.
#[inline(always)]
fn score<S: Simd, O: Operand<S>>(s: S, k: &[f32], keys: usize, q: &[f32], scores: &mut [f32]) {
    let lanes = REGISTERS * S::LANES;
    let words = k.len() / keys;
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
}

/// `result = shrink result + V^T P` for a block of keys and a group of queries.
#[inline(always)]
fn gather<S: Simd, O: Operand<S>>(s: S, v: &[f32], probabilities: &[f32], shrink: Lanes<S>, result: &mut [f32]) {
    let lanes = REGISTERS * S::LANES;
    let words = probabilities.len() / lanes;
    for (channel, len) in tiles(v.len() / words, S::ACCUMULATORS / REGISTERS) {
        let panel = &v[channel * words..][..len * words];
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
fn hide<S: Simd>(first: usize, start: usize, scores: &mut [f32]) {
    for (key, row) in scores.chunks_exact_mut(REGISTERS * S::LANES).enumerate() {
        let visible_from = (start + key).saturating_sub(first);
        row[..visible_from.min(REGISTERS * S::LANES)].fill(HIDDEN);
    }
}

/// The running softmax of a group of queries.
#[derive(Clone, Copy)]
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
    /// Of no keys.
    #[inline(always)]
    fn new(s: S, head_dim: usize) -> Softmax<S> {
        let none = [s.splat(HIDDEN); REGISTERS];
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        Softmax { scale: s.splat(scale), max: none, base: none, sum: [s.splat(0.0); REGISTERS] }
    }

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

/// Divides by the sums and brings the queries from lanes back into rows, from row `first` on.
#[inline(always)]
fn finish<S: Simd>(s: S, result: &mut [f32], sum: Lanes<S>, first: usize, out: &mut Block<'_>) {
    let lanes = REGISTERS * S::LANES;
    for row in result.chunks_exact_mut(lanes) {
        let mut values = load_lanes(s, row);
        for j in 0..REGISTERS {
            values[j] = s.div(values[j], sum[j]);
        }
        store_lanes(s, values, row);
    }
    let (d, rows) = (result.len() / lanes, lanes.min(out.rows() - first));
    for (query, channel) in (0..rows).step_by(S::LANES).flat_map(|q| (0..d).step_by(S::LANES).map(move |c| (q, c))) {
        let mut square = [s.splat(0.0); 16];
        for (words, row) in square.iter_mut().zip(result[channel * lanes..].chunks_exact(lanes)).take(S::LANES) {
            *words = s.load(&row[query..]);
        }
        s.transpose(&mut square);
        let end = d.min(channel + S::LANES);
        for row in query..rows.min(query + S::LANES) {
            s.store_partial(square[row - query], &mut out.row(first + row)[channel..end]);
        }
    }
}
