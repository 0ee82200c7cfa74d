//! The values of a pass.

use super::Device;
use super::buffer::Buffer;
use super::exec::Exec;
use crate::Result;
use crate::tensor::{DType, Shape};
use std::fmt;

/// Elements of a GPU's 16-byte vector, in either of its storage types.
pub(crate) const LANES: usize = 8;

/// Where values lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Nowhere: the pass is being recorded.
    None,
    /// In this machine's memory.
    Host(*mut u8),
    /// At an address of the GPU.
    Device(u64),
}

/// Statistics of a product's result `[M, N]` that the product takes on a GPU for the norm that reads it next
/// (`kernels/gemm/statistics.cuh`): of parts of the result, as it is stored, the mean and the sum of squares about it, in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Of two channels in [`Statistics::PART_ROWS`] rows, for a group norm: `[M / 32, N / 2, 2]`.
    Channels,
    /// Of [`Statistics::PART_COLUMNS`] columns of a row, for a layer norm: `[M, N / 80, 2]`.
    Rows,
}

impl Statistics {
    /// Rows of a part of channels.
    pub const PART_ROWS: usize = 32;
    /// Channels of a part.
    pub const PART_CHANNELS: usize = 2;
    /// Columns of a part of a row.
    pub const PART_COLUMNS: usize = 80;

    /// The parts of a result of `rows` x `columns`, along both; none if it has no whole ones.
    pub fn parts(self, rows: usize, columns: usize) -> Option<[usize; 2]> {
        let [tall, wide] = match self {
            Statistics::Channels => [Statistics::PART_ROWS, Statistics::PART_CHANNELS],
            Statistics::Rows => [1, Statistics::PART_COLUMNS],
        };
        (rows.is_multiple_of(tall) && columns.is_multiple_of(wide)).then_some([rows / tall, columns / wide])
    }
}

/// Statistics that belong to a tensor and die with it.
#[derive(Clone, Copy)]
struct Attached {
    kind: Statistics,
    place: Place,
    id: u32,
    shape: Shape,
}

/// Values of one pass: channels-last, row-major, contiguous. Freed for reuse when dropped.
///
/// A tensor borrows its pass, so none outlives it; the plan gives every living tensor memory of its own.
pub struct Tensor<'e> {
    exec: &'e Exec<'e>,
    place: Place,
    /// Number of this tensor in the plan; `None` for a view of a [`Buffer`].
    id: Option<u32>,
    /// False for a view of a buffer that others may read.
    writable: bool,
    shape: Shape,
    dtype: DType,
    attached: Option<Attached>,
}

