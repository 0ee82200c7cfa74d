//! A GPU: a backend, the type in which it stores activations, and the kernels loaded so far.

use super::backend::{Backend, EventHandle, GraphHandle, KernelHandle, MemoryInfo};
use super::capture::{CaptureLock, Garbage, Turn};
use super::convert::{BLOCK, decode, encode};
use super::cpu::Cpu;
use super::kernels;
use super::launch::{Arguments, Launch};
use super::signature::Signature;
use super::{cuda, lock, predict, sim};
use crate::tensor::{DType, Keep, Shape};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A GPU, real or simulated, with its memory. Clones are the same one.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Box<dyn Backend>,
    captures: CaptureLock,
    #[cfg(test)]
    allocations: std::sync::atomic::AtomicUsize,
    storage: DType,
    kernels: Mutex<HashMap<&'static str, Arc<Kernel>>>,
    /// For what stays on the host.
    host: Cpu,
}

/// A loaded kernel.
struct Kernel {
    entry: &'static kernels::Entry,
    signature: Signature,
    handle: KernelHandle,
}

impl Gpu {
    /// Card number `index`, as the driver counts. Activations are stored as `storage`; `threads` workers do what stays on the host.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no driver of at least CUDA 13.0, no such card, or no kernel in this program.
    pub fn cuda(index: usize, storage: DType, threads: usize) -> Result<Gpu> {
        check_kernels(kernels::missing())?;
        Gpu::new(Box::new(cuda::Cuda::open(index)?), storage, Cpu::new(threads)?)
    }

    /// The simulator: the same kernels, executed by this machine's processor, slowly and suspiciously.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no kernel in this program.
    pub fn sim(storage: DType, threads: usize) -> Result<Gpu> {
        check_kernels(kernels::missing())?;
        let host = Cpu::new(threads)?;
        Gpu::new(Box::new(sim::Sim::new(host.threads())), storage, host)
    }

    /// No GPU: one that remembers in `log` what a GPU like `card` would be asked to do.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no kernel in this program.
    pub(crate) fn predicted(card: predict::Card, storage: DType, threads: usize, log: predict::Log) -> Result<Gpu> {
        check_kernels(kernels::missing())?;
        Gpu::new(Box::new(predict::Predicted::new(card, log)), storage, Cpu::new(threads)?)
    }

    pub(super) fn new(backend: Box<dyn Backend>, storage: DType, host: Cpu) -> Result<Gpu> {
        if !matches!(storage, DType::F16 | DType::BF16) {
            return Err(Error::Internal { op: "device", message: format!("a GPU stores f16 or bf16, not {storage}") });
        }
        let shared = Shared {
            backend,
            captures: CaptureLock::default(),
            #[cfg(test)]
            allocations: Default::default(),
            storage,
            kernels: Mutex::default(),
            host,
        };
        Ok(Gpu { shared: Arc::new(shared) })
    }

    /// Element type of activations and weights.
    pub fn storage(&self) -> DType {
        self.shared.storage
    }

    /// Streaming multiprocessors, for which a launch should have blocks enough. They may decide how work is cut, never what comes out.
    pub fn multiprocessors(&self) -> u32 {
        self.backend().multiprocessors()
    }

    /// Bytes of the cache that all multiprocessors share.
    pub fn cache_bytes(&self) -> usize {
        self.backend().cache_bytes()
    }

    /// True if this machine's processor executes the kernels: their times say nothing about a GPU.
    pub fn is_simulated(&self) -> bool {
        self.backend().is_simulated()
    }

    /// True if nothing is executed: only what would be is remembered.
    pub(crate) fn is_predicted(&self) -> bool {
        self.backend().is_predicted()
    }

    /// The processor that works for this GPU.
    pub fn host(&self) -> &Cpu {
        &self.shared.host
    }

    /// "cuda:0, NVIDIA H100 80GB HBM3, sm_90".
    pub fn describe(&self) -> String {
        format!("{}, {}", self.backend().name(), self.backend().capability())
    }

    /// Memory that is free, and all of it.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not tell.
    pub fn memory(&self) -> Result<MemoryInfo> {
        self.backend().memory()
    }

    /// Waits until everything asked for so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] if a kernel failed meanwhile, or this thread captures.
    pub fn synchronize(&self) -> Result<()> {
        let _turn = self.outside_capture("finish")?;
        self.backend().synchronize()
    }

    fn backend(&self) -> &dyn Backend {
        &*self.shared.backend
    }

