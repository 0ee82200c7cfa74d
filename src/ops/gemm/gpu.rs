//! Linear layers on a GPU: `kernels/gemm/`.

use super::Linear;
use super::tiling::{GEGLU, LINEAR, Order, Tiling};
use crate::Result;
use crate::device::cpu::gemm::Activation;
use crate::device::{Exec, Gpu, LANES, MOST, Statistics, Tensor, params};
use crate::tensor::DType;

/// Longest sum: the kernels keep the offset of a row of a tile in 32 bits, in bytes.
pub(crate) const MOST_K: u32 = (1 << 23) - 1;

params! {
    pub(crate) struct GemmNtParams {
        m: u32,
        n: u32,
        k: u32,
        outputs: u32,
        band: u32,
        activation: u32,
        statistics: u32,
        norm_parts: u32,
        norm_eps: f32,
    }
}

impl GemmNtParams {
    pub(crate) fn order(&self) -> Order {
        Order { rows: self.m as usize, band: self.band as usize, weights: 3 }
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

/// Room for the statistics that a layer takes of a result, if it has whole parts.
pub(crate) fn statistics_of<'e>(exec: &'e Exec<'_>, kind: Option<Statistics>, out: &Tensor<'_>) -> Result<Option<Tensor<'e>>> {
    let parts = kind.and_then(|kind| kind.parts(out.shape().rows(), out.shape().last()));
    parts.map(|[tall, wide]| exec.alloc([tall, wide, 2], DType::F32)).transpose()
}

/// The number of what is taken in the kernels' `enum Statistics`.
pub(crate) fn statistics_number(kind: Option<Statistics>) -> u32 {
    match kind {
        None => 0,
        Some(Statistics::Channels) => 1,
        Some(Statistics::Rows) => 2,
    }
}

/// The layer norm of x, folded into the weights.
pub(super) struct RowNorm<'t> {
    /// Statistics of the rows of x, `[M, parts, 2]`.
    pub rows: Tensor<'t>,
    /// Added to the variance.
    pub eps: f32,
}

/// out = activation(x W^T + bias) + residual, all of which fit each other; see [`super::linear`].
#[allow(clippy::too_many_arguments)] // the operands of one product
pub(super) fn linear<'e>(
    exec: &'e Exec<'_>,
    gpu: &Gpu,
    layer: &Linear,
    x: &Tensor<'_>,
    norm: Option<&RowNorm<'_>>,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
    out: &mut Tensor<'e>,
) -> Result<()> {
    let vectors = x.is_aligned() && x.shape().last().is_multiple_of(LANES);
    let result = [x.shape().rows(), layer.packed.columns()];
    // Of an input without vectors no kernel takes statistics of rows: the norm that follows does.
    let rows = layer.statistics == Some(Statistics::Rows) && out.shape().last().is_multiple_of(Statistics::PART_COLUMNS);
    let fit = |tiling: &Tiling| tiling.vectors == vectors && (!(rows && vectors) || tiling.takes_rows());
    let tiling = Tiling::choose(tilings(activation), result, gpu.multiprocessors(), fit)?;
    product(exec, &tiling, layer, x, norm, activation, residual, out)
}

/// As [`linear`], with one kernel.
#[allow(clippy::too_many_arguments)] // the operands of one product
pub(super) fn product<'e>(
    exec: &'e Exec<'_>,
    tiling: &Tiling,
    layer: &Linear,
    x: &Tensor<'_>,
    norm: Option<&RowNorm<'_>>,
    activation: Activation,
    residual: Option<&Tensor<'_>>,
    out: &mut Tensor<'e>,
) -> Result<()> {
    let kind = layer.statistics.filter(|&kind| kind == Statistics::Channels || tiling.takes_rows());
    let mut statistics = statistics_of(exec, kind, out)?;
    let kind = kind.filter(|_| statistics.is_some());
    let (m, k, n) = (x.shape().rows(), x.shape().last(), layer.packed.columns());
    let size = |name, value, most| tiling.entries.size(name, value, most);
    let params = GemmNtParams {
        m: size("rows", m, MOST)?,
        n: size("outputs", n, MOST)?,
        k: size("inputs", k, MOST_K)?,
        outputs: size("outputs", out.shape().last(), MOST)?,
        band: tiling.band(x.bytes(), m, layer.packed.bytes()),
        activation: activation_number(activation),
        statistics: statistics_number(kind),
        norm_parts: norm.map_or(0, |norm| norm.rows.dims()[1] as u32), // no more than k
        norm_eps: norm.map_or(0.0, |norm| norm.eps),
    };
    if let Some(matrix) = layer.packed.matrix(exec)? {
        let [weight, bias] = [exec.view(&matrix.weight), exec.view(&matrix.bias)];
        let sums = matrix.sums.as_ref().map(|sums| exec.view(sums));
        let launch = tiling.launch(out.dtype(), [m, n])?.output(out).optional_output_of(DType::F32, statistics.as_mut());
        let launch = launch.input(x).input(&weight).input_of(DType::F32, &bias).optional(residual);
        let launch = launch.optional_of(DType::F32, norm.map(|norm| &norm.rows)).optional_of(DType::F32, sums.as_ref());
        exec.enqueue(launch.params(&params))?;
    }
    if let (Some(kind), Some(statistics)) = (kind, statistics) {
        out.attach(kind, statistics);
    }
    Ok(())
}
