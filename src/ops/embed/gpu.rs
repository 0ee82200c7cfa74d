//! Rows of tables, on a GPU: `kernels/embed/`.

use super::Embedding;
use crate::Result;
use crate::device::{Entries, Exec, Gpu, Params, Tensor, entries};
use crate::ops::elementwise::gpu::map;
use crate::tensor::DType;
use bytemuck::{Pod, Zeroable};

const EMBED: Entries = entries!("embed_forward");
const SELECT: Entries = entries!("select_forward");

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct EmbedParams {
    rows: u32,
    length: u32,
    width: u32,
}

impl Params for EmbedParams {
    const NAME: &'static str = "EmbedParams";
}

/// out `[B, T, C]` = tokens\[ids\] + positions; the ids are inside the table.
pub(super) fn embed(exec: &Exec<'_>, gpu: &Gpu, embedding: &Embedding, ids: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    if embedding.tables.is_none() && !exec.is_running() {
        return Ok(()); // only declared: there is nothing to launch with
    }
    let [tokens, positions] = embedding.tables()?;
    let &[batch, length, width] = out.dims() else { return Ok(()) };
    let params = EmbedParams { rows: (batch * length) as u32, length: length as u32, width: width as u32 };
    let launch = map(gpu, &EMBED, out.shape().len(), out)?.output(out).input_of(DType::U32, ids);
    exec.enqueue(launch.input(&exec.view(tokens)).input(&exec.view(positions)).params(&params))
}

/// out `[B, C]` = of each sample of x `[B, T, C]` the row at its position, which is one of its own.
pub(crate) fn select(exec: &Exec<'_>, gpu: &Gpu, positions: &[u32], x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let positions = exec.input_u32([positions.len()], positions)?;
    let &[batch, length, width] = x.dims() else { return Ok(()) };
    let params = EmbedParams { rows: batch as u32, length: length as u32, width: width as u32 };
    let launch = map(gpu, &SELECT, out.shape().len(), out)?.output(out).input_of(DType::U32, &positions);
    exec.enqueue(launch.input(x).params(&params))
}
