//! Rows of tables, on a GPU: `kernels/embed/`.

use super::Embedding;
use crate::Result;
use crate::device::{Entries, Exec, Gpu, MOST, Tensor, entries, params};
use crate::ops::elementwise::gpu::map;
use crate::tensor::DType;

const EMBED: Entries = entries!("embed_forward");
const SELECT: Entries = entries!("select_forward");

params! {
    pub(crate) struct EmbedParams {
        rows: u32,
        length: u32,
        width: u32,
    }
}

fn params(entries: &Entries, rows: usize, length: usize, width: usize) -> Result<EmbedParams> {
    let size = |name, value| entries.size(name, value, MOST);
    Ok(EmbedParams { rows: size("rows", rows)?, length: size("positions", length)?, width: size("channels", width)? })
}

/// out `[B, T, C]` = tokens\[ids\] + positions; the ids are inside the table.
pub(super) fn embed(exec: &Exec<'_>, gpu: &Gpu, embedding: &Embedding, ids: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    if embedding.tables.is_none() && !exec.is_running() {
        return Ok(()); // only declared: there is nothing to launch with
    }
    let [tokens, positions] = embedding.tables()?;
    let &[batch, length, width] = out.dims() else { return Ok(()) };
    let params = params(&EMBED, batch * length, length, width)?;
    let launch = map(gpu, &EMBED, out.shape().len(), out)?.output(out).input_of(DType::U32, ids);
    exec.enqueue(launch.input(&exec.view(tokens)).input(&exec.view(positions)).params(&params))
}

/// out `[B, C]` = of each sample of x `[B, T, C]` the row at its position, which is one of its own.
pub(crate) fn select(exec: &Exec<'_>, gpu: &Gpu, positions: &[u32], x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let positions = exec.input_u32([positions.len()], positions)?;
    let &[batch, length, width] = x.dims() else { return Ok(()) };
    let params = params(&SELECT, batch, length, width)?;
    let launch = map(gpu, &SELECT, out.shape().len(), out)?.output(out).input_of(DType::U32, &positions);
    exec.enqueue(launch.input(x).params(&params))
}
