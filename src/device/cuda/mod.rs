//! An NVIDIA card, through the driver's interface (CUDA Driver API 13.0).
//!
//! One stream, so that work is done in order; memory from the driver's own allocator, since arenas and buffers are few and large.

mod module;
mod probe;
mod staging;

pub(super) use probe::{cards, driver};

use super::backend::{Backend, Capability, EventHandle, Geometry, GraphHandle, KernelHandle, MemoryInfo};
use super::kernels::Choice;
use super::lock;
use super::signature::Signature;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use module::{Function, Modules};
use staging::Staging;
use std::ffi::c_void;
use std::fmt;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::time::Duration;

/// Most parameters of a kernel.
const MOST_PARAMS: usize = 16;

/// A card that is in use.
pub(super) struct Cuda {
    index: usize,
    name: String,
    capability: Capability,
    multiprocessors: u32,
    shared_limit: u32,
    cache_bytes: usize,
    device: sys::CUdevice,
    /// The primary context, shared with other users of the driver in this process.
    context: sys::CUcontext,
    stream: sys::CUstream,
    staging: Mutex<Option<Staging>>,
    modules: Mutex<Modules>,
}

// SAFETY: handles of the driver may be used on any thread (CUDA Driver API, "Context Management"); each call binds the context to its
// thread first, and what is changed after `open` lies in mutexes.
unsafe impl Send for Cuda {}
// SAFETY: see above.
unsafe impl Sync for Cuda {}

/// What the driver calls an error, and its explanation.
fn driver_error(error: result::DriverError) -> impl fmt::Display {
    let text = |name: std::result::Result<&std::ffi::CStr, _>| name.map_or("?".into(), |n| n.to_string_lossy().into_owned());
    format!("{} ({})", text(error.error_name()), text(error.error_string()))
}

/// Says what failed.
trait Failure<T> {
    fn failed(self, cuda: &Cuda, action: &str) -> Result<T>;

    /// As [`Failure::failed`], where the queue is waited for: the error may be that of any work in it.
    fn failed_late(self, cuda: &Cuda, action: &str) -> Result<T>;
}

impl<T> Failure<T> for std::result::Result<T, result::DriverError> {
    fn failed(self, cuda: &Cuda, action: &str) -> Result<T> {
        self.map_err(|e| probe::failed(&format!("cuda:{}", cuda.index), action, e))
    }

    fn failed_late(self, cuda: &Cuda, action: &str) -> Result<T> {
        self.map_err(|e| Error::Device {
            device: format!("cuda:{}", cuda.index),
            action: action.into(),
            message: format!("{}; with CUDA_LAUNCH_BLOCKING=1 the error names the kernel", driver_error(e)),
        })
    }
}

impl Cuda {
    /// Opens card number `index`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no usable driver, no such card, or no kernel for it; [`Error::Device`] if it does not start.
    pub fn open(index: usize) -> Result<Cuda> {
        driver()?;
        let card = probe::card(index)?;
        if card.kernels.is_none() {
            let message = format!("{} is {}; the kernels are for sm_80 (Ampere) and later", card.name, card.capability);
            return Err(Error::usage(message, "use --device cpu"));
        }
        let fail = |e| probe::failed(&format!("cuda:{index}"), "start", e);
        let device = result::device::get(index as i32).map_err(fail)?;
        // SAFETY: `device` came from `device::get`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(fail)?;
        let opened = (|| {
            use sys::CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE as CACHE, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
            };
            // SAFETY: the context was just retained, the device is its own.
            let limits = unsafe {
                result::ctx::set_current(context)?;
                [result::device::get_attribute(device, SHARED)?, result::device::get_attribute(device, CACHE)?]
            };
            Ok((limits, result::stream::create(result::stream::StreamKind::NonBlocking)?))
        })();
        let ([shared, cache], stream) = opened.map_err(|e| {
            // SAFETY: retained above.
            _ = unsafe { result::primary_ctx::release(device) };
            fail(e)
        })?;
        Ok(Cuda {
            index,
            name: card.name,
            capability: card.capability,
            multiprocessors: card.multiprocessors,
            shared_limit: shared.max(0) as u32,
            cache_bytes: cache.max(0) as usize,
            device,
            context,
            stream,
            staging: Mutex::new(None),
            modules: Mutex::default(),
        })
    }

    /// Makes the context that of this thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: retained by `open`, released by `drop`.
        unsafe { result::ctx::set_current(self.context) }.failed(self, "be used on this thread")
    }

    /// Calls `work` with the staging memory, which is taken at the first use.
    fn with_staging(&self, work: impl FnOnce(&mut Staging) -> Result<()>) -> Result<()> {
        self.bind()?;
        let mut staging = lock(&self.staging);
        work(match &mut *staging {
            Some(staging) => staging,
            none => none.insert(Staging::new().failed(self, "lock memory of the host for copies")?),
        })
    }
}

impl Backend for Cuda {
    fn name(&self) -> String {
        format!("cuda:{}, {}", self.index, self.name)
    }

