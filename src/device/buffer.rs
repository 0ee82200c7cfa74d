//! Memory that outlives a pass.

use super::Device;
use super::gpu::{DeviceMemory, Gpu};
use super::tensor::Place;
use crate::tensor::{DType, HostTensor, Keep, Shape};
use crate::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

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

/// Memory of a device with a shape: weights, cached keys and values, anything that lives longer than one pass.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    shape: Shape,
    dtype: DType,
}

#[derive(Debug)]
enum Memory {
    Host(Block),
    /// Shared with the captured passes that use it.
    Device(Arc<DeviceMemory>),
}

impl Buffer {
    /// A zeroed buffer of `shape`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not that much memory.
    pub fn try_zeros(device: &Device, shape: impl Into<Shape>, dtype: DType) -> Result<Buffer> {
        let buffer = Buffer::undefined(device, shape.into(), dtype)?;
        if let Memory::Device(memory) = &buffer.memory
            && memory.bytes() > 0
        {
            memory.gpu().fill(memory.address(), 0, memory.bytes())?;
        }
        Ok(buffer)
    }

    /// The values of a tensor of a file, as `dtype`; zeros if it is only declared.
    ///
    /// # Errors
    /// As [`Buffer::try_zeros`].
    pub fn of(device: &Device, tensor: &HostTensor<'_>, dtype: DType) -> Result<Buffer> {
        let mut buffer = Buffer::undefined(device, Shape::new(&tensor.shape), dtype)?;
        match &buffer.memory {
            Memory::Host(_) => tensor.copy_f32(0, buffer.f32_mut()),
            Memory::Device(memory) => {
                let keep = tensor.keep("values");
                memory.gpu().write_with(memory.address(), dtype, buffer.shape, keep, |start, out| tensor.copy_f32(start, out))?;
            }
        }
        Ok(buffer)
    }

    /// A buffer holding `values` as `dtype`, in row-major order.
    ///
    /// # Errors
    /// As [`Buffer::try_zeros`].
    ///
    /// # Panics
    /// If the number of values is not that of the shape.
    pub fn from_f32(device: &Device, shape: impl Into<Shape>, dtype: DType, values: &[f32]) -> Result<Buffer> {
        let mut buffer = Buffer::undefined(device, shape.into(), dtype)?;
        assert_eq!(values.len(), buffer.shape.len(), "values of a buffer of {:?}", buffer.shape);
        match &buffer.memory {
            Memory::Host(_) => buffer.f32_mut().copy_from_slice(values),
            Memory::Device(memory) => memory.gpu().write_f32(memory.address(), dtype, values)?,
        }
        Ok(buffer)
    }

    /// A buffer holding rows, the last extents of `shape` after the first, as `dtype`. `row(i, values)` gives row i; it is asked for them
    /// in order; for none if the buffer is on a GPU and its content is kept.
    ///
    /// # Errors
    /// As [`Buffer::try_zeros`].
    pub fn from_rows(
        device: &Device,
        keep: Option<Keep<'_>>,
        shape: impl Into<Shape>,
        dtype: DType,
        mut row: impl FnMut(usize, &mut [f32]),
    ) -> Result<Buffer> {
        let mut buffer = Buffer::undefined(device, shape.into(), dtype)?;
        let width = buffer.shape.len() / buffer.shape.dims()[0].max(1);
        match &buffer.memory {
            Memory::Host(_) => {
                buffer.f32_mut().chunks_exact_mut(width.max(1)).enumerate().for_each(|(i, values)| row(i, values));
            }
            Memory::Device(memory) => {
                let (mut values, mut held) = (vec![0.0; width], None);
                memory.gpu().write_with(memory.address(), dtype, buffer.shape, keep, |mut start, mut out| {
                    while !out.is_empty() {
                        let (i, from) = (start / width, start % width);
                        if held.replace(i) != Some(i) {
                            row(i, &mut values);
                        }
                        let (here, rest) = out.split_at_mut(out.len().min(width - from));
                        here.copy_from_slice(&values[from..][..here.len()]);
                        (start, out) = (start + here.len(), rest);
                    }
                })?;
            }
        }
        Ok(buffer)
    }

    /// A buffer of a GPU holding integers: token ids, positions.
    ///
    /// # Errors
    /// As [`Buffer::try_zeros`].
    ///
    /// # Panics
    /// On a CPU, or if the number of values is not that of the shape.
    pub fn from_u32(device: &Device, shape: impl Into<Shape>, values: &[u32]) -> Result<Buffer> {
        let buffer = Buffer::undefined(device, shape.into(), DType::U32)?;
        assert_eq!(values.len(), buffer.shape.len(), "values of a buffer of {:?}", buffer.shape);
        match &buffer.memory {
            Memory::Host(_) => panic!("buffers of integers are for GPUs"),
            Memory::Device(memory) => memory.gpu().write_u32(memory.address(), values)?,
        }
        Ok(buffer)
    }

    /// Zeros on the CPU, anything on a GPU.
    fn undefined(device: &Device, shape: Shape, dtype: DType) -> Result<Buffer> {
        let bytes = shape.bytes(dtype).ok_or_else(|| out_of_memory(usize::MAX))?;
        let memory = match device {
            Device::Cpu(_) => Memory::Host(Block::zeroed(bytes)?),
            Device::Gpu(gpu) => Memory::Device(Arc::new(gpu.alloc(bytes)?)),
        };
        Ok(Buffer { memory, shape, dtype })
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
        match &self.memory {
            Memory::Host(block) => block.bytes(),
            Memory::Device(memory) => memory.bytes(),
        }
    }

