//! Normalisations on a GPU: `kernels/norm/`.

use super::Norm;
use crate::Result;
use crate::device::{Entries, Exec, Gpu, LANES, Launch, MOST, Statistics, Tensor, entries, params};
use crate::tensor::DType;

const STATISTICS: Entries = entries!("group_norm_statistics");
const STATISTICS_ANY: Entries = entries!("group_norm_statistics_any");
const MERGE: Entries = entries!("group_norm_merge");
const APPLY: Entries = entries!("group_norm_apply");
const APPLY_ANY: Entries = entries!("group_norm_apply_any");
const LAYER: Entries = entries!("layer_norm_forward");
const LAYER_ANY: Entries = entries!("layer_norm_forward_any");
const ROW: Entries = entries!("layer_norm_statistics");
const ROW_ANY: Entries = entries!("layer_norm_statistics_any");

/// Threads of a block of both kernels of group norm.
const GROUP_THREADS: u32 = 320;

/// Bytes of shared memory of a channel, or a group: two f32.
const CHANNEL_BYTES: u32 = 8;

/// Elements that a block should have: below, it does little more than start.
const BLOCK_ELEMENTS: usize = 16 * 1024;

/// Most chunks of a sample.
const MOST_CHUNKS: usize = 64;

/// Blocks of `apply` for each multiprocessor: it holds three at once.
const APPLY_BLOCKS: usize = 4;

/// Rows of parts that a chunk should have.
const MERGED_PARTS: usize = 32;

/// Most samples: they are the grid's y.
const MOST_SAMPLES: u32 = 65_535;

/// Rows of a block of layer norm, a warp each, and the most channels of a row.
const LAYER_ROWS: u32 = 4;
const LAYER_CHANNELS: usize = 2048;

params! {
    pub(crate) struct GroupNormParams {
        positions: u32,
        x_channels: u32,
        skip_channels: u32,
        groups: u32,
        chunk: u32,
        chunks: u32,
        block_positions: u32,
        silu: u32,
        eps: f32,
    }
}

params! {
    pub(crate) struct LayerNormParams {
        rows: u32,
        channels: u32,
        eps: f32,
    }
}

/// Positions of a chunk, and chunks: functions of one sample alone, and so is the order of sums.
fn chunks(positions: usize, channels: usize) -> (usize, usize) {
    let chunk = positions.div_ceil((positions * channels).div_ceil(BLOCK_ELEMENTS).min(MOST_CHUNKS));
    (chunk, positions.div_ceil(chunk))
}

/// Positions of a chunk of statistics that products took, and chunks.
fn merged_chunks(positions: usize) -> (usize, usize) {
    let parts = positions / Statistics::PART_ROWS;
    let chunk = parts.div_ceil(parts.div_ceil(MERGED_PARTS).min(MOST_CHUNKS));
    (chunk * Statistics::PART_ROWS, parts.div_ceil(chunk))
}

/// The statistics that the products took that made x and skip, if they serve this norm.
pub(super) fn parts<'t>(norm: &Norm, x: &'t Tensor<'_>, skip: Option<&'t Tensor<'_>>) -> Option<[Option<Tensor<'t>>; 2]> {
    let &[_, height, width, _] = x.dims() else { return None };
    let whole_parts = (height * width).is_multiple_of(Statistics::PART_ROWS);
    let whole_groups = (norm.channels() / norm.groups).is_multiple_of(Statistics::PART_CHANNELS);
    let of_x = x.statistics(Statistics::Channels).filter(|_| whole_parts && whole_groups)?;
    match skip {
        None => Some([Some(of_x), None]),
        Some(skip) => Some([Some(of_x), Some(skip.statistics(Statistics::Channels)?)]),
    }
}