impl<'e> Tensor<'e> {
    /// `place` holds the values of `shape`, for as long as this tensor (with `id`) or the buffer it views (without) lives.
    pub(super) fn new(exec: &'e Exec<'e>, place: Place, id: Option<u32>, shape: Shape, dtype: DType) -> Tensor<'e> {
        Tensor { exec, place, id, writable: id.is_some(), shape, dtype, attached: None }
    }

    /// A view of a buffer that was borrowed exclusively.
    pub(super) fn into_writable(mut self) -> Tensor<'e> {
        self.writable = true;
        self
    }

    /// Extents.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Extents, as a slice.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype.size()
    }

    /// True if a GPU's 16-byte vectors can read it from its first element on.
    pub fn is_aligned(&self) -> bool {
        match self.place {
            Place::None => true,
            Place::Host(data) => data.addr().is_multiple_of(16),
            Place::Device(address) => address.is_multiple_of(16),
        }
    }

    /// Lets statistics of these values live as long as they do.
    ///
    /// # Panics
    /// If `parts` is a view, or there are some already.
    pub fn attach(&mut self, kind: Statistics, parts: Tensor<'e>) {
        let &Tensor { place, id: Some(id), shape, .. } = &parts else { panic!("a view as statistics") };
        std::mem::forget(parts); // buried with self
        assert!(self.attached.replace(Attached { kind, place, id, shape }).is_none(), "statistics of {self:?} twice");
    }

    /// The statistics that were attached, `[.., 2]` f32.
    pub fn attached_statistics(&self) -> Option<(Statistics, Tensor<'_>)> {
        let Attached { kind, place, shape, .. } = self.attached?;
        Some((kind, Tensor::new(self.exec, place, None, shape, DType::F32)))
    }

    /// The same, if they are of this kind.
    pub fn statistics(&self, kind: Statistics) -> Option<Tensor<'_>> {
        self.attached_statistics().filter(|(attached, _)| *attached == kind).map(|(_, statistics)| statistics)
    }

    /// The same values under another shape of the same length. Statistics stay where the last extent does.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn reshape(mut self, shape: impl Into<Shape>) -> Tensor<'e> {
        let shape = shape.into();
        assert_eq!(shape.len(), self.shape.len(), "reshape {:?} to {shape:?}", self.shape);
        if shape.last() != self.shape.last() {
            self.attached.take().inspect(|attached| self.exec.bury(attached.id));
        }
        self.shape = shape;
        self
    }

    /// The elements of an f32 tensor, on the CPU.
    ///
    /// # Panics
    /// While recording, on a GPU, or if the element type is another.
    pub fn f32(&self) -> &[f32] {
        // SAFETY: the plan gives this living tensor memory of its own (checked event by event by the pass), aligned to 64
        // and initialised: arenas are zeroed when made. A view borrows its buffer for 'e.
        unsafe { std::slice::from_raw_parts(self.host().cast(), self.shape.len()) }
    }

    /// The elements of an f32 tensor for writing, on the CPU.
    ///
    /// # Panics
    /// While recording, on a GPU, if the element type is another, or for a read-only view of a [`Buffer`].
    pub fn f32_mut(&mut self) -> &mut [f32] {
        self.assert_writable();
        // SAFETY: as in `f32`, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.host().cast(), self.shape.len()) }
    }

    /// # Panics
    /// For a read-only view of a [`Buffer`], or if statistics of the values would be wrong afterwards.
    pub(super) fn assert_writable(&self) {
        assert!(self.writable, "this view of a buffer is read-only");
        assert!(self.attached.is_none(), "writing to {self:?}, which has statistics");
    }

    /// The memory of an f32 tensor on the CPU.
    fn host(&self) -> *mut u8 {
        assert_eq!(self.dtype, DType::F32, "the elements of a tensor of {} as f32", self.dtype);
        match self.place {
            Place::Host(data) => data,
            Place::None => panic!("tensor values asked for while recording"),
            Place::Device(_) => panic!("the elements of a tensor on a GPU: read_f32 copies them"),
        }
    }

    /// The address on the GPU; 0 while recording.
    pub(super) fn address(&self) -> u64 {
        match self.place {
            Place::None => 0,
            Place::Device(address) => address,
            Place::Host(_) => panic!("the address of a tensor on a CPU"),
        }
    }

    /// Copies `values` in, converted to the element type. Nothing happens while recording.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if they do not reach the GPU; an internal error if the pass is being captured.
    ///
    /// # Panics
    /// If the number of values is another, or this is a read-only view of a [`Buffer`].
    pub fn write_f32(&mut self, values: &[f32]) -> Result<()> {
        let Device::Gpu(gpu) = self.exec.device() else {
            if self.exec.is_running() {
                self.f32_mut().copy_from_slice(values);
            }
            return Ok(());
        };
        let Some(address) = self.writable(values.len())? else { return Ok(()) };
        gpu.write_f32(address, self.dtype, values)
    }

    /// Copies integers in, on a GPU. Nothing happens while recording.
    ///
    /// # Errors
    /// As [`Tensor::write_f32`].
    ///
    /// # Panics
    /// As [`Tensor::write_f32`]; if the element type is not u32, or this is not on a GPU.
    pub fn write_u32(&mut self, values: &[u32]) -> Result<()> {
        assert_eq!(self.dtype, DType::U32, "integers for a tensor of {}", self.dtype);
        let Device::Gpu(gpu) = self.exec.device() else { panic!("tensors of integers are for GPUs") };
        let Some(address) = self.writable(values.len())? else { return Ok(()) };
        gpu.write_u32(address, values)
    }

    /// Sets every byte. Nothing happens while recording.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the GPU refuses.
    ///
    /// # Panics
    /// If this is a read-only view of a [`Buffer`].
    pub fn fill_bytes(&mut self, byte: u8) -> Result<()> {
        match self.exec.device() {
            Device::Cpu(_) if !self.exec.is_running() => Ok(()),
            Device::Cpu(_) => {
                bytemuck::cast_slice_mut::<f32, u8>(self.f32_mut()).fill(byte);
                Ok(())
            }
            Device::Gpu(gpu) => match self.place {
                Place::Device(address) if self.bytes() > 0 => {
                    self.assert_writable();
                    gpu.fill(address, byte, self.bytes())
                }
                _ => Ok(()),
            },
        }
    }

    /// The address of this tensor if the pass is running, once `count` elements may be written there by the host.
    fn writable(&self, count: usize) -> Result<Option<u64>> {
        if !self.exec.is_running() {
            return Ok(None);
        }
        self.assert_writable();
        assert_eq!(count, self.shape.len(), "elements for {self:?}");
        self.exec.check_transfer()?;
        Ok((count > 0).then(|| self.address()))
    }

    /// Copies `len` elements of `from`, which starts at its element `from_start`, here from element `start` on, on a GPU. Nothing happens
    /// while recording.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the GPU refuses.
    ///
    /// # Panics
    /// If the elements are not there, the element types differ, or this is not on a GPU.
    pub fn copy_part(&mut self, start: usize, from: &Tensor<'_>, from_start: usize, len: usize) -> Result<()> {
        let fits = |tensor: &Tensor<'_>, start: usize| start.checked_add(len).is_some_and(|end| end <= tensor.shape.len());
        self.assert_writable();
        assert!(
            fits(self, start) && fits(from, from_start) && self.dtype == from.dtype,
            "{len} elements at {from_start} of {from:?} to {start} of {self:?}"
        );
        let Device::Gpu(gpu) = self.exec.device() else { panic!("copies of parts are for GPUs") };
        if !self.exec.is_running() || len == 0 {
            return Ok(());
        }
        let place = |tensor: &Tensor<'_>, start: usize| tensor.address() + (start * tensor.dtype.size()) as u64;
        gpu.copy(place(self, start), place(from, from_start), len * self.dtype.size())
    }

    /// Copies the values out, as f32. Nothing happens while recording. On a GPU this waits for all work before.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the GPU failed; an internal error if the pass is being captured.
    ///
    /// # Panics
    /// If the number of values is another.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        if !self.exec.is_running() {
            return Ok(());
        }
        match self.exec.device() {
            Device::Cpu(_) => out.copy_from_slice(self.f32()),
            Device::Gpu(gpu) => {
                assert_eq!(out.len(), self.shape.len(), "elements of {self:?}");
                self.exec.check_transfer()?;
                if !out.is_empty() {
                    gpu.read_f32(self.address(), self.dtype, out)?;
                }
            }
        }
        Ok(())
    }

    /// Copies bytes out, on a GPU, as [`Tensor::read_f32`] does numbers.
    ///
    /// # Errors
    /// As [`Tensor::read_f32`].
    ///
    /// # Panics
    /// As [`Tensor::read_f32`]; if the element type is not u8, or this is not on a GPU.
    pub fn read_u8(&self, out: &mut [u8]) -> Result<()> {
        self.read_integers(DType::U8, out)
    }

    /// As [`Tensor::read_u8`], for elements of u32.
    ///
    /// # Errors
    /// As [`Tensor::read_u8`].
    ///
    /// # Panics
    /// As [`Tensor::read_u8`].
    pub fn read_u32(&self, out: &mut [u32]) -> Result<()> {
        self.read_integers(DType::U32, out)
    }

    fn read_integers<T: bytemuck::Pod>(&self, dtype: DType, out: &mut [T]) -> Result<()> {
        assert!(self.dtype == dtype && out.len() == self.shape.len(), "{} elements {dtype} of {self:?}", out.len());
        let Device::Gpu(gpu) = self.exec.device() else { panic!("tensors of integers are for GPUs") };
        if !self.exec.is_running() || out.is_empty() {
            return Ok(());
        }
        self.exec.check_transfer()?;
        gpu.read_pod(self.address(), out)
    }

    /// Copies the values into a persistent buffer of the same length and element type.
    ///
    /// # Errors
    /// As [`Tensor::store_at`].
    ///
    /// # Panics
    /// As [`Tensor::store_at`].
    pub fn store(&self, out: &mut Buffer) -> Result<()> {
        assert_eq!(out.shape().len(), self.shape.len(), "{self:?} into a buffer of {:?}", out.shape());
        self.store_at(out, 0)
    }

    /// Copies the values into a persistent buffer of the same element type, from its element `start` on. Nothing happens while recording.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the GPU refuses.
    ///
    /// # Panics
    /// If they do not fit there, or the buffer is of another device.
    pub fn store_at(&self, out: &mut Buffer, start: usize) -> Result<()> {
        let len = self.shape.len();
        let room = out.shape().len().checked_sub(start).is_some_and(|room| len <= room);
        assert!(room && out.dtype() == self.dtype, "{self:?} at {start} of a buffer of {:?} {}", out.shape(), out.dtype());
        if !self.exec.is_running() {
            return Ok(());
        }
        match self.exec.device() {
            Device::Cpu(_) => out.f32_mut()[start..start + len].copy_from_slice(self.f32()),
            Device::Gpu(gpu) => {
                let to = self.exec.view_part(out, start, self.shape).address();
                if len > 0 {
                    gpu.copy(to, self.address(), self.bytes())?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Tensor<'_> {
    fn drop(&mut self) {
        for id in [self.id, self.attached.map(|attached| attached.id)].into_iter().flatten() {
            self.exec.bury(id);
        }
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {})", self.shape, self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{cpus, keep, run};

    #[test]
    #[should_panic(expected = "bytes before tensor 1")]
    fn writes_past_a_tensor_are_found() {
        run(&cpus()[0], |exec, out| {
            let x = exec.input([3], &[1.0; 3])?;
            if let Place::Host(data) = x.place {
                // SAFETY: the memory is that of the whole arena, which has a guard behind the tensor.
                unsafe { data.add(x.bytes()).write(0) };
            }
            keep(&x, out)
        });
    }
}