    fn capability(&self) -> Capability {
        self.capability
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.bind()?;
        let (free, total) = result::mem_get_info().failed(self, "tell its memory")?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the context is bound; callers treat the content as undefined.
        match unsafe { result::malloc_sync(bytes) } {
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let [asked, free] = [bytes as u64, self.memory().map_or(0, |memory| memory.free)].map(|b| b >> 20);
                let message = format!("cuda:{} does not give {asked} MiB of memory, {free} MiB are free", self.index);
                Err(Error::usage(message, "use a smaller --batch, --height or --width, or another card"))
            }
            other => other.failed(self, "give memory"),
        }
    }

    fn free(&self, address: u64) {
        // What fails here failed before, where it could be said.
        if self.bind().is_ok() {
            // SAFETY: from `alloc`, freed once by its owner; nothing that was queued uses it any more.
            unsafe {
                _ = result::stream::synchronize(self.stream);
                _ = result::free_sync(address);
            }
        }
    }

    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        self.with_staging(|staging| staging.upload(self, to, bytes, fill))
    }

    fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.with_staging(|staging| staging.download(self, from, bytes, take))
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: both places belong to the caller, who keeps them until the queue has passed.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }.failed(self, "copy")
    }

    fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: as in `copy`.
        unsafe { result::memset_d8_async(to, byte, bytes, self.stream) }.failed(self, "fill memory")
    }

    fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn shared_limit(&self) -> u32 {
        self.shared_limit
    }

    fn load(&self, choice: &Choice, signature: &Signature) -> Result<KernelHandle> {
        self.bind()?;
        if signature.params.len() > MOST_PARAMS {
            return Err(Error::launch(choice.entry.name, format!("{} parameters", signature.params.len())));
        }
        lock(&self.modules).load(choice, signature, self.shared_limit)
    }

    fn launch(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()> {
        self.bind()?;
        let Some(function) = lock(&self.modules).function(kernel) else {
            return Err(Error::Internal { op: "cuda", message: format!("{kernel:?} was not loaded") });
        };
        let fail = |e| Error::launch(function.entry, format!("{} ({geometry})", driver_error(e)));
        let Function { raw, offsets, .. } = &*function;
        let mut params = [null_mut::<c_void>(); MOST_PARAMS];
        for (param, &offset) in params.iter_mut().zip(offsets) {
            *param = arguments[offset..].as_ptr().cast_mut().cast();
        }
        let ([x, y, z], [bx, by, bz]) = (geometry.grid, geometry.block);
        // SAFETY: the function is loaded for good; the driver reads each parameter from where its pointer points, as many bytes as the
        // kernel declares (`Launch::pack` laid them out after the same declaration), and only during the call. What the kernel does
        // with the addresses in them stays in the card's memory.
        #[allow(clippy::disallowed_methods)] // called by `Gpu::launch` alone
        let launched = unsafe {
            let params = &mut params[..offsets.len()];
            result::launch_kernel(*raw, (x, y, z), (bx, by, bz), geometry.shared, self.stream, params)
        };
        launched.map_err(fail)
    }

    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as self.
        unsafe { result::stream::synchronize(self.stream) }.failed_late(self, "finish")
    }

    fn record(&self) -> Result<EventHandle> {
        self.bind()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).failed(self, "make an event")?;
        let handle = EventHandle(event as u64);
        // SAFETY: both live.
        unsafe { result::event::record(event, self.stream) }
            .failed(self, "record an event")
            .inspect_err(|_| self.drop_event(handle))?;
        Ok(handle)
    }

    fn elapsed(&self, from: EventHandle, to: EventHandle) -> Result<Duration> {
        self.bind()?;
        // SAFETY: handles are events that `record` made and `drop_event` did not take yet.
        let milliseconds = unsafe { result::event::elapsed(from.0 as sys::CUevent, to.0 as sys::CUevent) };
        Ok(Duration::from_secs_f64(f64::from(milliseconds.failed(self, "measure time")?.max(0.0)) / 1e3))
    }

    fn drop_event(&self, event: EventHandle) {
        if self.bind().is_ok() {
            // SAFETY: as in `elapsed`; dropped once.
            _ = unsafe { result::event::destroy(event.0 as sys::CUevent) };
        }
    }

    fn begin_capture(&self) -> Result<()> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as self.
        unsafe { result::stream::begin_capture(self.stream, mode) }.failed(self, "capture")
    }

    fn end_capture(&self) -> Result<GraphHandle> {
        self.bind()?;
        // SAFETY: the stream lives; the graph is the driver's, destroyed once it is instantiated, or not.
        let instance = unsafe {
            let graph = result::stream::end_capture(self.stream).failed(self, "capture")?;
            let instance = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            _ = result::graph::destroy(graph);
            instance.failed(self, "make a graph")?
        };
        Ok(GraphHandle(instance as u64))
    }

    fn replay(&self, graph: GraphHandle) -> Result<()> {
        self.bind()?;
        #[allow(clippy::disallowed_methods)] // called by `Graph::replay` alone
        // SAFETY: handles are graphs that `end_capture` made and `drop_graph` did not take yet; `Graph` keeps the memory they use.
        unsafe { result::graph::launch(graph.0 as sys::CUgraphExec, self.stream) }.failed(self, "replay a graph")
    }

    fn drop_graph(&self, graph: GraphHandle) {
        if self.bind().is_ok() {
            // SAFETY: as in `replay`; dropped once, and nothing that was queued uses it any more.
            unsafe {
                _ = result::stream::synchronize(self.stream);
                _ = result::graph::exec_destroy(graph.0 as sys::CUgraphExec);
            }
        }
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return; // the driver is gone, as at the end of the process
        }
        // SAFETY: everything was made by this card, and nobody else holds it any more: memory, events and graphs keep it alive.
        unsafe {
            _ = result::stream::synchronize(self.stream);
            if let Some(staging) = lock(&self.staging).take() {
                staging.free();
            }
            lock(&self.modules).unload();
            _ = result::stream::destroy(self.stream);
            _ = result::primary_ctx::release(self.device);
        }
    }
}