/// x and skip, checked, to out; see [`super::group_norm`].
pub(super) fn group_norm(
    exec: &Exec<'_>,
    gpu: &Gpu,
    norm: &Norm,
    x: &Tensor<'_>,
    skip: Option<&Tensor<'_>>,
    silu: bool,
    out: &mut Tensor<'_>,
) -> Result<()> {
    let &[samples, height, width, channels] = out.dims() else { return Ok(()) };
    let (positions, x_channels) = (height * width, x.shape().last());
    let parts = parts(norm, x, skip);
    let (chunk, chunks) = if parts.is_some() { merged_chunks(positions) } else { chunks(positions, channels) };
    let blocks = (APPLY_BLOCKS * gpu.multiprocessors() as usize).div_ceil(samples);
    let block_positions = positions.div_ceil(blocks).max(BLOCK_ELEMENTS / channels).clamp(1, positions);
    let shared_channels = STATISTICS.size("channels", channels, MOST / CHANNEL_BYTES)?;
    let size = |name, value| STATISTICS.size(name, value, MOST);
    let params = GroupNormParams {
        positions: size("positions", positions)?,
        x_channels: size("channels", x_channels)?,
        skip_channels: size("channels", channels - x_channels)?,
        groups: size("groups", norm.groups)?,
        chunk: size("positions", chunk)?,
        chunks: size("chunks", chunks)?,
        block_positions: size("positions", block_positions)?,
        silu: silu.into(),
        eps: norm.eps,
    };
    let aligned = x.is_aligned() && skip.is_none_or(Tensor::is_aligned);
    let vectors = aligned && x_channels.is_multiple_of(LANES) && channels.is_multiple_of(LANES);
    let (first, second) = if vectors { (&STATISTICS, &APPLY) } else { (&STATISTICS_ANY, &APPLY_ANY) };
    let batch = STATISTICS.size("samples", samples, MOST_SAMPLES)?;
    let (dtype, threads) = (out.dtype(), [GROUP_THREADS, 1, 1]);

    // Of each group in each chunk: mean, and sum of squares about it.
    let mut statistics = exec.alloc([samples, norm.groups, chunks, 2], DType::F32)?;
    let grid = [params.chunks, batch, 1];
    match &parts {
        Some([x, skip]) => {
            let launch = Launch::new(&MERGE, dtype, grid, threads)?.output_of(DType::F32, &mut statistics);
            let launch = launch.optional_of(DType::F32, x.as_ref()).optional_of(DType::F32, skip.as_ref());
            exec.enqueue(launch.params(&params))?;
        }
        None => {
            let launch = Launch::new(first, dtype, grid, threads)?.shared(CHANNEL_BYTES * shared_channels);
            exec.enqueue(launch.output_of(DType::F32, &mut statistics).input(x).optional(skip).params(&params))?;
        }
    }

    let grid = [params.positions.div_ceil(params.block_positions), batch, 1];
    let launch = Launch::new(second, dtype, grid, threads)?.shared(CHANNEL_BYTES * params.groups);
    let launch = launch.output(out).input(x).optional(skip).input_of(DType::F32, &statistics);
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}

/// x, checked, to out; see [`super::layer_norm`].
pub(super) fn layer_norm(exec: &Exec<'_>, gpu: &Gpu, norm: &Norm, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let params = layer_params(x, norm.eps)?;
    let launch = by_rows([&LAYER, &LAYER_ANY], gpu, x, &params)?;
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.output(out).input(x).input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}

/// Statistics of the rows of x; see [`super::row_statistics`].
pub(super) fn row_statistics(exec: &Exec<'_>, gpu: &Gpu, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let params = layer_params(x, 0.0)?;
    let launch = by_rows([&ROW, &ROW_ANY], gpu, x, &params)?;
    exec.enqueue(launch.output_of(DType::F32, out).input(x).params(&params))
}

fn layer_params(x: &Tensor<'_>, eps: f32) -> Result<LayerNormParams> {
    let size = |name, value| LAYER.size(name, value, MOST);
    Ok(LayerNormParams { rows: size("rows", x.shape().rows())?, channels: size("channels", x.shape().last())?, eps })
}

/// A launch over the rows of x: of the first entries, which keep a row in the registers of a warp, or of the second.
fn by_rows<'a>([in_registers, any]: [&Entries; 2], gpu: &Gpu, x: &Tensor<'_>, params: &LayerNormParams) -> Result<Launch<'a>> {
    let channels = x.shape().last();
    match x.is_aligned() && channels.is_multiple_of(LANES) && channels <= LAYER_CHANNELS {
        true => Launch::new(in_registers, gpu.storage(), [params.rows.div_ceil(LAYER_ROWS), 1, 1], [128, 1, 1]),
        false => Launch::new(any, gpu.storage(), [params.rows, 1, 1], [256, 1, 1]),
    }
}
