//! Softmax on a GPU: `kernels/softmax/`.

use crate::Result;
use crate::device::{Entries, Exec, Launch, MOST, Tensor, entries, params};

const SOFTMAX: Entries = entries!("softmax_forward");

params! {
    pub(crate) struct SoftmaxParams {
        rows: u32,
        width: u32,
        scale: f32,
    }
}

/// A block for each row.
pub(super) fn softmax(exec: &Exec<'_>, scale: f32, x: &Tensor<'_>, out: &mut Tensor<'_>) -> Result<()> {
    let size = |name, value| SOFTMAX.size(name, value, MOST);
    let params = SoftmaxParams { rows: size("rows", x.shape().rows())?, width: size("columns", x.shape().last())?, scale };
    let launch = Launch::new(&SOFTMAX, out.dtype(), [params.rows, 1, 1], [256, 1, 1])?;
    exec.enqueue(launch.output(out).input(x).params(&params))
}