    /// The elements of an f32 buffer on the CPU.
    ///
    /// # Panics
    /// On a GPU, or if the element type is another.
    pub fn f32(&self) -> &[f32] {
        // SAFETY: the block holds shape.len() f32, aligned to 64, initialised (zeroed), borrowed with self:
        // `undefined` checked that their bytes are no more than an address can count.
        unsafe { std::slice::from_raw_parts(self.host().cast(), self.shape.len()) }
    }

    /// The elements of an f32 buffer on the CPU, for writing.
    ///
    /// # Panics
    /// As [`Buffer::f32`].
    pub fn f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `f32`, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.host().cast(), self.shape.len()) }
    }

    /// The memory of an f32 buffer on the CPU.
    fn host(&self) -> *mut u8 {
        assert_eq!(self.dtype, DType::F32, "the elements of a buffer of {} as f32", self.dtype);
        match &self.memory {
            Memory::Host(block) => block.ptr(),
            Memory::Device(_) => panic!("the elements of a buffer on a GPU: view it and read_f32 copies them"),
        }
    }

    /// Copies `values` to a buffer of floats on a GPU, from its element `start` on, converted to its type.
    ///
    /// # Errors
    /// [`Error::Device`] if they do not reach the GPU.
    ///
    /// # Panics
    /// If they do not fit there, or on a CPU.
    pub fn write_f32(&mut self, start: usize, values: &[f32]) -> Result<()> {
        let (gpu, to) = self.part(start, values.len());
        if values.is_empty() { Ok(()) } else { gpu.write_f32(to, self.dtype, values) }
    }

    /// Copies integers to a buffer of them on a GPU, from its first element on.
    ///
    /// # Errors
    /// As [`Buffer::write_f32`].
    ///
    /// # Panics
    /// As [`Buffer::write_f32`], or if the element type is another.
    pub fn write_u32(&mut self, values: &[u32]) -> Result<()> {
        assert_eq!(self.dtype, DType::U32, "integers for a buffer of {}", self.dtype);
        let (gpu, to) = self.part(0, values.len());
        if values.is_empty() { Ok(()) } else { gpu.write_u32(to, values) }
    }

    /// Copies elements `from_start..from_start + len` of another buffer of this GPU here, from element `start` on. It is queued, like a
    /// launch.
    ///
    /// # Errors
    /// [`Error::Device`] if the GPU refuses.
    ///
    /// # Panics
    /// If the elements are not there, the types or the GPUs differ, or on a CPU.
    pub fn copy_part(&mut self, start: usize, from: &Buffer, from_start: usize, len: usize) -> Result<()> {
        let ((gpu, to), (other, from_place)) = (self.part(start, len), from.part(from_start, len));
        assert!(gpu.is(other) && self.dtype == from.dtype, "{} elements for a buffer of {}", from.dtype, self.dtype);
        if len == 0 { Ok(()) } else { gpu.copy(to, from_place, len * self.dtype.size()) }
    }

    /// Copies elements of a buffer on a GPU out, from `start` on, as f32. This waits for all work before.
    ///
    /// # Errors
    /// [`Error::Device`] if the GPU failed.
    ///
    /// # Panics
    /// If they are not there, or on a CPU.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) -> Result<()> {
        let (gpu, from) = self.part(start, out.len());
        if out.is_empty() { Ok(()) } else { gpu.read_f32(from, self.dtype, out) }
    }

    /// As [`Buffer::read_f32`], for the first bytes of a buffer of them.
    ///
    /// # Errors
    /// As [`Buffer::read_f32`].
    ///
    /// # Panics
    /// As [`Buffer::read_f32`], or if the element type is another.
    pub fn read_u8(&self, out: &mut [u8]) -> Result<()> {
        self.read_integers(DType::U8, out)
    }

    /// As [`Buffer::read_u8`], for a buffer of u32.
    ///
    /// # Errors
    /// As [`Buffer::read_u8`].
    ///
    /// # Panics
    /// As [`Buffer::read_u8`].
    pub fn read_u32(&self, out: &mut [u32]) -> Result<()> {
        self.read_integers(DType::U32, out)
    }

    fn read_integers<T: bytemuck::Pod>(&self, dtype: DType, out: &mut [T]) -> Result<()> {
        assert_eq!(self.dtype, dtype, "{dtype} of a buffer of {}", self.dtype);
        let (gpu, from) = self.part(0, out.len());
        if out.is_empty() { Ok(()) } else { gpu.read_pod(from, out) }
    }

    /// The GPU of this buffer, and the address of element `start`, at which there are `len`.
    fn part(&self, start: usize, len: usize) -> (&Gpu, u64) {
        let Memory::Device(memory) = &self.memory else { panic!("a buffer on a CPU: it is a slice") };
        let fits = start.checked_add(len).is_some_and(|end| end <= self.shape.len());
        assert!(fits, "{len} elements at {start} of a buffer of {:?}", self.shape);
        (memory.gpu(), memory.address() + (start * self.dtype.size()) as u64)
    }

    /// The memory on a GPU.
    pub(super) fn device_memory(&self) -> Option<&Arc<DeviceMemory>> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Device(memory) => Some(memory),
        }
    }

    /// Where element `start` lies.
    ///
    /// # Panics
    /// If it is outside, or the buffer is not of `device`.
    pub(super) fn place(&self, device: &Device, start: usize) -> Place {
        assert!(start <= self.shape.len(), "element {start} of a buffer of {:?}", self.shape);
        let offset = start * self.dtype.size();
        match (&self.memory, device) {
            // SAFETY: inside the block or at its end, as just checked.
            (Memory::Host(block), Device::Cpu(_)) => Place::Host(unsafe { block.ptr().add(offset) }),
            (Memory::Device(memory), Device::Gpu(gpu)) if memory.gpu().is(gpu) => Place::Device(memory.address() + offset as u64),
            _ => panic!("a buffer of another device than {}", device.describe()),
        }
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
