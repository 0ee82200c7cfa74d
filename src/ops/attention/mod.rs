//! Scaled dot-product attention with a streaming softmax: `softmax(Q K^T / sqrt(D)) V`, never a T x S matrix.

mod cpu;
pub(crate) mod gpu;
mod panels;
#[cfg(test)]
mod tests;

use crate::device::cpu::Isa;
use crate::device::{Buffer, Cost, Cpu, Device, Exec, Precision, Tensor};
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
    fn rows(self) -> panels::Rows<'t> {
        panels::Rows { values: self.tensor.f32(), stride: self.tensor.shape().last(), column: self.column }
    }
}

/// For each sample of queries, the number of its keys and values. A GPU keeps them in its own memory: a captured pass reads them there.
#[derive(Debug)]
pub struct KvRows {
    rows: Vec<usize>,
    table: Option<Buffer>,
}

impl KvRows {
    /// Sample b uses keys and values number `rows[b]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a number that kernels cannot hold; [`Error::Usage`] if the device has no memory for them.
    pub fn new(device: &Device, rows: Vec<usize>) -> Result<KvRows> {
        let table = match device {
            Device::Cpu(_) => None,
            Device::Gpu(_) => {
                let numbers = rows.iter().map(|&row| u32::try_from(row)).collect::<std::result::Result<Vec<u32>, _>>();
                let numbers = numbers.map_err(|e| Error::shape(OP, format!("kv_rows {rows:?}: {e}")))?;
                Some(Buffer::from_u32(device, [rows.len()], &numbers)?)
            }
        };
        Ok(KvRows { rows, table })
    }

    /// The numbers, sample by sample.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The same, of u32, where a GPU reads them.
    fn table(&self) -> Option<&Buffer> {
        self.table.as_ref()
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
    /// Which keys and values a sample uses; by default sample b number b.
    pub kv_rows: Option<&'t KvRows>,
    /// Number type of the operands of both products on a CPU; the softmax is f32 in any case.
    pub precision: Precision,
}

/// q `[B, T, *]`, k and v `[P, S, *]` -> `[B, T, heads * head_dim]`. Scale is 1/sqrt(head_dim).
///
/// Each query sees at least one key: the first. Infinite scores give NaN. A GPU rounds probabilities to its storage type.
///
/// # Errors
/// If operands are not of the device's storage type and rank 3, do not hold the columns asked for, or do not fit each other and
/// `kv_rows`, or `kv_rows` were made for another device.
pub fn attention<'e>(
    exec: &'e Exec<'_>,
    settings: Attention<'_>,
    q: Columns<'_, '_>,
    k: Columns<'_, '_>,
    v: Columns<'_, '_>,
) -> Result<Tensor<'e>> {
    let shape = AttentionShape::check(exec, &settings, q, k, v)?;
    let mut out = exec.alloc([shape.batch, shape.queries, shape.width()], exec.storage())?;
    let cost = Cost { op: OP, shape: out.shape(), flops: shape.flops(), bytes: shape.bytes(out.dtype().size()) };
    match exec.device() {
        Device::Cpu(cpu) => {
            let [k_words, v_words] = panels::packed_words(cpu, &shape);
            let mut packed_k = exec.alloc([shape.pairs, shape.heads, k_words], DType::F32)?;
            let mut packed_v = exec.alloc([shape.pairs, shape.heads, v_words], DType::F32)?;
            if exec.begin(cost) {
                panels::pack(cpu, &shape, k.rows(), v.rows(), packed_k.f32_mut(), packed_v.f32_mut());
                let rows = settings.kv_rows.map(KvRows::rows);
                cpu::attend(cpu, &shape, rows, q.rows(), [packed_k.f32(), packed_v.f32()], out.f32_mut());
            }
        }
        Device::Gpu(_) => {
            exec.begin(cost);
            gpu::attend(exec, &shape, settings.kv_rows, [q, k, v], &mut out)?;
        }
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
    precision: Precision,
}

const OP: &str = "attention";

