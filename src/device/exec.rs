//! One pass of a model, being recorded or run, and the tensors it makes.

use super::arena::{Event, Plan};
use super::buffer::{Block, Buffer, out_of_memory};
use super::{Device, plan_mismatch};
use crate::Result;
use crate::tensor::{DType, Shape};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Instant;

/// What an operation does, counted from its shapes.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Name of the operation: "conv2d", "attention", ...
    pub op: &'static str,
    /// Shape of the output.
    pub shape: Shape,
    /// Floating-point operations, two for each multiply-add; useful work only, no padding.
    pub flops: u64,
    /// Bytes that must be read and written once each: inputs, weights, output.
    pub bytes: u64,
}

/// Looks at a running pass: block outputs for tests, times for profiles. Methods do nothing by default.
pub trait Observer {
    /// A named intermediate result, channels-last.
    fn tensor(&self, _name: fmt::Arguments<'_>, _shape: Shape, _values: &[f32]) {}
    /// An operation is about to start; the previous one has ended.
    fn op(&self, _cost: &Cost, _at: Instant) {}
}

enum Mode<'p> {
    Recording { ops: RefCell<Vec<Cost>>, events: RefCell<Vec<Event>> },
    Running { plan: &'p Plan, base: *mut u8, observer: Option<&'p (dyn Observer + Sync)> },
}

/// One pass: makes tensors, launches operations. Operations take it as their first argument.
pub struct Exec<'p> {
    device: &'p Device,
    mode: Mode<'p>,
    /// Position in the plan's events.
    cursor: Cell<usize>,
    births: Cell<u32>,
    /// The run has departed from the plan: no more memory is handed out.
    astray: Cell<bool>,
}

impl<'p> Exec<'p> {
    pub(super) fn recording(device: &'p Device) -> Exec<'p> {
        let mode = Mode::Recording { ops: RefCell::default(), events: RefCell::default() };
        Exec { device, mode, cursor: Cell::new(0), births: Cell::new(0), astray: Cell::new(false) }
    }

    pub(super) fn running(
        device: &'p Device,
        plan: &'p Plan,
        block: &'p mut Block,
        observer: Option<&'p (dyn Observer + Sync)>,
    ) -> Exec<'p> {
        assert!(block.bytes() >= plan.bytes(), "arena smaller than its plan");
        let mode = Mode::Running { plan, base: block.ptr(), observer };
        Exec { device, mode, cursor: Cell::new(0), births: Cell::new(0), astray: Cell::new(false) }
    }

    pub(super) fn into_recording(self) -> (Vec<Event>, Vec<Cost>) {
        match self.mode {
            Mode::Recording { ops, events } => (events.into_inner(), ops.into_inner()),
            Mode::Running { .. } => (Vec::new(), Vec::new()),
        }
    }

    /// Ends a run: what differed from the plan, if anything.
    pub(super) fn finish(&self) -> Option<String> {
        let Mode::Running { plan, .. } = &self.mode else { return None };
        let (at, expected) = (self.cursor.get(), plan.events.len());
        (self.astray.get() || at != expected).then(|| format!("the pass left its plan at event {at} of {expected}"))
    }

