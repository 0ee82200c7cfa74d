//! Normalisations on a GPU: `kernels/norm/`.

use super::Norm;
use crate::Result;
use crate::device::{Entries, Exec, Gpu, Launch, Params, Tensor, entries};
use crate::tensor::DType;
use bytemuck::{Pod, Zeroable};

const STATISTICS: Entries = entries!("group_norm_statistics");
const STATISTICS_ANY: Entries = entries!("group_norm_statistics_any");
const APPLY: Entries = entries!("group_norm_apply");
const APPLY_ANY: Entries = entries!("group_norm_apply_any");
const LAYER: Entries = entries!("layer_norm_forward");
const LAYER_ANY: Entries = entries!("layer_norm_forward_any");

/// Channels of a vector.
const LANES: usize = 8;

/// Threads of a block of both kernels of group norm.
const GROUP_THREADS: u32 = 320;

/// Elements that a block should have: below, it does little more than start.
const BLOCK_ELEMENTS: usize = 16 * 1024;

/// Most chunks of a sample.
const MOST_CHUNKS: usize = 64;

/// Blocks of `apply` for each multiprocessor: it holds three at once.
const APPLY_BLOCKS: usize = 4;

/// Rows of a block of layer norm, a warp each, and the most channels of a row.
const LAYER_ROWS: usize = 4;
const LAYER_CHANNELS: usize = 2048;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct GroupNormParams {
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

impl Params for GroupNormParams {
    const NAME: &'static str = "GroupNormParams";
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct LayerNormParams {
    rows: u32,
    channels: u32,
    eps: f32,
}

impl Params for LayerNormParams {
    const NAME: &'static str = "LayerNormParams";
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
    let &[batch, height, width, channels] = out.dims() else { return Ok(()) };
    let (positions, x_channels) = (height * width, x.shape().last());
    let (chunk, chunks) = chunks(positions, channels);
    let blocks = (APPLY_BLOCKS * gpu.multiprocessors() as usize).div_ceil(batch);
    let block_positions = positions.div_ceil(blocks).max(BLOCK_ELEMENTS / channels).clamp(1, positions);
    let params = GroupNormParams {
        positions: positions as u32,
        x_channels: x_channels as u32,
        skip_channels: (channels - x_channels) as u32,
        groups: norm.groups as u32,
        chunk: chunk as u32,
        chunks: chunks as u32,
        block_positions: block_positions as u32,
        silu: silu.into(),
        eps: norm.eps,
    };
    let aligned = x.is_aligned() && skip.is_none_or(Tensor::is_aligned);
    let vectors = aligned && x_channels.is_multiple_of(LANES) && channels.is_multiple_of(LANES);
    let (first, second) = if vectors { (&STATISTICS, &APPLY) } else { (&STATISTICS_ANY, &APPLY_ANY) };
    let (dtype, threads) = (out.dtype(), [GROUP_THREADS, 1, 1]);

    // Of each group in each chunk: mean, and sum of squares about it.
    let mut statistics = exec.alloc([batch, norm.groups, chunks, 2], DType::F32)?;
    let launch = Launch::new(first, dtype, [chunks as u32, batch as u32, 1], threads)?.shared(8 * channels as u32);
    exec.enqueue(launch.output_of(DType::F32, &mut statistics).input(x).optional(skip).params(&params))?;

    let grid = [positions.div_ceil(block_positions) as u32, batch as u32, 1];
    let launch = Launch::new(second, dtype, grid, threads)?.shared(8 * norm.groups as u32);
    let launch = launch.output(out).input(x).optional(skip).input_of(DType::F32, &statistics);
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}

/// x, checked, to out; see [`super::layer_norm`].
pub(super) fn layer_norm(exec: &Exec<'_>, gpu: &Gpu, norm: &Norm, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let (rows, channels) = (x.shape().rows(), norm.channels());
    let params = LayerNormParams { rows: rows as u32, channels: channels as u32, eps: norm.eps };
    let in_registers = x.is_aligned() && channels.is_multiple_of(LANES) && channels <= LAYER_CHANNELS;
    let launch = match in_registers {
        true => Launch::new(&LAYER, gpu.storage(), [rows.div_ceil(LAYER_ROWS) as u32, 1, 1], [128, 1, 1])?,
        false => Launch::new(&LAYER_ANY, gpu.storage(), [rows as u32, 1, 1], [256, 1, 1])?,
    };
    let [weight, bias] = [exec.view(&norm.weight), exec.view(&norm.bias)];
    exec.enqueue(launch.output(out).input(x).input_of(DType::F32, &weight).input_of(DType::F32, &bias).params(&params))
}
