//! Convolutions on a GPU: `kernels/conv/`.

use super::{Conv2d, Fused};
use crate::Result;
use crate::device::{Exec, Gpu, LANES, MOST, Tensor, params};
use crate::ops::gemm::gpu::{MOST_K, statistics_number, statistics_of};
use crate::ops::gemm::tiling::{CONV2D, Order, Tiling};
use crate::tensor::DType;

/// Longest side of an image: the kernels keep the corners of windows in 16 bits.
const MOST_SIDE: u32 = 1 << 14;

params! {
    pub(crate) struct Conv2dParams {
        images: u32,
        height: u32,
        width: u32,
        x_channels: u32,
        skip_channels: u32,
        tall: u32,
        wide: u32,
        doubled: u32,
        rows: u32,
        columns: u32,
        outputs: u32,
        window: u32,
        stride: u32,
        before: u32,
        band: u32,
        statistics: u32,
    }
}

impl Conv2dParams {
    pub(crate) fn order(&self) -> Order {
        let rows = self.images as usize * self.rows as usize * self.columns as usize;
        Order { rows, band: self.band as usize, weights: 4 }
    }
}

/// out = the convolution of x with what is fused around it, all of which fit each other; see [`super::conv2d`].
pub(super) fn conv2d<'e>(
    exec: &'e Exec<'_>,
    gpu: &Gpu,
    layer: &Conv2d,
    x: &Tensor<'_>,
    fused: Fused<'_, '_>,
    out: &mut Tensor<'e>,
) -> Result<()> {
    let channels = [x.shape().last(), fused.skip.map_or(0, |skip| skip.shape().last())];
    let vectors = x.is_aligned() && fused.skip.is_none_or(Tensor::is_aligned) && channels.iter().all(|c| c.is_multiple_of(LANES));
    let result = [out.shape().rows(), out.shape().last()];
    let tiling = Tiling::choose(&CONV2D, result, gpu.multiprocessors(), |tiling| tiling.vectors == vectors)?;
    convolve(exec, &tiling, layer, x, fused, out)
}

/// As [`conv2d`], with one kernel.
pub(super) fn convolve<'e>(
    exec: &'e Exec<'_>,
    tiling: &Tiling,
    layer: &Conv2d,
    x: &Tensor<'_>,
    fused: Fused<'_, '_>,
    out: &mut Tensor<'e>,
) -> Result<()> {
    let (&[images, height, width, x_channels], &[_, rows, columns, outputs]) = (x.dims(), out.dims()) else { return Ok(()) };
    let size = |name, value, most| tiling.entries.size(name, value, most);
    let (window, [tall, wide]) = (layer.window(), fused.upsample.unwrap_or([height, width]));
    let skip_channels = fused.skip.map_or(0, |skip| skip.shape().last());
    // What rows of the product, pixels of x and steps of a sum are counted in.
    size("positions", out.shape().rows().max(x.shape().rows()), MOST)?;
    size("products of a sum", window.size * window.size * layer.inputs(), MOST_K)?;
    let mut statistics = statistics_of(exec, layer.statistics, out)?;
    let kind = layer.statistics.filter(|_| statistics.is_some());
    let params = Conv2dParams {
        images: size("images", images, MOST)?,
        height: size("height", height, MOST_SIDE)?,
        width: size("width", width, MOST_SIDE)?,
        x_channels: size("channels", x_channels, MOST)?,
        skip_channels: size("channels", skip_channels, MOST)?,
        tall: size("height", tall, MOST_SIDE)?,
        wide: size("width", wide, MOST_SIDE)?,
        doubled: u32::from(fused.upsample.is_some()),
        rows: rows as u32,       // no more than `tall` and 2
        columns: columns as u32, // no more than `wide` and 2
        outputs: size("outputs", outputs, MOST)?,
        window: window.size as u32,
        stride: window.stride as u32,
        before: window.before as u32,
        band: tiling.band(x.bytes() + fused.skip.map_or(0, Tensor::bytes), out.shape().rows(), layer.packed.bytes()),
        statistics: statistics_number(kind),
    };
    let launch = tiling.launch(out.dtype(), [out.shape().rows(), outputs])?;
    if let Some(matrix) = layer.packed.matrix(exec)? {
        let [weight, bias] = [exec.view(&matrix.weight), exec.view(&matrix.bias)];
        let launch = launch.output(out).optional_output_of(DType::F32, statistics.as_mut());
        let launch = launch.input(x).optional(fused.skip).input(&weight).input_of(DType::F32, &bias);
        exec.enqueue(launch.optional(fused.channel_bias).optional(fused.residual).params(&params))?;
    }
    if let (Some(kind), Some(statistics)) = (kind, statistics) {
        out.attach(kind, statistics);
    }
    Ok(())
}
