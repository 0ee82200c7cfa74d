//! Element by element, on a GPU: `kernels/elementwise/`.

use crate::Result;
use crate::device::{Entries, Exec, Gpu, LANES, Launch, Tensor, entries, params};

const ADD: Entries = entries!("add_forward");
const SILU: Entries = entries!("silu_forward");
const SCALE: Entries = entries!("scale_forward");
const GUIDANCE: Entries = entries!("guidance_forward");

/// Threads of a block of every kernel that maps (`MAP_THREADS`).
const THREADS: u32 = 256;

/// Blocks that a multiprocessor of an A100 or H100 holds at once: 2048 threads (1536 elsewhere).
const RESIDENT: u32 = 2048 / THREADS;

params! {
    pub(crate) struct AddParams {
        count: u64,
    }
}

params! {
    pub(crate) struct SiluParams {
        count: u64,
    }
}

params! {
    pub(crate) struct ScaleParams {
        count: u64,
        a: f32,
        unused: u32,
    }
}

/// A launch that goes over `count` elements: a thread for each vector, as far as the GPU holds them at once.
pub(crate) fn map<'a>(gpu: &Gpu, entries: &Entries, count: usize, out: &Tensor<'_>) -> Result<Launch<'a>> {
    let blocks = count.div_ceil(LANES).div_ceil(THREADS as usize).clamp(1, (gpu.multiprocessors() * RESIDENT) as usize);
    Launch::new(entries, out.dtype(), [blocks as u32, 1, 1], [THREADS, 1, 1])
}

/// out = x + y
pub(crate) fn add(exec: &Exec<'_>, gpu: &Gpu, x: &Tensor<'_>, y: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let count = out.shape().len();
    exec.enqueue(map(gpu, &ADD, count, out)?.output(out).input(x).input(y).params(&AddParams { count: count as u64 }))
}

/// out = x sigmoid(x)
pub(super) fn silu(exec: &Exec<'_>, gpu: &Gpu, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let count = out.shape().len();
    exec.enqueue(map(gpu, &SILU, count, out)?.output(out).input(x).params(&SiluParams { count: count as u64 }))
}

/// out = factor x
pub(super) fn scale(exec: &Exec<'_>, gpu: &Gpu, factor: f32, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let count = out.shape().len();
    let params = ScaleParams { count: count as u64, a: factor, unused: 0 };
    exec.enqueue(map(gpu, &SCALE, count, out)?.output(out).input(x).params(&params))
}

/// out = u + scale (c - u), u and c the halves of x.
pub(super) fn guide(exec: &Exec<'_>, gpu: &Gpu, scale: f32, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let count = out.shape().len();
    let params = ScaleParams { count: count as u64, a: scale, unused: 0 };
    exec.enqueue(map(gpu, &GUIDANCE, count, out)?.output(out).input(x).input_from(x, count).params(&params))
}
