//! Memory that outlives a pass.

use super::Device;
use crate::tensor::{DType, HostTensor, Shape};
use crate::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of all tensor memory: a cache line, and the widest vector register.
pub(super) const ALIGN: usize = 64;

/// What an address of [`ALIGN`] points to.
#[repr(align(64))]
struct Aligned;

/// An owned, zero-initialised, 64-byte aligned block.
#[derive(Debug)]
pub(super) struct Block {
    ptr: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a Block owns its memory exclusively; access goes through &self / &mut self of the owner.
unsafe impl Send for Block {}
// SAFETY: see above: shared references only ever read.
unsafe impl Sync for Block {}

impl Block {
    /// No memory.
    pub(super) fn empty() -> Block {
        Block { ptr: NonNull::<Aligned>::dangling().cast(), bytes: 0 }
    }

    /// # Errors
    /// [`Error::Usage`] if the system does not have that much.
    pub(super) fn zeroed(bytes: usize) -> Result<Block> {
        if bytes == 0 {
            return Ok(Block::empty());
        }
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| out_of_memory(bytes))?;
        // SAFETY: the layout has a non-zero size.
        let ptr = unsafe { alloc_zeroed(layout) };
        NonNull::new(ptr).map(|ptr| Block { ptr, bytes }).ok_or_else(|| out_of_memory(bytes))
    }

    pub(super) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `zeroed` checked this layout and allocated with it; freed once.
            unsafe { dealloc(self.ptr.as_ptr(), Layout::from_size_align_unchecked(self.bytes, ALIGN)) }
        }
    }
}

/// The error of memory that is not there.
pub(super) fn out_of_memory(bytes: usize) -> Error {
    let mib = bytes.div_ceil(1 << 20);
    Error::usage(
        format!("the system does not give {mib} MiB of memory"),
        "use a smaller --batch, --height or --width, or a model of sensible extents",
    )
}

/// Owned device memory with a shape: weights, cached keys and values, anything that lives longer than one pass.
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    shape: Shape,
    dtype: DType,
}

impl Buffer {
    /// A zeroed buffer of `shape`.
    ///
    /// # Panics
    /// If there is not that much memory. Where the shape comes from settings or files, use [`Buffer::try_zeros`].
    pub fn zeros(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Buffer {
        Buffer::try_zeros(device, shape, dtype).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A zeroed buffer of `shape`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not that much memory.
    pub fn try_zeros(_device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Buffer> {
        let shape = shape.into();
        let bytes = shape.bytes(dtype).ok_or_else(|| out_of_memory(usize::MAX))?;
        Ok(Buffer { block: Block::zeroed(bytes)?, shape, dtype })
    }

    /// A tensor of a file in f32; zeros if it is only declared.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not that much memory.
    pub fn of(device: &Device, tensor: &HostTensor<'_>) -> Result<Buffer> {
        let mut buffer = Buffer::try_zeros(device, Shape::new(&tensor.shape), DType::F32)?;
        if !tensor.is_declared() {
            tensor.copy_f32(0, buffer.f32_mut());
        }
        Ok(buffer)
    }

    /// A buffer holding `values`, f32, in row-major order.
    ///
    /// # Panics
    /// If the number of values is not that of the shape.
    pub fn from_f32(device: &Device, shape: impl Into<Shape>, values: &[f32]) -> Buffer {
        let mut buffer = Buffer::zeros(device, shape, DType::F32);
        buffer.f32_mut().copy_from_slice(values);
        buffer
    }

    /// Extents.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.block.bytes()
    }

    /// The elements of an f32 buffer.
    pub fn f32(&self) -> &[f32] {
        assert_eq!(self.dtype, DType::F32, "Buffer::f32 on {}", self.dtype);
        // SAFETY: the block holds shape.len() f32, aligned to 64, initialised (zeroed), borrowed with self:
        // `try_zeros` checked that their bytes are no more than an address can count.
        unsafe { std::slice::from_raw_parts(self.block.ptr().cast(), self.shape.len()) }
    }

    /// The elements of an f32 buffer, for writing.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        assert_eq!(self.dtype, DType::F32, "Buffer::f32_mut on {}", self.dtype);
        // SAFETY: as in `f32`, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr().cast(), self.shape.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let device = Device::cpu(1).unwrap();
        for shape in [Shape::from([1 << 62, 4]), Shape::from([1 << 58]), Shape::from([usize::MAX])] {
            let error = Buffer::try_zeros(&device, shape, DType::F32).unwrap_err();
            assert!(matches!(&error, Error::Usage { hint, .. } if hint.contains("--batch")), "{shape:?}: {error}");
        }
    }

    #[test]
    fn buffers_may_be_empty() {
        let device = Device::cpu(1).unwrap();
        let mut buffer = Buffer::try_zeros(&device, [3, 0], DType::F32).unwrap();
        assert_eq!((buffer.f32(), buffer.f32().as_ptr().align_offset(ALIGN)), (&[][..], 0));
        assert!(buffer.f32_mut().is_empty());
    }
}