impl AttentionShape {
    fn check(
        exec: &Exec<'_>,
        settings: &Attention<'_>,
        q: Columns<'_, '_>,
        k: Columns<'_, '_>,
        v: Columns<'_, '_>,
    ) -> Result<AttentionShape> {
        let storage = exec.storage();
        let &Attention { heads, head_dim, causal, kv_rows, precision } = settings;
        let width = heads * head_dim;
        let fail = |message: String| Err(Error::shape(OP, message));
        if width == 0 {
            return fail(format!("{heads} heads of {head_dim} channels"));
        }
        for (name, part) in [("q", q), ("k", k), ("v", v)] {
            let shape = part.tensor.shape();
            if shape.dims().len() != 3 || shape.is_empty() || part.tensor.dtype() != storage {
                return fail(format!("{name} is {:?}, not {storage} [B, T, C] with something in it", part.tensor));
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
        if kv_rows.is_some_and(|rows| rows.table().is_some() != matches!(exec.device(), Device::Gpu(_))) {
            return fail(format!("kv_rows of another device than {}", exec.device().describe()));
        }
        match kv_rows.map(KvRows::rows) {
            Some(rows) if rows.len() != batch || rows.iter().any(|&row| row >= pairs) => {
                return fail(format!("kv_rows {rows:?} for {batch} samples of queries and {pairs} of keys"));
            }
            None if batch != pairs => return fail(format!("{batch} samples of queries, {pairs} of keys, and no kv_rows")),
            _ => {}
        }
        Ok(AttentionShape { batch, pairs, queries, keys, heads, head_dim, causal, precision })
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// True if products are of bf16 operands.
    fn bf16(&self, cpu: &Cpu) -> bool {
        self.precision == Precision::Bf16 && cpu.isa() == Isa::Avx512Bf16
    }

    /// Two products over every pair of a query and a key that it sees; exponentials are not counted.
    fn flops(&self) -> u64 {
        let seen: usize = if self.causal { (1..=self.queries).map(|t| t.min(self.keys)).sum() } else { self.queries * self.keys };
        4 * (self.batch * self.width() * seen) as u64
    }

    /// Queries and result, keys and values, once each, of elements of `size` bytes.
    fn bytes(&self, size: usize) -> u64 {
        2 * (size * self.width() * (self.batch * self.queries + self.pairs * self.keys)) as u64
    }
}

/// A named shape: the same list serves tests and benches.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where it comes from.
    pub name: &'static str,
    /// B
    pub batch: usize,
    /// T
    pub queries: usize,
    /// S
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// D
    pub head_dim: usize,
    /// Position t sees only positions up to t.
    pub causal: bool,
}

impl Case {
    /// As counted when it runs.
    pub fn flops(&self) -> u64 {
        self.shape().flops()
    }

    /// As counted when it runs, of elements of `size` bytes.
    pub fn bytes(&self, size: usize) -> u64 {
        self.shape().bytes(size)
    }

    fn shape(&self) -> AttentionShape {
        let &Case { batch, queries, keys, heads, head_dim, causal, .. } = self;
        AttentionShape { batch, pairs: batch, queries, keys, heads, head_dim, causal, precision: Precision::F32 }
    }
}

/// The attentions of Stable Diffusion at 512 x 512: one guidance step of the UNet, the decoder, the text encoder.
pub fn cases() -> Vec<Case> {
    let case = |name, batch, queries, keys, heads, head_dim| Case { name, batch, queries, keys, heads, head_dim, causal: false };
    vec![
        case("sd15 self 64x64", 2, 4096, 4096, 8, 40),
        case("sd15 self 32x32", 2, 1024, 1024, 8, 80),
        case("sd15 self 16x16", 2, 256, 256, 8, 160),
        case("sd15 self 8x8", 2, 64, 64, 8, 160),
        case("sd15 cross 64x64", 2, 4096, 77, 8, 40),
        case("sd15 cross 16x16", 2, 256, 77, 8, 160),
        case("sd21 self 64x64", 2, 4096, 4096, 5, 64),
        case("sd21 cross 64x64", 2, 4096, 77, 5, 64),
        case("vae 64x64", 1, 4096, 4096, 1, 512),
        Case { causal: true, ..case("text encoder", 2, 77, 77, 12, 64) },
    ]
}
