//! Matrix products with a prepared right-hand side: linear layers and convolutions.

mod epilogue;
mod weights;

pub use epilogue::{Activation, Epilogue};
pub use weights::{Layout, Weights};

use super::Cpu;
use rayon::prelude::*;

/// The left-hand side: images `[batch, height, width, channels]`, whose channels may lie in two tensors.
/// A matrix `[rows, channels]` is one image of one row.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The values.
    pub x: &'a [f32],
    /// Channels of `x`.
    pub channels: usize,
    /// More channels of the same positions, and how many.
    pub skip: Option<(&'a [f32], usize)>,
    /// Images.
    pub batch: usize,
    /// Rows of an image, as stored.
    pub height: usize,
    /// Columns of an image, as stored.
    pub width: usize,
    /// Each position stands for a square of 2 x 2.
    pub upsample: bool,
}

/// The window that slides over the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// 1 or 3.
    pub size: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zeros above and to the left.
    pub before: usize,
    /// Zeros below and to the right.
    pub after: usize,
}

impl Window {
    /// A matrix product.
    pub const POINT: Window = Window { size: 1, stride: 1, before: 0, after: 0 };

    /// Positions of the result along an extent of the (doubled) input; `None` if the window does not fit.
    pub fn positions(&self, extent: usize) -> Option<usize> {
        let room = (extent + self.before + self.after).checked_sub(self.size)?;
        Some(room / self.stride + 1)
    }
}

/// `out = epilogue(windows of input x weights)`: `[batch, height', width', outputs]`.
pub fn product(cpu: &Cpu, weights: &Weights, input: &Input<'_>, window: Window, epilogue: &Epilogue<'_>, out: &mut [f32]) {
    let _ = cpu;
    let scale = if input.upsample { 2 } else { 1 };
    let (height, width) = (input.height * scale, input.width * scale);
    let (rows, columns) = (window.positions(height).unwrap_or(0), window.positions(width).unwrap_or(0));
    let (n, total) = (weights.layout().outputs, weights.layout().columns());
    out.par_chunks_mut(columns * n).enumerate().for_each(|(line, out)| {
        let mut sums = vec![0f32; total];
        let (b, y) = (line / rows, line % rows);
        for x in 0..columns {
            sums.fill(0.0);
            for tap in 0..window.size * window.size {
                let (iy, ix) = (y * window.stride + tap / window.size, x * window.stride + tap % window.size);
                let (Some(iy), Some(ix)) = (iy.checked_sub(window.before), ix.checked_sub(window.before)) else { continue };
                if iy >= height || ix >= width {
                    continue;
                }
                let at = (b * input.height + iy / scale) * input.width + ix / scale;
                let mut channel = 0;
                for (values, count) in [(input.x, input.channels)].into_iter().chain(input.skip) {
                    for &a in &values[at * count..][..count] {
                        let row = weights.row(tap, channel);
                        sums.iter_mut().zip(row).for_each(|(s, &w)| *s += a * w);
                        channel += 1;
                    }
                }
            }
            epilogue.finish(&sums, (line * columns + x) * n, &mut out[x * n..][..n]);
        }
    });
}
