//! A matrix cut into rectangles that are written in parallel.

use super::parallel::for_each_task;
use std::marker::PhantomData;

/// A rectangle of a row-major matrix, written by one task.
pub struct Block<'m> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'m mut [f32]>,
}

impl Block<'_> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row` of the rectangle.
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `for_each_block` gives every block a rectangle inside the matrix that no other block shares; the row lies
        // in it, as just checked, and is borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }
}

/// The order in which tasks start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// All blocks of the same columns, then the next columns.
    Down,
    /// All blocks of the same rows, then the next rows.
    Across,
}

/// The first element of the matrix, shared by the tasks.
struct First(*mut f32);

// SAFETY: tasks derive disjoint rectangles from it.
unsafe impl Sync for First {}

impl First {
    /// The address of element `index`.
    ///
    /// # Safety
    /// The element is inside the matrix.
    unsafe fn at(&self, index: usize) -> *mut f32 {
        // SAFETY: as promised by the caller.
        unsafe { self.0.add(index) }
    }
}

/// Cuts a matrix with rows of `width` elements into blocks of at most `rows` x `columns` and runs `task(row, column, block)`
/// on each, in parallel, with the place of its first element.
///
/// # Panics
/// If an extent is zero or the matrix does not consist of whole rows.
pub fn for_each_block(
    matrix: &mut [f32],
    width: usize,
    [rows, columns]: [usize; 2],
    walk: Walk,
    task: impl Fn(usize, usize, Block<'_>) + Sync,
) {
    assert!(
        width > 0 && rows > 0 && columns > 0 && matrix.len().is_multiple_of(width),
        "blocks of {rows} x {columns} of {width}"
    );
    let height = matrix.len() / width;
    let (down, across) = (height.div_ceil(rows), width.div_ceil(columns));
    let first = First(matrix.as_mut_ptr());
    for_each_task(down * across, |index| {
        let (row, column) = match walk {
            Walk::Down => (index % down * rows, index / down * columns),
            Walk::Across => (index / across * rows, index % across * columns),
        };
        let block = Block {
            // SAFETY: row < height and column < width.
            first: unsafe { first.at(row * width + column) },
            stride: width,
            rows: rows.min(height - row),
            columns: columns.min(width - column),
            matrix: PhantomData,
        };
        task(row, column, block);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_matrix_once() {
        let sizes = [(1, 1, 1, 1), (7, 5, 3, 2), (8, 6, 4, 3), (3, 10, 8, 16)];
        for ((height, width, rows, columns), walk) in
            sizes.into_iter().flat_map(|size| [(size, Walk::Down), (size, Walk::Across)])
        {
            let mut matrix = vec![0.0; height * width];
            for_each_block(&mut matrix, width, [rows, columns], walk, |row, column, mut block| {
                for r in 0..block.rows() {
                    for (c, x) in block.row(r).iter_mut().enumerate() {
                        *x += ((row + r) * width + column + c + 1) as f32;
                    }
                }
            });
            assert!(matrix.iter().enumerate().all(|(i, &x)| x == (i + 1) as f32), "{matrix:?}");
        }
    }
}
