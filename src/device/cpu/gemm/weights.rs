//! Weights in the order in which the kernels read them.
//!
//! The sum over channels and window positions (taps) is ordered by slices of [`SLICE`] steps of channels, then taps, then steps.
//! It is cut into blocks of some slices with all their taps: small enough for a panel of it to stay in the first-level cache while
//! it meets the rows of a task. Memory: `[panels][slices][taps][steps][PANEL]`, every panel contiguous.

use super::kernel::{PANEL, SLICE};
use super::winograd;
use crate::device::Precision;
use crate::device::cpu::parallel::Line;
use crate::device::cpu::{Cpu, Isa};
use crate::{Error, Result};
use half::bf16;
use rayon::prelude::*;

/// Most stretches of [`SLICE`] steps in a block: 40 KB of a panel.
pub(super) const SEGMENTS: usize = 10;

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
    /// Nine taps are computed by the minimal filtering algorithm of `winograd`.
    pub winograd: bool,
}

impl Layout {
    /// Columns of the product: rows of the weight.
    pub fn columns(&self) -> usize {
        if self.gated { 2 * self.outputs } else { self.outputs }
    }

    /// Elements of the weight.
    pub fn elements(&self) -> usize {
        self.columns() * self.channels * self.taps
    }

    /// Products of a channel: its taps, or the points of a Winograd tile.
    fn points(&self) -> usize {
        if self.winograd { winograd::POINTS } else { self.taps }
    }

    /// Panels of columns; those of values and gates take turns.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL) * if self.gated { 2 } else { 1 }
    }

    /// Rows of the weight in a panel.
    fn panel_rows(&self, panel: usize) -> std::ops::Range<usize> {
        let (group, base) = if self.gated { (panel / 2, panel % 2 * self.outputs) } else { (panel, 0) };
        base + group * PANEL..base + self.outputs.min((group + 1) * PANEL)
    }
}

/// A weight and a bias in the layout of the product.
#[derive(Debug)]
pub struct Weights {
    layout: Layout,
    precision: Precision,
    panels: Vec<Line>,
    /// `[panels][PANEL]`
    bias: Vec<f32>,
}

/// Channels of a step.
pub(super) fn step_channels(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    }
}

/// A part of the sum: some slices of channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub first_slice: usize,
    pub slices: usize,
    /// Position in a panel, in elements.
    pub offset: usize,
}

