//! Element by element, on a GPU.

use crate::Result;
use crate::device::{Entries, Exec, Launch, Params, Tensor, entries};
use bytemuck::{Pod, Zeroable};

const ADD: Entries = entries!("add_forward");

/// Threads of a block.
const THREADS: u32 = 256;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct AddParams {
    count: u64,
}

impl Params for AddParams {
    const NAME: &'static str = "AddParams";
}

/// out = x + y
pub(super) fn add(exec: &Exec<'_>, x: &Tensor<'_>, y: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let count = out.shape().len() as u64;
    let params = AddParams { count };
    let blocks = count.div_ceil(u64::from(THREADS)) as u32;
    let launch = Launch::new(ADD.of(out.dtype())?, [blocks, 1, 1], [THREADS, 1, 1]);
    exec.enqueue(launch.output(out).input(x).input(y).params(&params))
}
