//! Scaled dot-product attention with a streaming softmax: `softmax(Q K^T / sqrt(D)) V`, never a T x S matrix.

use crate::Result;
use crate::device::{Exec, Tensor};

/// Channels `[column, column + heads * head_dim)` of each row of a `[B, T, C]` tensor: a part of a fused projection.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'t, 'e> {
    /// The rows.
    pub tensor: &'t Tensor<'e>,
    /// First channel.
    pub column: usize,
}

/// Settings of one attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'t> {
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Position t sees only positions up to t.
    pub causal: bool,
    /// Sample b uses keys and values number `kv_rows[b]`; by default number b.
    pub kv_rows: Option<&'t [usize]>,
}

/// q `[B, T, *]`, k and v `[P, S, *]` -> `[B, T, heads * head_dim]`. Scale is 1/sqrt(head_dim).
pub fn attention<'e>(
    exec: &'e Exec<'_>,
    settings: Attention<'_>,
    q: Columns<'_, '_>,
    k: Columns<'_, '_>,
    v: Columns<'_, '_>,
) -> Result<Tensor<'e>> {
    let _ = (exec, settings, q, k, v);
    unimplemented!()
}
