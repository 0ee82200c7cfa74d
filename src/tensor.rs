//! Element types, shapes, and tensors as they lie in files. Those of a pass live in [`crate::device`], which owns their memory.

use half::{bf16, f16, slice::HalfFloatSliceExt};
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
    /// Unsigned integers: token ids, rows.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// x as a number of this type, a type of floats.
    pub fn round(self, x: f32) -> f32 {
        match self {
            DType::F16 => f16::from_f32(x).to_f32(),
            DType::BF16 => bf16::from_f32(x).to_f32(),
            _ => x,
        }
    }

    /// Lower-case name, as used in flags and reports.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U8 => "u8",
            DType::U32 => "u32",
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

/// A tensor of a checkpoint as it lies in the file: row-major, little-endian.
///
/// `bytes` is `None` while a model is only being declared (to check a checkpoint, count parameters or write random weights).
#[derive(Clone, Debug)]
pub struct HostTensor<'a> {
    /// Canonical name, with the component's own prefix: `down_blocks.0.resnets.0.conv1.weight`.
    pub name: String,
    /// Extents as the architecture declares them.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: DType,
    /// Raw bytes, of any alignment.
    pub bytes: Option<&'a [u8]>,
    /// Who keeps what is made of it for a GPU, if anybody does.
    pub store: Option<&'a dyn PackedStore>,
}

/// Keeps what buffers of a GPU are filled with, by name, so that the next load need not make it again.
pub trait PackedStore: fmt::Debug + Sync {
    /// The bytes kept under `name`, if they are of this type and shape, and whole.
    fn find(&self, name: &str, dtype: DType, shape: &[usize]) -> Option<&[u8]>;

    /// Begins what is to be kept under `name`, whose bytes are [appended](PackedStore::append) in order.
    fn begin(&self, name: &str, dtype: DType, shape: &[usize]);

    /// The next bytes of what was begun last.
    fn append(&self, bytes: &[u8]);
}

/// What a buffer is kept as: a name of its own in a store.
#[derive(Clone, Debug)]
pub struct Keep<'a> {
    store: &'a dyn PackedStore,
    name: String,
}

impl<'a> Keep<'a> {
    /// The bytes that are kept.
    pub(crate) fn find(&self, dtype: DType, shape: Shape) -> Option<&'a [u8]> {
        self.store.find(&self.name, dtype, shape.dims()).filter(|bytes| shape.bytes(dtype) == Some(bytes.len()))
    }

    /// Keeps what is appended to the store that this returns.
    pub(crate) fn begin(&self, dtype: DType, shape: Shape) -> &'a dyn PackedStore {
        self.store.begin(&self.name, dtype, shape.dims());
        self.store
    }
}

/// How weights are packed for a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    /// Changes with the code that packs.
    pub version: u32,
    /// Element type of matrices and tables.
    pub storage: DType,
}

impl<'a> HostTensor<'a> {
    /// What a buffer is kept as that is made of this tensor, and of others of its layer. `what` says how, and no other buffer made of this
    /// tensor has the same.
    pub fn keep(&self, what: &str) -> Option<Keep<'a>> {
        self.store.map(|store| Keep { store, name: format!("{} {what}", self.name) })
    }
}

impl HostTensor<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no data: the model is only being declared.
    pub fn is_declared(&self) -> bool {
        self.bytes.is_none()
    }

    /// Converts elements `start..start + out.len()` to f32. A tensor that is only declared reads as zeros.
    ///
    /// # Panics
    /// If the range does not lie inside the tensor, as indexing a slice does.
    pub fn copy_f32(&self, start: usize, out: &mut [f32]) {
        let Some(bytes) = self.bytes else { return out.fill(0.0) };
        let size = self.dtype.size();
        let bytes = &bytes[start * size..(start + out.len()) * size];
        match self.dtype {
            DType::F32 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*b);
                }
            }
            DType::BF16 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *x = f32::from_bits((u16::from_le_bytes(*b) as u32) << 16);
                }
            }
            DType::F16 => copy_f16(bytes, out),
            DType::U8 => {
                for (x, &b) in out.iter_mut().zip(bytes) {
                    *x = f32::from(b);
                }
            }
            DType::U32 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = u32::from_le_bytes(*b) as f32;
                }
            }
        }
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.copy_f32(0, &mut out);
        out
    }
}

/// Goes through a small aligned block, so that the file may hold the halves at any address and the hardware conversion
/// (F16C, found at run time by `half`) still applies.
fn copy_f16(bytes: &[u8], out: &mut [f32]) {
    const BLOCK: usize = 1024;
    let mut block = [f16::ZERO; BLOCK];
    for (bytes, out) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (h, b) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(*b);
        }
        block[..out.len()].convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

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

    fn tensor(dtype: DType, bytes: &[u8], len: usize) -> HostTensor<'_> {
        HostTensor { name: "t".into(), shape: vec![len], dtype, bytes: Some(bytes), store: None }
    }

    /// Every conversion, from an odd address, whole and in part, over more than one block of the f16 path.
    #[test]
    fn copies_convert_every_type_at_any_alignment() {
        let values: Vec<f32> = (0..2500).map(|i| (i as f32 - 1250.0) * 0.25).collect();
        let encoded: [(DType, Vec<u8>); 3] = [
            (DType::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (DType::F16, values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (DType::BF16, values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        ];
        for (dtype, data) in encoded {
            let rounded: Vec<f32> = match dtype {
                DType::BF16 => values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
                _ => values.clone(), // quarters up to 312 are exact in f16
            };
            for shift in 0..4 {
                let mut bytes = vec![0xAA; shift];
                bytes.extend(&data);
                let t = tensor(dtype, &bytes[shift..], values.len());
                assert_eq!(t.to_f32(), rounded, "{dtype} shifted by {shift}");
                let mut part = vec![f32::NAN; 1100];
                t.copy_f32(7, &mut part);
                assert_eq!(part, rounded[7..1107], "{dtype} shifted by {shift}, part");
            }
        }
    }

    #[test]
    fn declared_tensors_read_as_zeros() {
        let t = HostTensor { name: "t".into(), shape: vec![2, 3], dtype: DType::F32, bytes: None, store: None };
        assert!(t.is_declared() && t.len() == 6);
        assert_eq!(t.to_f32(), [0.0; 6]);
    }
}