impl Weights {
    /// Packs a weight whose row `o` (`[channels, taps]`) is written by `read(o, row)`, and a bias with an element for each row.
    ///
    /// # Errors
    /// If the processor has no instructions for `precision`.
    pub fn pack(
        cpu: &Cpu,
        precision: Precision,
        layout: Layout,
        bias: &[f32],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Weights> {
        if precision == Precision::Bf16 && cpu.isa() != Isa::Avx512Bf16 {
            let message = "bf16 products need a processor with AVX512-BF16, which this one has not";
            return Err(Error::usage(message, "use --dtype f32"));
        }
        let mut weights = Weights { layout, precision, panels: Vec::new(), bias: vec![0.0; layout.panels() * PANEL] };
        for panel in 0..layout.panels() {
            let rows = layout.panel_rows(panel);
            weights.bias[panel * PANEL..][..rows.len()].copy_from_slice(&bias[rows]);
        }
        let panel_lines = weights.panel_elements() / Line::LEN;
        let mut panels: Vec<Line> = bytemuck::zeroed_vec(panel_lines * layout.panels());
        let (taps, points) = (layout.channels * layout.taps, layout.channels * layout.points());
        cpu.install(|| {
            panels.par_chunks_mut(panel_lines).enumerate().for_each(|(i, panel)| {
                let (mut row, mut rows) = (vec![0.0; taps], vec![0.0; PANEL * points]);
                for (o, points) in layout.panel_rows(i).zip(rows.chunks_exact_mut(points)) {
                    read(o, &mut row);
                    match layout.winograd {
                        true => winograd::transform_weights(&row, points),
                        false => points.copy_from_slice(&row),
                    }
                }
                weights.pack_panel(&rows, panel);
            });
        });
        weights.panels = panels;
        Ok(weights)
    }

    /// Transposes `PANEL` rows of the weight into a panel.
    fn pack_panel(&self, rows: &[f32], panel: &mut [Line]) {
        let mut steps = bytemuck::cast_slice_mut::<_, [f32; PANEL]>(panel).iter_mut();
        let points = self.layout.points();
        for block in self.blocks() {
            let slices = block.first_slice..block.first_slice + block.slices;
            if self.layout.winograd {
                for point in 0..points {
                    slices.clone().for_each(|slice| self.pack_slice(rows, slice, point, &mut steps));
                }
            } else {
                for slice in slices {
                    (0..points).for_each(|tap| self.pack_slice(rows, slice, tap, &mut steps));
                }
            }
        }
    }

    /// Packs the steps of a slice for one point. In bf16 a slice of n channels pairs channel j with j + n/2.
    fn pack_slice<'p>(&self, rows: &[f32], slice: usize, point: usize, steps: &mut impl Iterator<Item = &'p mut [f32; PANEL]>) {
        let (channels, points) = (self.layout.channels, self.layout.points());
        let first = slice * self.slice_channels();
        let end = channels.min(first + self.slice_channels());
        let half = first + (end - first).div_ceil(step_channels(self.precision));
        for (i, step) in (0..half - first).zip(steps) {
            let (low, high) = ((first + i) * points + point, half + i);
            for (element, row) in step.iter_mut().zip(rows.chunks_exact(channels * points)) {
                *element = match self.precision {
                    Precision::F32 => row[low],
                    Precision::Bf16 => {
                        let high = if high < end { row[high * points + point] } else { 0.0 };
                        bytemuck::cast([bf16::from_f32(row[low]), bf16::from_f32(high)])
                    }
                };
            }
        }
    }

    /// Extents.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number type of the products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..]) + size_of_val(&self.bias[..])
    }

    /// Channels of a full slice.
    pub(super) fn slice_channels(&self) -> usize {
        step_channels(self.precision) * SLICE
    }

    /// Channels of all slices.
    fn steps(&self) -> usize {
        self.layout.channels.div_ceil(step_channels(self.precision))
    }

    /// Elements of a panel.
    fn panel_elements(&self) -> usize {
        self.steps() * self.layout.points() * PANEL
    }

    /// Slices of channels.
    pub(super) fn slices(&self) -> usize {
        self.steps().div_ceil(SLICE)
    }

    /// The blocks of the sum, in order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> {
        let slices = self.slices();
        let taps = if self.layout.winograd { 1 } else { self.layout.taps };
        let count = slices.div_ceil((SEGMENTS / taps).max(1));
        let each = slices.div_ceil(count);
        let slice_elements = SLICE * self.layout.points() * PANEL;
        (0..slices.div_ceil(each)).map(move |i| Block {
            first_slice: i * each,
            slices: each.min(slices - i * each),
            offset: i * each * slice_elements,
        })
    }

    /// Steps of a slice: [`SLICE`] but for the last.
    pub(super) fn slice_steps(&self, slice: usize) -> usize {
        SLICE.min(self.steps() - slice * SLICE)
    }

    /// A panel of columns.
    pub(super) fn panel(&self, panel: usize) -> &[f32] {
        let elements = self.panel_elements();
        &bytemuck::cast_slice(&self.panels)[panel * elements..][..elements]
    }

    /// The bias of a panel.
    pub(super) fn bias(&self, panel: usize) -> [f32; PANEL] {
        let mut bias = [0.0; PANEL];
        bias.copy_from_slice(&self.bias[panel * PANEL..][..PANEL]);
        bias
    }
}
