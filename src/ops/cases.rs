//! What the shapes of several operations have in common.

/// An operation on rows of one width, for benches and tests.
#[derive(Clone, Debug)]
pub struct RowsCase {
    /// Where it occurs.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    cost: ElementCost,
}

/// What an element of the result costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementCost {
    /// Floating-point operations.
    pub flops: u64,
    /// Elements read and written.
    pub moved: u64,
}

impl RowsCase {
    pub(super) fn new(name: impl Into<String>, rows: usize, width: usize, cost: ElementCost) -> RowsCase {
        RowsCase { name: name.into(), rows, width, cost }
    }

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        self.cost.flops * self.elements()
    }

    /// Bytes of elements of `size` bytes that are read and written once.
    pub fn bytes(&self, size: usize) -> u64 {
        self.cost.moved * size as u64 * self.elements()
    }

    fn elements(&self) -> u64 {
        (self.rows * self.width) as u64
    }
}
