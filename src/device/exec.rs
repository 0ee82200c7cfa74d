//! One pass of a model, being recorded or run.

use super::arena::{Event, Plan};
use super::buffer::{Buffer, out_of_memory};
use super::gpu::{self, DeviceMemory, Gpu};
use super::launch::Launch;
use super::nvtx;
use super::tensor::{Place, Tensor};
use super::{Device, plan_mismatch};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
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
    /// An operation started at `at`, when the previous one had ended. A GPU tells it, for all operations, when the pass has ended.
    fn op(&self, _cost: &Cost, _at: Instant) {}
}

pub(super) type Watcher<'p> = Option<&'p (dyn Observer + Sync)>;

/// Where the tensors of a running pass lie.
pub(super) enum Ground<'p> {
    /// In a block of this machine's memory.
    Host(*mut u8),
    /// In memory of a GPU.
    Device(DeviceGround<'p>),
}

/// Memory of a running pass on a GPU.
pub(super) struct DeviceGround<'p> {
    pub gpu: &'p Gpu,
    /// Start of the arena; none if each tensor gets an allocation of its own, which is then in `living`.
    pub base: Option<u64>,
    pub living: RefCell<Vec<(u32, Arc<DeviceMemory>)>>,
    /// What a captured pass uses, kept for its replays; none if the pass is not being captured.
    pub kept: Option<RefCell<Vec<Arc<DeviceMemory>>>>,
    /// Starts of operations, where they are observed: the host's clock at the first, and the queue at each.
    pub starts: RefCell<Vec<(Cost, gpu::Event)>>,
    pub first: Cell<Option<Instant>>,
}

impl DeviceGround<'_> {
    fn birth(&self, plan: &Plan, id: u32, bytes: usize) -> Result<u64> {
        if let Some(base) = self.base {
            return Ok(base + plan.offsets[id as usize] as u64);
        }
        let memory = Arc::new(self.gpu.alloc(bytes)?);
        let address = memory.address();
        if bytes > 0 {
            self.gpu.undefine(address, bytes)?;
        }
        self.keep(&memory);
        self.living.borrow_mut().push((id, memory));
        Ok(address)
    }

    fn keep(&self, memory: &Arc<DeviceMemory>) {
        if let Some(kept) = &self.kept {
            kept.borrow_mut().push(memory.clone());
        }
    }

    fn start(&self, cost: Cost) -> Result<()> {
        if self.first.get().is_none() {
            self.gpu.synchronize()?;
            self.first.set(Some(Instant::now()));
        }
        self.starts.borrow_mut().push((cost, self.gpu.record()?));
        Ok(())
    }

    /// Waits for the pass, and tells the observer when its operations started.
    fn finish(&self, observer: Watcher<'_>) -> Result<()> {
        if self.kept.is_some() {
            return Ok(());
        }
        self.gpu.synchronize()?;
        let starts = self.starts.borrow();
        if let (Some(observer), Some((_, first)), Some(at)) = (observer, starts.first(), self.first.get()) {
            for (cost, start) in starts.iter() {
                observer.op(cost, at + start.since(first)?);
            }
        }
        Ok(())
    }
}

/// What a recorded pass does.
#[derive(Default)]
pub(super) struct Recording {
    pub events: Vec<Event>,
    pub ops: Vec<Cost>,
    /// Entries of the kernels launched.
    pub launches: Vec<&'static str>,
}

enum Mode<'p> {
    Recording(RefCell<Recording>),
    Running { plan: &'p Plan, ground: Ground<'p>, observer: Watcher<'p> },
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
    /// The first failure of something that cannot return it.
    failure: RefCell<Option<Error>>,
}

impl<'p> Exec<'p> {
    pub(super) fn recording(device: &'p Device) -> Exec<'p> {
        Exec::new(device, Mode::Recording(RefCell::default()))
    }

    /// `ground` holds at least the bytes of the plan.
    pub(super) fn running(device: &'p Device, plan: &'p Plan, ground: Ground<'p>, observer: Watcher<'p>) -> Exec<'p> {
        Exec::new(device, Mode::Running { plan, ground, observer })
    }

