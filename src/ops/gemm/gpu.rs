//! Linear layers on a GPU: `kernels/gemm/`.

use super::layer::Packed;
use crate::Result;
use crate::device::cpu::gemm::Activation;
use crate::device::{Buffer, Entries, Exec, Gpu, LANES, Launch, MOST, Tensor, entries, params};
use crate::ops::elementwise::gpu::{add_to, geglu};
use crate::tensor::{DType, Shape};

/// Longest sum: the kernels keep the offset of a row of a tile in 32 bits, in bytes.
const MOST_K: u32 = (1 << 23) - 1;

params! {
    pub(crate) struct GemmNtParams {
        m: u32,
        n: u32,
        k: u32,
        activation: u32,
    }
}

/// The number of an activation in `kernels/elementwise/activation.cuh`; GEGLU is a kernel of its own.
fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::None | Activation::Geglu => 0,
        Activation::Gelu => 1,
        Activation::QuickGelu => 2,
        Activation::Silu => 3,
    }
}

/// How the result is cut: one kernel of `gemm_nt.cu`. The choice changes no bit of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    entries: Entries,
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
    shared: u32,
    /// Blocks of an A100's multiprocessor.
    blocks: usize,
    /// Share of the tensor cores' speed that a block reaches, from the bytes that it brings in for each product.
    speed: f64,
    /// Reads vectors of 8.
    vectors: bool,
}

const fn tiling(entries: Entries, tile: [usize; 2], shared: u32, blocks: usize, speed: f64) -> Tiling {
    Tiling { entries, tile, shared, blocks, speed, vectors: true }
}

/// All of them: those with vectors first.
pub(super) const TILINGS: [Tiling; 4] = [
    tiling(entries!("gemm_nt_128x160"), [128, 160], 73_728, 2, 1.0),
    tiling(entries!("gemm_nt_128x128"), [128, 128], 65_536, 2, 0.95),
    tiling(entries!("gemm_nt_64x64"), [64, 64], 32_768, 4, 0.6),
    Tiling { vectors: false, ..tiling(entries!("gemm_nt_any"), [64, 64], 32_768, 4, 0.1) },
];

impl Tiling {
    /// Tiles of a result of `rows` x `columns`.
    fn tiles(&self, [rows, columns]: [usize; 2]) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Relative time on `multiprocessors`: rounds of blocks, each as long as its tiles take together.
    fn time(&self, result: [usize; 2], multiprocessors: usize) -> f64 {
        let tiles = self.tiles(result);
        let together = tiles.div_ceil(multiprocessors).min(self.blocks);
        let rounds = tiles.div_ceil(multiprocessors * together);
        (rounds * together * self.tile[0] * self.tile[1]) as f64 / self.speed
    }

    /// The fastest for a result, of those that can read its operands.
    fn choose(result: [usize; 2], vectors: bool, multiprocessors: usize) -> Tiling {
        let [first, rest @ ..] = &TILINGS;
        let fit = |tiling: &Tiling| tiling.vectors == vectors;
        let time = |tiling: &Tiling| if fit(tiling) { tiling.time(result, multiprocessors) } else { f64::INFINITY };
        *rest.iter().fold(first, |best, tiling| if time(tiling) < time(best) { tiling } else { best })
    }
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
    let (rows, channels, columns) = (x.shape().rows(), x.shape().last(), packed.layout().columns());
    let aligned = [x.is_aligned(), residual.is_none_or(Tensor::is_aligned)] == [true; 2];
    let vectors = aligned && channels.is_multiple_of(LANES) && columns.is_multiple_of(LANES);
    let tiling = Tiling::choose([rows, columns], vectors, gpu.multiprocessors() as usize);
    if activation != Activation::Geglu {
        let Some(matrix) = packed.matrix(exec)? else { return Ok(()) };
        return product(exec, &tiling, x, &matrix.weight, &matrix.bias, activation, residual, out);
    }
    let mut both = exec.alloc(Shape::from([rows, columns]), out.dtype())?;
    let Some(matrix) = packed.matrix(exec)? else { return Ok(()) };
    product(exec, &tiling, x, &matrix.weight, &matrix.bias, Activation::None, None, &mut both)?;
    geglu(exec, gpu, &both, out)?;
    residual.map_or(Ok(()), |residual| add_to(exec, gpu, residual, out))
}

/// out `[M, N]` = activation(x `[M, K]` weight `[N, K]`^T + bias `[N]`) + residual `[M, N]`, with one kernel.
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
        activation: activation_number(activation),
    };
    let tiles = size("tiles", tiling.tiles([m, n]), MOST)?;
    let [weight, bias] = [exec.view(weight), exec.view(bias)];
    let launch = Launch::new(&tiling.entries, out.dtype(), [tiles, 1, 1], [128, 1, 1])?;
    let launch = launch.shared(tiling.shared).output(out).input(x).input(&weight);
    exec.enqueue(launch.input_of(DType::F32, &bias).optional(residual).params(&params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_get_large_tiles_and_small_ones_many() {
        const H100: usize = 132;
        let tile = |result, vectors| Tiling::choose(result, vectors, H100).tile;
        assert_eq!(tile([8192, 320], true), [128, 160]);
        assert_eq!(tile([32768, 640], true), [128, 160]);
        assert_eq!(tile([32768, 1024], true), [128, 128]);
        assert_eq!(tile([154, 640], true), [64, 64]);
        assert!(!Tiling::choose([8192, 322], false, H100).vectors);
        assert!(TILINGS.iter().all(|tiling| tiling.time([1, 1], 1).is_finite()));
    }
}
