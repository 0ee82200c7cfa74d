//! How a result is cut into tasks.

use super::kernel::PANEL;
use super::patch::Region;
use super::weights::Weights;
use std::ops::Range;

/// Most positions of a task with a 3x3 window: with its sums and its patch it fits the second-level cache.
const POSITIONS: usize = 384;
/// Most positions of a task without neighbours, whose patch has a block of slices instead of one.
const POINTS: usize = 192;
/// Most sums of a task: 512 KB, half of a second-level cache.
const SUMS: usize = 128 * 1024;
/// Memory of the largest task, in elements: its sums and its patch, at most 3 x 2 x 385 cells for one row of positions at stride 2;
/// or 32 tiles of `winograd`.
pub(in super::super) const SCRATCH: usize = 256 * 1024;
/// Tasks for each worker, if there are columns enough: the last ones end nearly together.
const TASKS: usize = 6;

/// A region of positions and a group of panels of columns.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub region: Region,
    pub panels: Range<usize>,
    /// Panels whose sums are kept at the same time: all of them, or with a single block only those that are finished together.
    pub kept: usize,
}

impl Task {
    pub fn positions(&self) -> usize {
        self.region.rows.len() * self.region.columns.len()
    }

    /// Where the sums of a position and of panel number `j` of the task are kept.
    pub fn sums(&self, j: usize, row: usize, column: usize) -> usize {
        let position = (row - self.region.rows.start) * self.region.columns.len() + column - self.region.columns.start;
        (j % self.kept * self.positions() + position) * PANEL
    }
}

/// All tasks of a product: `rows x columns` positions by the panels of the weights, each cut into nearly equal parts.
#[derive(Debug)]
pub(super) struct Tasks {
    rows: Parts,
    columns: Parts,
    panels: Parts,
    /// Panels that must stay together: values and gates.
    group: usize,
    /// The sum has a single block.
    single: bool,
}

impl Tasks {
    pub fn new(rows: usize, columns: usize, weights: &Weights, threads: usize) -> Tasks {
        let (layout, single) = (weights.layout(), weights.blocks().count() == 1);
        let most_positions = if layout.taps == 1 { POINTS } else { POSITIONS };
        let column_parts = columns.div_ceil(most_positions);
        let width = columns.div_ceil(column_parts);
        let row_parts = rows.div_ceil((most_positions / width).max(1));
        let positions = rows.div_ceil(row_parts) * width;
        let group = if layout.gated { 2 } else { 1 };
        let groups = layout.panels() / group;
        let most_groups = if single { groups } else { (SUMS / (positions * PANEL * group)).max(1) };
        let wanted = (TASKS * threads).div_ceil(row_parts * column_parts);
        let panel_parts = groups.div_ceil(most_groups).max(wanted.min(groups.div_ceil(2)));
        Tasks {
            rows: Parts { total: rows, count: row_parts },
            columns: Parts { total: columns, count: column_parts },
            panels: Parts { total: groups, count: panel_parts },
            group,
            single,
        }
    }

    pub fn count(&self) -> usize {
        self.rows.count * self.columns.count * self.panels.count
    }

    /// Task number `i`: regions take turns first, so that workers read the same weights at the same time.
    pub fn get(&self, i: usize) -> Task {
        let (i, columns) = (i / self.columns.count, self.columns.get(i % self.columns.count));
        let (i, rows) = (i / self.rows.count, self.rows.get(i % self.rows.count));
        let panels = self.panels.get(i);
        let panels = panels.start * self.group..panels.end * self.group;
        let kept = if self.single { self.group } else { panels.len() };
        Task { region: Region { rows, columns }, panels, kept }
    }
}

/// An extent cut into `count` nearly equal ranges.
#[derive(Clone, Copy, Debug)]
struct Parts {
    total: usize,
    count: usize,
}

impl Parts {
    fn get(&self, i: usize) -> Range<usize> {
        self.total * i / self.count..self.total * (i + 1) / self.count
    }
}
