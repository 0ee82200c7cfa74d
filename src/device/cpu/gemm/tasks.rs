//! How a result is cut into tasks.

use super::kernel::PANEL;
use super::patch::Region;
use super::weights::Weights;
use std::ops::Range;

/// Most positions of a task.
const POSITIONS: usize = 384;
/// Most sums of a task: 512 KB, half of a second-level cache.
const SUMS: usize = 128 * 1024;
/// Most memory of a task, in elements: sums and patch. A patch is largest for one row of 384 positions at stride 2:
/// 3 rows of 2 x 385 cells; or for 384 positions in 10 slices.
pub(super) const SCRATCH: usize = SUMS + 10 * POSITIONS * 32;
/// Tasks for each worker, if there are columns enough: the last ones end nearly together.
const TASKS: usize = 6;

/// A region of positions and a group of panels of columns.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub region: Region,
    pub panels: Range<usize>,
}

impl Task {
    pub fn positions(&self) -> usize {
        self.region.rows.len() * self.region.columns.len()
    }

    /// Number of a position among those of the task.
    pub fn position(&self, row: usize, column: usize) -> usize {
        (row - self.region.rows.start) * self.region.columns.len() + column - self.region.columns.start
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
}

impl Tasks {
    pub fn new(rows: usize, columns: usize, weights: &Weights, threads: usize) -> Tasks {
        let column_parts = columns.div_ceil(POSITIONS);
        let width = columns.div_ceil(column_parts);
        let row_parts = rows.div_ceil((POSITIONS / width).max(1));
        let positions = rows.div_ceil(row_parts) * width;
        let group = if weights.layout().gated { 2 } else { 1 };
        let groups = weights.layout().panels() / group;
        let most = (SUMS / (positions * PANEL * group)).max(1);
        let wanted = (TASKS * threads).div_ceil(row_parts * column_parts);
        let panel_parts = groups.div_ceil(most).max(wanted.min(groups.div_ceil(2))).min(groups);
        Tasks {
            rows: Parts { total: rows, count: row_parts },
            columns: Parts { total: columns, count: column_parts },
            panels: Parts { total: groups, count: panel_parts },
            group,
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
        Task { region: Region { rows, columns }, panels: panels.start * self.group..panels.end * self.group }
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
