//! Softmax on a GPU: `kernels/softmax/`.

use crate::Result;
use crate::device::{Entries, Exec, Launch, Params, Tensor, entries};
use bytemuck::{Pod, Zeroable};

const SOFTMAX: Entries = entries!("softmax_forward");

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct SoftmaxParams {
    rows: u32,
    width: u32,
    scale: f32,
}

impl Params for SoftmaxParams {
    const NAME: &'static str = "SoftmaxParams";
}

/// A block for each row.
pub(super) fn softmax(exec: &Exec<'_>, scale: f32, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let params = SoftmaxParams { rows: x.shape().rows() as u32, width: x.shape().last() as u32, scale };
    let launch = Launch::new(&SOFTMAX, out.dtype(), [params.rows, 1, 1], [256, 1, 1])?;
    exec.enqueue(launch.output(out).input(x).params(&params))
}