    /// Waits until no other thread captures. What is put into the queue before the turn is dropped is captured, if this one does.
    fn turn(&self) -> Turn<'_> {
        self.shared.captures.enter()
    }

    /// As [`Gpu::turn`], for what cannot be captured.
    fn outside_capture(&self, action: &str) -> Result<Turn<'_>> {
        let turn = self.turn();
        match turn.captures() {
            true => Err(self.refuse(action, "this thread captures a pass")),
            false => Ok(turn),
        }
    }

    fn refuse(&self, action: &str, message: &str) -> Error {
        Error::Device { device: self.backend().name(), action: action.into(), message: message.into() }
    }

    pub(super) fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Memory of undefined content.
    pub(super) fn alloc(&self, bytes: usize) -> Result<DeviceMemory> {
        let turn = self.turn();
        if turn.captures() && !self.is_simulated() {
            return Err(self.refuse("give memory", "this thread captures a pass"));
        }
        #[cfg(test)]
        self.shared.allocations.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let address = if bytes == 0 { 0 } else { self.backend().alloc(bytes)? };
        drop(turn);
        Ok(DeviceMemory { gpu: self.clone(), address, bytes })
    }

    /// How often memory was taken.
    #[cfg(test)]
    pub(crate) fn allocations(&self) -> usize {
        self.shared.allocations.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Gives back what nothing uses any more: after the capture, if this thread captures.
    fn discard(&self, garbage: Garbage) {
        let turn = self.turn();
        if turn.captures() {
            self.shared.captures.defer(garbage);
        } else {
            self.discard_now(garbage);
        }
    }

    fn discard_now(&self, garbage: Garbage) {
        match garbage {
            Garbage::Memory(address) => self.backend().free(address),
            Garbage::Graph(graph) => self.backend().drop_graph(graph),
        }
    }

    /// [`Backend::upload`], which no capture may contain.
    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        let _turn = self.outside_capture("take values from the host")?;
        self.backend().upload(to, bytes, fill)
    }

    /// [`Backend::copy`]
    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        let _turn = self.turn();
        self.backend().copy(to, from, bytes)
    }

    /// [`Backend::fill`]
    pub(super) fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        let _turn = self.turn();
        self.backend().fill(to, byte, bytes)
    }

    /// [`Backend::undefine`]
    pub(super) fn undefine(&self, address: u64, bytes: usize) -> Result<()> {
        let _turn = self.turn();
        self.backend().undefine(address, bytes)
    }

    /// Writes values at `to`, converted to `dtype`.
    pub(super) fn write_f32(&self, to: u64, dtype: DType, values: &[f32]) -> Result<()> {
        let size = dtype.size();
        self.upload(to, values.len() * size, &mut |offset, piece| {
            encode(dtype, &values[offset / size..][..piece.len() / size], piece);
        })
    }

    /// Writes a buffer of `shape` at `to`: the bytes that are kept, or else values converted to `dtype`, which are kept then. `make` is asked
    /// for them block by block: it fills what it gets from an element on.
    pub(super) fn write_with(
        &self,
        to: u64,
        dtype: DType,
        shape: Shape,
        keep: Option<Keep<'_>>,
        mut make: impl FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        if let Some(bytes) = keep.as_ref().and_then(|keep| keep.find(dtype, shape)) {
            return self.upload(to, bytes.len(), &mut |offset, piece| piece.copy_from_slice(&bytes[offset..][..piece.len()]));
        }
        let store = keep.map(|keep| keep.begin(dtype, shape));
        let size = dtype.size();
        let mut block = [0.0; BLOCK];
        self.upload(to, shape.len() * size, &mut |offset, piece| {
            for (i, part) in piece.chunks_mut(BLOCK * size).enumerate() {
                let block = &mut block[..part.len() / size];
                make(offset / size + i * BLOCK, block);
                encode(dtype, block, part);
            }
            if let Some(store) = store {
                store.append(piece);
            }
        })
    }

    /// Writes integers at `to`.
    pub(super) fn write_u32(&self, to: u64, values: &[u32]) -> Result<()> {
        let bytes = bytemuck::cast_slice(values);
        self.upload(to, bytes.len(), &mut |offset, piece| piece.copy_from_slice(&bytes[offset..][..piece.len()]))
    }

    /// Reads values of `dtype` at `from`.
    pub(super) fn read_f32(&self, from: u64, dtype: DType, out: &mut [f32]) -> Result<()> {
        let _turn = self.outside_capture("give values to the host")?;
        let size = dtype.size();
        self.backend().download(from, out.len() * size, &mut |offset, piece| {
            decode(dtype, piece, &mut out[offset / size..][..piece.len() / size]);
        })
    }

    /// Reads integers or bytes at `from`.
    pub(super) fn read_pod<T: bytemuck::Pod>(&self, from: u64, out: &mut [T]) -> Result<()> {
        let _turn = self.outside_capture("give values to the host")?;
        let out: &mut [u8] = bytemuck::cast_slice_mut(out);
        self.backend().download(from, out.len(), &mut |offset, piece| out[offset..][..piece.len()].copy_from_slice(piece))
    }

    /// Checks a launch without performing it, and loads its kernel.
    pub(super) fn check(&self, launch: &Launch<'_>) -> Result<()> {
        self.prepare(launch, &self.turn()).map(drop)
    }

    /// The one place where kernels are launched.
    pub(super) fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let turn = self.turn();
        let (kernel, arguments) = self.prepare(launch, &turn)?;
        self.backend().launch(kernel.handle, launch.geometry(), arguments.bytes())
    }

    fn prepare(&self, launch: &Launch<'_>, turn: &Turn<'_>) -> Result<(Arc<Kernel>, Arguments)> {
        let kernel = self.kernel(launch.entry(), turn)?;
        launch.check_geometry(kernel.entry, self.backend().shared_limit())?;
        let arguments = launch.pack(&kernel.signature)?;
        Ok((kernel, arguments))
    }

    /// A kernel, which is loaded at its first use. The turn comes first: nobody waits for one while the table is locked.
    fn kernel(&self, entry: &'static str, turn: &Turn<'_>) -> Result<Arc<Kernel>> {
        let mut kernels = lock(&self.shared.kernels);
        if let Some(kernel) = kernels.get(entry) {
            return Ok(kernel.clone());
        }
        if turn.captures() {
            return Err(Error::launch(entry, "it cannot be loaded during a capture: record the plan of the pass on this GPU"));
        }
        let capability = self.backend().capability();
        let Some(choice) = kernels::choose(entry, (capability.major, capability.minor)) else {
            return Err(Error::launch(entry, format!("this program has no such kernel for {capability}")));
        };
        let signature = Signature::parse(choice.file.ptx, entry)?;
        let handle = self.backend().load(&choice, &signature)?;
        let kernel = Arc::new(Kernel { entry: choice.entry, signature, handle });
        kernels.insert(entry, kernel.clone());
        Ok(kernel)
    }

    /// Marks this point of the queue.
    pub(super) fn record(&self) -> Result<Event> {
        let _turn = self.outside_capture("record an event")?;
        Ok(Event { handle: self.backend().record()?, gpu: self.clone() })
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.describe(), self.storage())
    }
}

