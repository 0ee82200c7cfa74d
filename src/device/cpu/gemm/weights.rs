//! Weights in the order in which the product reads them.

use crate::device::{Buffer, Device};
use crate::tensor::DType;

/// Extents of a weight `[columns, channels, taps]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Width of the result.
    pub outputs: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Positions of the window: 1 or 9.
    pub taps: usize,
    /// Twice as many columns as outputs: values, then gates.
    pub gated: bool,
}

impl Layout {
    /// Columns of the product: rows of the weight.
    pub fn columns(&self) -> usize {
        if self.gated { 2 * self.outputs } else { self.outputs }
    }

    /// Elements of the weight.
    pub fn len(&self) -> usize {
        self.columns() * self.channels * self.taps
    }

    /// True if an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A weight in the layout of the product.
#[derive(Debug)]
pub struct Weights {
    layout: Layout,
    /// `[taps, channels, columns]`
    values: Buffer,
}

impl Weights {
    /// Packs a weight whose row `o` (`[channels, taps]`) is written by `read(o, row)`.
    pub fn pack(device: &Device, layout: Layout, mut read: impl FnMut(usize, &mut [f32])) -> Weights {
        let Layout { channels, taps, .. } = layout;
        let columns = layout.columns();
        let mut values = Buffer::zeros(device, [taps, channels, columns], DType::F32);
        let packed = values.f32_mut();
        let mut row = vec![0.0; channels * taps];
        for column in 0..columns {
            read(column, &mut row);
            for tap in 0..taps {
                for channel in 0..channels {
                    packed[(tap * channels + channel) * columns + column] = row[channel * taps + tap];
                }
            }
        }
        Weights { layout, values }
    }

    /// Extents.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn row(&self, tap: usize, channel: usize) -> &[f32] {
        let columns = self.layout.columns();
        &self.values.f32()[(tap * self.layout.channels + channel) * columns..][..columns]
    }
}
