//! Attention on the CPU.

use super::AttentionShape;
use rayon::prelude::*;

/// The channels of one operand in rows of `stride` values, from `column`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) column: usize,
}

pub(super) fn attention(
    shape: &AttentionShape,
    kv_rows: Option<&[usize]>,
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    out: &mut [f32],
) {
    let d = shape.head_dim;
    let scale = 1.0 / (d as f32).sqrt();
    let row = |part: Rows<'_>, row: usize, head: usize| {
        let start = row * part.stride + part.column + head * d;
        start..start + d
    };
    let (qs, ks, vs) = (q.values, k.values, v.values);
    out.par_chunks_mut(shape.width()).enumerate().for_each(|(r, out)| {
        let (b, t) = (r / shape.queries, r % shape.queries);
        let first = kv_rows.map_or(b, |rows| rows[b]) * shape.keys;
        let seen = if shape.causal { shape.keys.min(t + 1) } else { shape.keys };
        for (head, out) in out.chunks_mut(d).enumerate() {
            let q = &qs[row(q, r, head)];
            let (mut max, mut sum) = (f32::NEG_INFINITY, 0.0);
            out.fill(0.0);
            for s in first..first + seen {
                let score = scale * q.iter().zip(&ks[row(k, s, head)]).map(|(a, b)| a * b).sum::<f32>();
                if score > max {
                    let shrink = (max - score).exp();
                    max = score;
                    sum *= shrink;
                    out.iter_mut().for_each(|o| *o *= shrink);
                }
                let weight = (score - max).exp();
                sum += weight;
                out.iter_mut().zip(&vs[row(v, s, head)]).for_each(|(o, v)| *o += weight * v);
            }
            out.iter_mut().for_each(|o| *o /= sum);
        }
    });
}