/// Refuses a program whose kernels are `missing`, for this reason.
pub(super) fn check_kernels(missing: Option<&str>) -> Result<()> {
    missing.map_or(Ok(()), |reason| Err(Error::usage(reason, "until then, use --device cpu")))
}

/// Memory of a GPU that is freed with its owner.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    gpu: Gpu,
    address: u64,
    bytes: usize,
}

impl DeviceMemory {
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.gpu.discard(Garbage::Memory(self.address));
        }
    }
}

/// A point in the queue of a GPU.
#[derive(Debug)]
pub(super) struct Event {
    gpu: Gpu,
    handle: EventHandle,
}

impl Event {
    /// Time that passed on the GPU between `start` and this.
    pub fn since(&self, start: &Event) -> Result<Duration> {
        self.gpu.backend().elapsed(start.handle, self.handle)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.gpu.backend().drop_event(self.handle);
    }
}

/// A captured pass: replaying it repeats its kernels and copies on the same memory, with one call to the driver.
///
/// It holds on to the memory that it works on: the arena it was captured in, and the buffers that the pass looked at.
#[derive(Debug)]
pub struct Graph {
    gpu: Gpu,
    handle: GraphHandle,
    _memory: Vec<Arc<DeviceMemory>>,
}

impl Graph {
    /// Captures the launches, copies and fills of `work`, which are not done. What `work` returns is kept alive. Other threads wait with
    /// theirs meanwhile; what `work` frees is freed afterwards.
    pub(super) fn capture(gpu: &Gpu, work: impl FnOnce() -> Result<Vec<Arc<DeviceMemory>>>) -> Result<Graph> {
        let capture = Capture::begin(gpu)?;
        let memory = work()?;
        Ok(Graph { gpu: gpu.clone(), handle: capture.end()?, _memory: memory })
    }

    /// Puts the pass into the queue, and does not wait for it.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver refuses; [`Error::Launch`] for faults that the simulator finds.
    pub fn replay(&self) -> Result<()> {
        let _turn = self.gpu.outside_capture("replay a graph")?;
        self.gpu.backend().replay(self.handle)
    }

    /// Replays the pass and waits for it: the time that it took on the GPU, without that of the call.
    ///
    /// # Errors
    /// As [`Graph::replay`], and [`Gpu::synchronize`].
    pub fn time(&self) -> Result<Duration> {
        let start = self.gpu.record()?;
        self.replay()?;
        let end = self.gpu.record()?;
        self.gpu.synchronize()?;
        end.since(&start)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.gpu.discard(Garbage::Graph(self.handle));
    }
}

/// A capture that goes on. Dropping it ends it, so that neither an error nor a panic leaves the queue in it.
struct Capture<'g> {
    gpu: &'g Gpu,
    /// The driver captures.
    begun: bool,
}

impl<'g> Capture<'g> {
    fn begin(gpu: &'g Gpu) -> Result<Capture<'g>> {
        if !gpu.shared.captures.begin() {
            return Err(gpu.refuse("capture", "this thread captures a pass already"));
        }
        let mut capture = Capture { gpu, begun: false };
        gpu.backend().begin_capture()?;
        capture.begun = true;
        Ok(capture)
    }

    fn end(mut self) -> Result<GraphHandle> {
        self.begun = false;
        self.gpu.backend().end_capture()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let (gpu, captures) = (self.gpu, &self.gpu.shared.captures);
        if self.begun
            && let Ok(graph) = gpu.backend().end_capture()
        {
            gpu.backend().drop_graph(graph);
        }
        captures.take_garbage().into_iter().for_each(|garbage| gpu.discard_now(garbage));
        captures.end();
    }
}
