//! Scaled dot-product attention with a streaming softmax: `softmax(Q K^T / sqrt(D)) V`, never a T x S matrix.

mod cpu;

use crate::device::{Cost, Device, Exec, Precision, Tensor};
use crate::tensor::DType;
use crate::{Error, Result};

/// Channels `[column, column + heads * head_dim)` of each row of a `[B, T, C]` tensor: a part of a fused projection.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'t, 'e> {
    /// The rows.
    pub tensor: &'t Tensor<'e>,
    /// First channel.
    pub column: usize,
}

impl<'t> Columns<'t, '_> {
    fn rows(self) -> cpu::Rows<'t> {
        cpu::Rows { values: self.tensor.f32(), stride: self.tensor.shape().last(), column: self.column }
    }
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
    /// Number type of the operands of both products; the softmax is f32 in any case.
    pub precision: Precision,
}

/// q `[B, T, *]`, k and v `[P, S, *]` -> `[B, T, heads * head_dim]`. Scale is 1/sqrt(head_dim).
pub fn attention<'e>(
    exec: &'e Exec<'_>,
    settings: Attention<'_>,
    q: Columns<'_, '_>,
    k: Columns<'_, '_>,
    v: Columns<'_, '_>,
) -> Result<Tensor<'e>> {
    let shape = AttentionShape::check(&settings, q, k, v)?;
    let mut out = exec.alloc([shape.batch, shape.queries, shape.width()], DType::F32)?;
    let cost = Cost { op: "attention", shape: out.shape(), flops: shape.flops(), bytes: shape.bytes() };
    if let Some(Device::Cpu(_)) = exec.launch(cost) {
        cpu::attention(&shape, settings.kv_rows, q.rows(), k.rows(), v.rows(), out.f32_mut());
    }
    Ok(out)
}

/// The checked extents of one attention.
#[derive(Clone, Copy, Debug)]
struct AttentionShape {
    /// Samples of queries, B.
    batch: usize,
    /// Samples of keys and values, P.
    pairs: usize,
    /// Positions of a sample of queries, T.
    queries: usize,
    /// Positions of a sample of keys, S.
    keys: usize,
    heads: usize,
    head_dim: usize,
    causal: bool,
}

const OP: &str = "attention";

impl AttentionShape {
    fn check(settings: &Attention<'_>, q: Columns<'_, '_>, k: Columns<'_, '_>, v: Columns<'_, '_>) -> Result<AttentionShape> {
        let &Attention { heads, head_dim, causal, kv_rows, .. } = settings;
        let width = heads * head_dim;
        let fail = |message: String| Err(Error::shape(OP, message));
        if width == 0 {
            return fail(format!("{heads} heads of {head_dim} channels"));
        }
        for (name, part) in [("q", q), ("k", k), ("v", v)] {
            let shape = part.tensor.shape();
            if shape.dims().len() != 3 || shape.is_empty() || part.tensor.dtype() != DType::F32 {
                return fail(format!("{name} is {:?}, not f32 [B, T, C] with something in it", part.tensor));
            }
            if part.column.checked_add(width).is_none_or(|end| end > shape.last()) {
                let last = shape.last();
                return fail(format!("{name} has {last} channels: {heads} x {head_dim} from {} do not fit", part.column));
            }
        }
        let (&[batch, queries, _], &[pairs, keys, _]) = (q.tensor.dims(), k.tensor.dims()) else {
            return fail("rank 3 expected".into());
        };
        if v.tensor.dims()[..2] != [pairs, keys] {
            return fail(format!("keys {:?} and values {:?} differ in samples or positions", k.tensor, v.tensor));
        }
        match kv_rows {
            Some(rows) if rows.len() != batch || rows.iter().any(|&row| row >= pairs) => {
                return fail(format!("kv_rows {rows:?} for {batch} samples of queries and {pairs} of keys"));
            }
            None if batch != pairs => return fail(format!("{batch} samples of queries, {pairs} of keys, and no kv_rows")),
            _ => {}
        }
        Ok(AttentionShape { batch, pairs, queries, keys, heads, head_dim, causal })
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Two products over every pair of a query and a key that it sees; exponentials are not counted.
    fn flops(&self) -> u64 {
        let seen: usize = if self.causal { (1..=self.queries).map(|t| t.min(self.keys)).sum() } else { self.queries * self.keys };
        4 * (self.batch * self.width() * seen) as u64
    }

    /// Queries and result, keys and values, once each.
    fn bytes(&self) -> u64 {
        8 * (self.width() * (self.batch * self.queries + self.pairs * self.keys)) as u64
    }
}
