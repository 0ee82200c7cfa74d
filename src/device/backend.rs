//! What a kind of GPU does: memory, copies, launches, events, graphs.
//!
//! [`super::cuda`] is the driver, [`super::sim`] executes the same PTX on the CPU, [`super::predict`] only remembers what it is asked for. Work is put into one queue and
//! done in order; only [`Backend::download`] and [`Backend::synchronize`] wait for it. Addresses and handles are numbers that the
//! backend gave out; [`super::gpu`] alone keeps them, frees each once, and passes them back to the backend that they came from. It also
//! keeps captures apart from other work: between [`Backend::begin_capture`] and [`Backend::end_capture`], only launches, copies, fills
//! and what they are made of arrive, from the thread that captures.

use super::kernels::Choice;
use super::signature::Signature;
use crate::Result;
use std::fmt;
use std::time::Duration;

/// What a card can execute: 9.0 is Hopper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// Generation.
    pub major: u32,
    /// Variant in it.
    pub minor: u32,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryInfo {
    /// Not taken by anybody.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Blocks, threads of a block, and bytes of dynamic shared memory of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], [bx, by, bz]) = (self.grid, self.block);
        write!(f, "grid {x} x {y} x {z}, block {bx} x {by} x {bz}, {} bytes of dynamic shared memory", self.shared)
    }
}

/// A kernel that [`Backend::load`] loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelHandle(pub(super) u64);

/// A point in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventHandle(pub(super) u64);

/// Captured work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GraphHandle(pub(super) u64);

/// A kind of GPU. See the module for what callers keep to.
pub(super) trait Backend: Send + Sync {
    /// "cuda:0, NVIDIA H100 80GB HBM3".
    fn name(&self) -> String;

    /// What it can execute.
    fn capability(&self) -> Capability;

    /// What is free and what there is.
    fn memory(&self) -> Result<MemoryInfo>;

    /// `bytes` > 0 of undefined content, at a multiple of 256.
    fn alloc(&self, bytes: usize) -> Result<u64>;

    /// Waits for the queue where it may still use the memory.
    fn free(&self, address: u64);

    /// The content is undefined from here on: a hint, which only a backend that looks for such reads takes.
    fn undefine(&self, _address: u64, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Writes `bytes` at `to`. `fill` makes the content piece by piece, in order: it gets the offset of each piece, a multiple of 256, and
    /// its memory, aligned to 64.
    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()>;

    /// Reads `bytes` at `from`, after all work before. `take` gets the pieces, as in [`Backend::upload`].
    fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// Copies between two places that do not overlap.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;

    /// Sets every byte.
    fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()>;

    /// True if work is executed by this machine's processor, so that its times say nothing about a GPU. Every tensor is to have an
    /// allocation of its own then, so that accesses outside it and reads of what nobody wrote are found.
    fn is_simulated(&self) -> bool {
        false
    }

    /// True if nothing is executed at all: see [`super::predict`]. Weights that are only declared take their place in memory then.
    fn is_predicted(&self) -> bool {
        false
    }

    /// Bytes of the cache that all multiprocessors share, which measurements must not profit from.
    fn cache_bytes(&self) -> usize;

    /// Streaming multiprocessors.
    fn multiprocessors(&self) -> u32;

    /// Bytes of shared memory that a block can have.
    fn shared_limit(&self) -> u32;

    /// Loads a kernel that was chosen for this capability.
    fn load(&self, choice: &Choice, signature: &Signature) -> Result<KernelHandle>;

    /// Puts a kernel into the queue. `arguments` is its parameter block, laid out as its signature says.
    fn launch(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()>;

    /// Waits for the queue. Errors of work that ran meanwhile come out here.
    fn synchronize(&self) -> Result<()>;

    /// Marks this point of the queue.
    fn record(&self) -> Result<EventHandle>;

    /// Time between two points that the queue has passed.
    fn elapsed(&self, from: EventHandle, to: EventHandle) -> Result<Duration>;

    /// Forgets a point.
    fn drop_event(&self, event: EventHandle);

    /// Launches, copies and fills are kept, and not done, until [`Backend::end_capture`].
    fn begin_capture(&self) -> Result<()>;

    /// What was kept.
    fn end_capture(&self) -> Result<GraphHandle>;

    /// Puts captured work into the queue.
    fn replay(&self, graph: GraphHandle) -> Result<()>;

    /// Forgets captured work.
    fn drop_graph(&self, graph: GraphHandle);
}
