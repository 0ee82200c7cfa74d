//! Element types and shapes. Tensors themselves live in [`crate::device`], which owns their memory.

use std::fmt;

/// Element type of stored data. Arithmetic always accumulates in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: f32 with the low 16 bits cut.
    BF16,
    /// Unsigned bytes: pixels.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Lower-case name, as used in flags and reports.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U8 => "u8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a tensor of rank 1 to 4, outermost first. `Copy`, so that shaping a tensor allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// Builds a shape from 1 to 4 extents.
    ///
    /// # Panics
    /// If there are more than 4 extents: shapes are written in code, never read from input.
    pub fn new(dims: &[usize]) -> Shape {
        assert!((1..=4).contains(&dims.len()), "rank must be 1 to 4, not {}", dims.len());
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Shape { dims: all, rank: dims.len() as u8 }
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// True if an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the elements; `None` if no memory can be that large.
    pub fn bytes(&self, dtype: DType) -> Option<usize> {
        let bytes = self.dims().iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent))?;
        (bytes <= isize::MAX as usize).then_some(bytes)
    }

    /// The innermost extent: channels.
    pub fn last(&self) -> usize {
        self.dims[self.rank as usize - 1]
    }

    /// All extents but the innermost, multiplied: rows of a matrix of channels.
    pub fn rows(&self) -> usize {
        self.dims()[..self.rank as usize - 1].iter().product()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_counts_rows_and_channels() {
        let shape = Shape::from([2, 3, 5, 7]);
        assert_eq!((shape.len(), shape.rows(), shape.last()), (210, 30, 7));
        assert_eq!(Shape::from([4]).rows(), 1);
        assert_eq!(format!("{shape:?}"), "[2, 3, 5, 7]");
    }

    #[test]
    fn sizes_beyond_all_memory_are_none() {
        assert_eq!(Shape::from([3, 5]).bytes(DType::F16), Some(30));
        assert_eq!(Shape::from([usize::MAX / 4, 4]).bytes(DType::U8), None);
        assert_eq!(Shape::from([1 << 62]).bytes(DType::F32), None);
        assert_eq!(Shape::from([1 << 62, 0]).bytes(DType::U8), Some(0));
    }
}
