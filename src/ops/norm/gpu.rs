//! Normalisations on a GPU: `kernels/norm/`.

use super::Norm;
use crate::Result;
use crate::device::{Entries, Exec, Gpu, LANES, Launch, MOST, Tensor, entries, params};
use crate::tensor::DType;

const STATISTICS: Entries = entries!("group_norm_statistics");
const STATISTICS_ANY: Entries = entries!("group_norm_statistics_any");
const APPLY: Entries = entries!("group_norm_apply");
const APPLY_ANY: Entries = entries!("group_norm_apply_any");
const LAYER: Entries = entries!("layer_norm_forward");
const LAYER_ANY: Entries = entries!("layer_norm_forward_any");

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
    let (chunk, chunks) = chunks(positions, channels);
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
    let launch = Launch::new(first, dtype, [params.chunks, batch, 1], threads)?.shared(CHANNEL_BYTES * shared_channels);
    exec.enqueue(launch.output_of(DType::F32, &mut statistics).input(x).optional(skip).params(&params))?;

    let grid = [params.positions.div_ceil(params.block_positions), batch, 1];
    let launch = Launch::new(second, dtype, grid, threads)?.shared(CHANNEL_BYTES * params.groups);
    let launch = launch.output(out).input(x).optional(skip).input_of(DType::F32, &statistics);
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}

/// x, checked, to out; see [`super::layer_norm`].
pub(super) fn layer_norm(exec: &Exec<'_>, gpu: &Gpu, norm: &Norm, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let (rows, channels) = (x.shape().rows(), norm.channels());
    let size = |name, value| LAYER.size(name, value, MOST);
    let params = LayerNormParams { rows: size("rows", rows)?, channels: size("channels", channels)?, eps: norm.eps };
    let in_registers = x.is_aligned() && channels.is_multiple_of(LANES) && channels <= LAYER_CHANNELS;
    let launch = match in_registers {
        true => Launch::new(&LAYER, gpu.storage(), [params.rows.div_ceil(LAYER_ROWS), 1, 1], [128, 1, 1])?,
        false => Launch::new(&LAYER_ANY, gpu.storage(), [params.rows, 1, 1], [256, 1, 1])?,
    };
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.output(out).input(x).input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}
