//! Linear layers on a GPU: `kernels/gemm/`.

use super::layer::Packed;
use super::tiling::{GEGLU, LINEAR, Tiling};
use crate::Result;
use crate::device::cpu::gemm::Activation;
use crate::device::{Buffer, Exec, Gpu, LANES, MOST, Tensor, params};
use crate::tensor::DType;

/// Longest sum: the kernels keep the offset of a row of a tile in 32 bits, in bytes.
pub(crate) const MOST_K: u32 = (1 << 23) - 1;

params! {
    pub(crate) struct GemmNtParams {
        m: u32,
        n: u32,
        k: u32,
        outputs: u32,
        activation: u32,
    }
}

/// The number of an activation in `kernels/elementwise/activation.cuh`; GEGLU has entries of its own.
fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::None | Activation::Geglu => 0,
        Activation::Gelu => 1,
        Activation::QuickGelu => 2,
        Activation::Silu => 3,
    }
}

/// The kernels that apply `activation`.
pub(super) fn tilings(activation: Activation) -> &'static [Tiling] {
    if activation == Activation::Geglu { &GEGLU } else { &LINEAR }
}

/// out = activation(x W^T + bias) + residual, all of which fit each other; see [`super::linear`].
pub(super) fn linear(
    exec: &Exec<'_>,
    gpu: &Gpu,
    packed: &Packed,
    x: &Tensor<'_>,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
    out: &mut Tensor<'_>,
) -> Result<()> {
    let Some(matrix) = packed.matrix(exec)? else { return Ok(()) };
    let vectors = x.is_aligned() && x.shape().last().is_multiple_of(LANES);
    let result = [x.shape().rows(), matrix.bias.shape().len()];
    let tiling = Tiling::choose(tilings(activation), result, vectors, gpu.multiprocessors());
    product(exec, &tiling, x, &matrix.weight, &matrix.bias, activation, residual, out)
}

/// out `[M, O]` = activation(x `[M, K]` weight `[N, K]`^T + bias `[N]`) + residual `[M, O]`, with one kernel.
#[allow(clippy::too_many_arguments)] // the operands of one product
pub(super) fn product(
    exec: &Exec<'_>,
    tiling: &Tiling,
    x: &Tensor<'_>,
    weight: &Buffer,
    bias: &Buffer,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
    out: &mut Tensor<'_>,
) -> Result<()> {
    let (m, k, n) = (x.shape().rows(), x.shape().last(), bias.shape().len());
    let size = |name, value, most| tiling.entries.size(name, value, most);
    let params = GemmNtParams {
        m: size("rows", m, MOST)?,
        n: size("outputs", n, MOST)?,
        k: size("inputs", k, MOST_K)?,
        outputs: size("outputs", out.shape().last(), MOST)?,
        activation: activation_number(activation),
    };
    let [weight, bias] = [exec.view(weight), exec.view(bias)];
    let launch = tiling.launch(out.dtype(), [m, n])?.output(out).input(x).input(&weight);
    exec.enqueue(launch.input_of(DType::F32, &bias).optional(residual).params(&params))
}
