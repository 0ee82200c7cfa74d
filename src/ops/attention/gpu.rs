//! Attention on a GPU: `kernels/attention/`.

use super::{AttentionShape, Columns, KvRows};
use crate::Result;
use crate::device::{Entries, Exec, LANES, Launch, Tensor, entries, params};
use crate::tensor::DType;

/// Widest rows: within a tile, the kernels keep offsets in 32 bits.
const MOST_STRIDE: u32 = (1 << 24) - 1;

/// Most positions of a sample, so that a tile beyond the last one is counted in 32 bits.
const MOST_POSITIONS: u32 = 1 << 30;

/// Most heads, and most samples: the extents of a grid.
const MOST_BLOCKS: u32 = u16::MAX as u32;

/// Widest head of the kernel for all widths: two rows for each of four warps fit the shared memory of every GPU.
const MOST_CHANNELS: u32 = 3072;

params! {
    pub(crate) struct AttentionParams {
        queries: u32,
        keys: u32,
        head_dim: u32,
        q_stride: u32,
        k_stride: u32,
        v_stride: u32,
        causal: u32,
        scale: f32,
    }
}

/// One kernel: what it takes and how it cuts the queries.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    entries: Entries,
    /// Channels of its heads; 0 for any.
    head_dim: usize,
    /// Queries of a block.
    queries: usize,
    threads: u32,
    shared: u32,
}

const fn tiling(entries: Entries, head_dim: usize, queries: usize, threads: u32, shared: u32) -> Tiling {
    Tiling { entries, head_dim, queries, threads, shared }
}

/// Those that read vectors of 8, of keys and values in rows of one width.
const TILINGS: [Tiling; 5] = [
    tiling(entries!("attention_forward_d40"), 40, 128, 128, 20_480),
    tiling(entries!("attention_forward_d64"), 64, 128, 128, 32_768),
    tiling(entries!("attention_forward_d80"), 80, 128, 128, 40_960),
    tiling(entries!("attention_forward_d160"), 160, 64, 128, 81_920),
    tiling(entries!("attention_forward_d512"), 512, 64, 256, 99_584),
];

const ANY: Entries = entries!("attention_any");

impl Tiling {
    /// The kernel for heads of `head_dim`, whose operands are as the kernels with vectors need them or not.
    fn choose(head_dim: usize, vectors: bool) -> Result<Tiling> {
        let fit = |tiling: &&Tiling| vectors && tiling.head_dim == head_dim;
        if let Some(tiling) = TILINGS.iter().find(fit) {
            return Ok(*tiling);
        }
        let channels = ANY.size("channels of a head", head_dim, MOST_CHANNELS)?;
        Ok(tiling(ANY, 0, 4, 128, 4 * (8 * channels + 128)))
    }
}

/// True if every row of the columns starts at a multiple of 16 bytes.
fn in_vectors(columns: Columns<'_, '_>) -> bool {
    let tensor = columns.tensor;
    tensor.is_aligned() && tensor.shape().last().is_multiple_of(LANES) && columns.column.is_multiple_of(LANES)
}

/// out `[B, T, heads * D]`, all checked.
pub(super) fn attend(
    exec: &Exec<'_>,
    shape: &AttentionShape,
    kv_rows: Option<&KvRows>,
    [q, k, v]: [Columns<'_, '_>; 3],
    out: &mut Tensor<'_>,
) -> Result<()> {
    let same_rows = k.tensor.shape().last() == v.tensor.shape().last();
    let tiling = Tiling::choose(shape.head_dim, same_rows && [q, k, v].into_iter().all(in_vectors))?;
    let size = |name, value, most| tiling.entries.size(name, value, most);
    let stride = |name, columns: Columns<'_, '_>| size(name, columns.tensor.shape().last(), MOST_STRIDE);
    size("channels of all heads", shape.width(), MOST_STRIDE)?;
    let params = AttentionParams {
        queries: size("queries", shape.queries, MOST_POSITIONS)?,
        keys: size("keys", shape.keys, MOST_POSITIONS)?,
        head_dim: shape.head_dim as u32, // at most their sum, checked above
        q_stride: stride("channels of q", q)?,
        k_stride: stride("channels of k", k)?,
        v_stride: stride("channels of v", v)?,
        causal: shape.causal.into(),
        scale: std::f32::consts::LOG2_E / (shape.head_dim as f32).sqrt(),
    };
    let grid = [
        shape.queries.div_ceil(tiling.queries) as u32, // fewer than the queries
        size("heads", shape.heads, MOST_BLOCKS)?,
        size("samples", shape.batch, MOST_BLOCKS)?,
    ];
    let rows = kv_rows.and_then(KvRows::table).map(|table| exec.view(table));
    let launch = Launch::new(&tiling.entries, out.dtype(), grid, [tiling.threads, 1, 1])?.shared(tiling.shared);
    let launch = launch.output(out).input_from(q.tensor, q.column).input_from(k.tensor, k.column).input_from(v.tensor, v.column);
    exec.enqueue(launch.optional_of(DType::U32, rows.as_ref()).params(&params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_known_models_have_kernels_of_their_own() {
        for width in [40, 64, 80, 160, 512] {
            assert_eq!(Tiling::choose(width, true).unwrap().head_dim, width);
            assert_eq!(Tiling::choose(width, false).unwrap().entries.f16, ANY.f16);
        }
        assert_eq!(Tiling::choose(48, true).unwrap().entries.f16, ANY.f16);
        // Every GPU gives a block 99 KiB.
        assert!(TILINGS.iter().chain([&Tiling::choose(3072, true).unwrap()]).all(|tiling| tiling.shared <= 99 << 10));
        assert!(Tiling::choose(3073, true).unwrap_err().to_string().contains("channels of a head: 3073"));
    }
}