    fn new(device: &'p Device, mode: Mode<'p>) -> Exec<'p> {
        let (cursor, births, astray) = (Cell::new(0), Cell::new(0), Cell::new(false));
        Exec { device, mode, cursor, births, astray, failure: RefCell::new(None) }
    }

    pub(super) fn into_recording(self) -> Recording {
        match self.mode {
            Mode::Recording(recording) => recording.into_inner(),
            Mode::Running { .. } => Recording::default(),
        }
    }

    /// Ends a run: waits for it, and says what differed from the plan, if anything.
    pub(super) fn finish(&self) -> Result<()> {
        let Mode::Running { plan, ground, observer } = &self.mode else { return Ok(()) };
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if let Ground::Device(ground) = ground {
            ground.finish(*observer)?;
        }
        let (at, expected) = (self.cursor.get(), plan.events.len());
        if self.astray.get() || at != expected {
            return Err(plan_mismatch(format!("the pass left its plan at event {at} of {expected}")));
        }
        Ok(())
    }

    /// What a captured pass must keep.
    pub(super) fn into_kept(self) -> Vec<Arc<DeviceMemory>> {
        match self.mode {
            Mode::Running { ground: Ground::Device(DeviceGround { kept: Some(kept), .. }), .. } => kept.into_inner(),
            _ => Vec::new(),
        }
    }

    /// The device of this pass.
    pub fn device(&self) -> &'p Device {
        self.device
    }

    /// Element type of activations: f32 on a CPU, f16 or bf16 on a GPU.
    pub fn storage(&self) -> DType {
        self.device.storage()
    }

    /// A new tensor with undefined content; the caller writes all of it.
    ///
    /// # Errors
    /// If no memory can hold it, or if this run takes memory otherwise than its recording did.
    pub fn alloc(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor<'_>> {
        let shape = shape.into();
        // Checked, because `Tensor::f32` relies on it: the memory is as long as the shape says.
        let bytes = shape.bytes(dtype).ok_or_else(|| out_of_memory(usize::MAX))?;
        self.advance(Event::Alloc { bytes });
        if self.astray.get() {
            return Err(plan_mismatch(format!("a tensor {shape:?} {dtype} was not expected at event {}", self.cursor.get())));
        }
        let id = self.births.replace(self.births.get() + 1);
        let place = match &self.mode {
            Mode::Recording(_) => Place::None,
            Mode::Running { plan, ground: Ground::Host(base), .. } => {
                // SAFETY: the plan places every tensor inside the block, which `Arena::run` made large enough.
                Place::Host(unsafe { base.add(plan.offsets[id as usize]) })
            }
            Mode::Running { plan, ground: Ground::Device(ground), .. } => Place::Device(ground.birth(plan, id, bytes)?),
        };
        Ok(Tensor::new(self, place, Some(id), shape, dtype))
    }

    /// A new tensor holding `values`, in the storage type of the device.
    ///
    /// # Errors
    /// As [`Exec::alloc`]; [`Error::Device`] if the values do not reach the GPU, or the pass is being captured.
    pub fn input(&self, shape: impl Into<Shape>, values: &[f32]) -> Result<Tensor<'_>> {
        self.input_as(shape, self.storage(), values)
    }

    /// A new tensor holding `values` as `dtype`, a type of floats.
    ///
    /// # Errors
    /// As [`Exec::input`].
    pub fn input_as(&self, shape: impl Into<Shape>, dtype: DType, values: &[f32]) -> Result<Tensor<'_>> {
        let mut tensor = self.alloc(shape, dtype)?;
        tensor.write_f32(values)?;
        Ok(tensor)
    }

    /// A new tensor holding integers: token ids, positions.
    ///
    /// # Errors
    /// As [`Exec::input`].
    pub fn input_u32(&self, shape: impl Into<Shape>, values: &[u32]) -> Result<Tensor<'_>> {
        let mut tensor = self.alloc(shape, DType::U32)?;
        tensor.write_u32(values)?;
        Ok(tensor)
    }

    /// A persistent buffer as a read-only tensor.
    ///
    /// # Panics
    /// If the buffer is of another device.
    pub fn view<'e>(&'e self, buffer: &'e Buffer) -> Tensor<'e> {
        self.view_part(buffer, 0, buffer.shape())
    }

    /// Part of a persistent buffer, from element `start`, as a read-only tensor.
    ///
    /// # Panics
    /// If the part reaches outside the buffer, or the buffer is of another device.
    pub fn view_part<'e>(&'e self, buffer: &'e Buffer, start: usize, shape: impl Into<Shape>) -> Tensor<'e> {
        let shape = shape.into();
        let room = buffer.shape().len().checked_sub(start);
        assert!(room.is_some_and(|room| shape.len() <= room), "{shape:?} from {start} is outside {:?}", buffer.shape());
        if let Mode::Running { ground: Ground::Device(ground), .. } = &self.mode
            && let Some(memory) = buffer.device_memory()
        {
            ground.keep(memory);
        }
        Tensor::new(self, buffer.place(self.device, start), None, shape, buffer.dtype())
    }

    /// As [`Exec::view_part`], for operations that write it. What they do not write stays as it was.
    ///
    /// # Panics
    /// As [`Exec::view_part`].
    pub fn view_part_mut<'e>(&'e self, buffer: &'e mut Buffer, start: usize, shape: impl Into<Shape>) -> Tensor<'e> {
        self.view_part(buffer, start, shape).into_writable()
    }

    /// Announces an operation. False while recording, when nothing is computed.
    pub fn begin(&self, cost: Cost) -> bool {
        match &self.mode {
            Mode::Recording(recording) => {
                recording.borrow_mut().ops.push(cost);
                false
            }
            Mode::Running { ground, observer, .. } => {
                match (observer, ground) {
                    (Some(observer), Ground::Host(_)) => observer.op(&cost, Instant::now()),
                    (Some(_), Ground::Device(ground)) => self.note(ground.start(cost)),
                    (None, _) => {}
                }
                true
            }
        }
    }

    /// Launches a kernel of the GPU, for an operation that was announced. While recording, it is checked and loaded only.
    ///
    /// # Errors
    /// [`Error::Launch`] if the program has no such kernel, its arguments do not fit it, or it fails.
    pub fn enqueue(&self, launch: Launch<'_>) -> Result<()> {
        match (self.device, &self.mode) {
            (Device::Gpu(gpu), Mode::Recording(recording)) => {
                recording.borrow_mut().launches.push(launch.entry());
                gpu.check(&launch)
            }
            (Device::Gpu(gpu), Mode::Running { .. }) => gpu.launch(&launch),
            (Device::Cpu(_), _) => Err(Error::launch(launch.entry(), "a CPU runs no GPU kernels")),
        }
    }

    /// Shows a named intermediate tensor to the observer, if there is one.
    pub fn observe(&self, name: fmt::Arguments<'_>, tensor: &Tensor<'_>) {
        let Mode::Running { observer: Some(observer), ground, .. } = &self.mode else { return };
        match ground {
            Ground::Host(_) => observer.tensor(name, tensor.shape(), tensor.f32()),
            Ground::Device(_) => {
                let mut values = vec![0.0; tensor.shape().len()];
                let read = tensor.read_f32(&mut values);
                if read.is_ok() {
                    observer.tensor(name, tensor.shape(), &values);
                }
                self.note(read);
            }
        }
    }

    /// Names what runs until the range is dropped, for a profiler. In a captured pass that is the capture, not its replays.
    pub fn range(&self, name: fmt::Arguments<'_>) -> nvtx::Range {
        if self.is_running() { nvtx::range(name) } else { nvtx::Range::none() }
    }

    /// False while recording.
    pub fn is_running(&self) -> bool {
        matches!(self.mode, Mode::Running { .. })
    }

    /// Refuses what cannot be part of a captured pass.
    pub(super) fn check_transfer(&self) -> Result<()> {
        match &self.mode {
            Mode::Running { ground: Ground::Device(DeviceGround { kept: Some(_), .. }), .. } => {
                let message = "a pass that is captured exchanges nothing with the host: use buffers".into();
                Err(Error::Internal { op: "graph", message })
            }
            _ => Ok(()),
        }
    }

    /// Keeps a failure for [`Exec::finish`].
    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }

    /// The death of tensor `id`.
    pub(super) fn bury(&self, id: u32) {
        self.advance(Event::Free { id });
        if let Mode::Running { ground: Ground::Device(ground), .. } = &self.mode {
            ground.living.borrow_mut().retain(|(living, _)| *living != id);
        }
    }

    fn advance(&self, event: Event) {
        let at = self.cursor.replace(self.cursor.get() + 1);
        match &self.mode {
            Mode::Recording(recording) => recording.borrow_mut().events.push(event),
            Mode::Running { plan, .. } => {
                if plan.events.get(at) != Some(&event) {
                    self.astray.set(true);
                }
            }
        }
    }
}
