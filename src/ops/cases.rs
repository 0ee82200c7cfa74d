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
    /// Floating-point operations, and elements read and written, for each element of the result.
    costs: [u64; 2],
}

impl RowsCase {
    pub(super) fn new(name: impl Into<String>, rows: usize, width: usize, costs: [u64; 2]) -> RowsCase {
        RowsCase { name: name.into(), rows, width, costs }
    }

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        self.costs[0] * self.elements()
    }

    /// Bytes of elements of `size` bytes that are read and written once.
    pub fn bytes(&self, size: usize) -> u64 {
        self.costs[1] * size as u64 * self.elements()
    }

    fn elements(&self) -> u64 {
        (self.rows * self.width) as u64
    }
}