    /// The device of this pass.
    pub fn device(&self) -> &'p Device {
        self.device
    }

    /// A new tensor with undefined content; the caller writes all of it.
    ///
    /// # Errors
    /// If no memory can hold it, or if this run takes memory otherwise than its recording did.
    pub fn alloc(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor<'_>> {
        let shape = shape.into();
        // Checked, because `Tensor::f32` relies on it: the memory is as long as the shape says.
        let event = Event::Alloc { bytes: shape.bytes(dtype).ok_or_else(|| out_of_memory(usize::MAX))? };
        self.advance(event);
        if self.astray.get() {
            return Err(plan_mismatch(format!("a tensor {shape:?} {dtype} was not expected at event {}", self.cursor.get())));
        }
        let id = self.births.replace(self.births.get() + 1);
        let data = match &self.mode {
            Mode::Recording { .. } => std::ptr::null_mut(),
            // SAFETY: the plan places every tensor inside the block, which `running` checked to be large enough.
            Mode::Running { plan, base, .. } => unsafe { base.add(plan.offsets[id as usize]) },
        };
        Ok(Tensor { exec: self, data, id: Some(id), shape, dtype })
    }

    /// A new tensor holding `values` (f32).
    pub fn input(&self, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor<'_>> {
        let mut tensor = self.alloc(shape, DType::F32)?;
        if self.is_running() {
            tensor.f32_mut().copy_from_slice(values);
        }
        Ok(tensor)
    }

    /// A persistent buffer as a read-only tensor.
    pub fn view<'e>(&'e self, buffer: &'e Buffer) -> Tensor<'e> {
        Tensor { exec: self, data: buffer_ptr(buffer), id: None, shape: buffer.shape(), dtype: buffer.dtype() }
    }

    /// Part of a persistent f32 buffer, from element `start`, as a read-only tensor.
    ///
    /// # Panics
    /// If the part reaches outside the buffer.
    pub fn view_part<'e>(&'e self, buffer: &'e Buffer, start: usize, shape: impl Into<Shape>) -> Tensor<'e> {
        let shape = shape.into();
        let room = buffer.shape().len().checked_sub(start);
        assert!(room.is_some_and(|room| shape.len() <= room), "{shape:?} from {start} is outside {:?}", buffer.shape());
        // SAFETY: inside the buffer, as just checked.
        let data = unsafe { buffer_ptr(buffer).add(start * buffer.dtype().size()) };
        Tensor { exec: self, data, id: None, shape, dtype: buffer.dtype() }
    }

    /// Announces an operation. Returns the device to run it on, or `None` while recording, when nothing is computed.
    pub fn launch(&self, cost: Cost) -> Option<&'p Device> {
        match &self.mode {
            Mode::Recording { ops, .. } => {
                ops.borrow_mut().push(cost);
                None
            }
            Mode::Running { observer, .. } => {
                if let Some(observer) = observer {
                    observer.op(&cost, Instant::now());
                }
                Some(self.device)
            }
        }
    }

    /// Shows a named intermediate f32 tensor to the observer, if there is one.
    pub fn observe(&self, name: fmt::Arguments<'_>, tensor: &Tensor<'_>) {
        if let Mode::Running { observer: Some(observer), .. } = &self.mode {
            observer.tensor(name, tensor.shape(), tensor.f32());
        }
    }

    /// False while recording.
    pub fn is_running(&self) -> bool {
        matches!(self.mode, Mode::Running { .. })
    }

    fn advance(&self, event: Event) {
        let at = self.cursor.replace(self.cursor.get() + 1);
        match &self.mode {
            Mode::Recording { events, .. } => events.borrow_mut().push(event),
            Mode::Running { plan, .. } => {
                if plan.events.get(at) != Some(&event) {
                    self.astray.set(true);
                }
            }
        }
    }
}

fn buffer_ptr(buffer: &Buffer) -> *mut u8 {
    match buffer.dtype() {
        DType::F32 => buffer.f32().as_ptr().cast_mut().cast(),
        other => unreachable!("no {other} buffers are viewed on the CPU"),
    }
}

/// Values of one pass: channels-last, row-major, contiguous. Freed for reuse when dropped.
///
/// A tensor borrows its pass, so none outlives it; the plan gives every living tensor memory of its own.
pub struct Tensor<'e> {
    exec: &'e Exec<'e>,
    data: *mut u8,
    /// Number of this tensor in the plan; `None` for a read-only view of a [`Buffer`].
    id: Option<u32>,
    shape: Shape,
    dtype: DType,
}

impl<'e> Tensor<'e> {
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

    /// The same values under another shape of the same length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn reshape(mut self, shape: impl Into<Shape>) -> Tensor<'e> {
        let shape = shape.into();
        assert_eq!(shape.len(), self.shape.len(), "reshape {:?} to {shape:?}", self.shape);
        self.shape = shape;
        self
    }

    /// The elements of an f32 tensor, on the CPU.
    ///
    /// # Panics
    /// While recording, or if the element type is another.
    pub fn f32(&self) -> &[f32] {
        assert_eq!(self.dtype, DType::F32, "Tensor::f32 on {}", self.dtype);
        assert!(!self.data.is_null(), "tensor values asked for while recording");
        // SAFETY: the plan gives this living tensor memory of its own (checked event by event in `advance`), aligned to 64
        // and initialised: arenas are zeroed when made. A view borrows its buffer for 'e.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.shape.len()) }
    }

    /// The elements of an f32 tensor for writing, on the CPU.
    ///
    /// # Panics
    /// While recording, if the element type is another, or for a view of a [`Buffer`].
    pub fn f32_mut(&mut self) -> &mut [f32] {
        assert!(self.id.is_some(), "views of buffers are read-only");
        assert_eq!(self.dtype, DType::F32, "Tensor::f32_mut on {}", self.dtype);
        assert!(!self.data.is_null(), "tensor values asked for while recording");
        // SAFETY: as in `f32`, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.data.cast(), self.shape.len()) }
    }

    /// Copies the values out.
    pub fn read_f32(&self, out: &mut [f32]) {
        if self.exec.is_running() {
            out.copy_from_slice(self.f32());
        }
    }

    /// Copies the values into a persistent buffer of the same shape length.
    pub fn store(&self, out: &mut Buffer) {
        self.read_f32(out.f32_mut());
    }
}

impl Drop for Tensor<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.exec.advance(Event::Free { id });
        }
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {})", self.shape, self.dtype)
    }
}
