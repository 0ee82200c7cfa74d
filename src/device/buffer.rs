//! Memory that outlives a pass.

use super::Device;
use crate::tensor::{DType, Shape};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of all tensor memory: a cache line, and the widest vector register.
pub(super) const ALIGN: usize = 64;

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
    pub(super) fn zeroed(bytes: usize) -> Block {
        let layout = Block::layout(bytes);
        // SAFETY: the layout has a non-zero size.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Block { ptr, bytes }
    }

    fn layout(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes.max(1), ALIGN) {
            Ok(layout) => layout,
            Err(_) => handle_alloc_error(Layout::new::<u8>()),
        }
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
        // SAFETY: allocated in `zeroed` with the same layout, freed once.
        unsafe { dealloc(self.ptr.as_ptr(), Block::layout(self.bytes)) }
    }
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
    pub fn zeros(_device: &Device, shape: impl Into<Shape>, dtype: DType) -> Buffer {
        let shape = shape.into();
        Buffer { block: Block::zeroed(shape.len() * dtype.size()), shape, dtype }
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
        // SAFETY: the block holds shape.len() f32, aligned to 64, initialised (zeroed), borrowed with self.
        unsafe { std::slice::from_raw_parts(self.block.ptr().cast(), self.shape.len()) }
    }

    /// The elements of an f32 buffer, for writing.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        assert_eq!(self.dtype, DType::F32, "Buffer::f32_mut on {}", self.dtype);
        // SAFETY: as in `f32`, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr().cast(), self.shape.len()) }
    }
}
