//! Where operations run and where their memory lives.
//!
//! - [`Device`]: the processor: the CPU, or a [`Gpu`], real or simulated. Every operation dispatches on it in one place.
//! - [`Buffer`]: memory that outlives a pass: weights, text keys and values, latents.
//! - [`Plan`], [`Arena`], [`Exec`], [`Tensor`]: one pass of a model. The same `forward` code is first *recorded* (shapes only), which
//!   gives the lifetimes of all its tensors, their packed addresses and the exact operation counts, and is then *run* any number
//!   of times inside one block of memory, without allocating. On a GPU it may also be captured, as a [`Graph`].
//! - [`Launch`], [`Params`]: one launch of a kernel, checked against the kernel's own parameters. [`Exec::enqueue`] performs it, and nothing
//!   outside this module does.

#![allow(unsafe_code)]

mod arena;
mod backend;
mod buffer;
mod capture;
mod choice;
mod convert;
pub mod cpu;
mod cuda;
mod exec;
mod gpu;
pub mod kernels;
mod launch;
pub mod nvtx;
pub(crate) mod predict;
mod signature;
mod sim;
mod survey;
mod tensor;
#[cfg(test)]
mod tests;

pub use arena::{Arena, Plan};
pub use backend::{Capability, MemoryInfo};
pub use buffer::Buffer;
pub use choice::DeviceChoice;
pub use cpu::Cpu;
pub use exec::{Cost, Exec, Observer};
pub use gpu::{Gpu, Graph};
pub use launch::{Entries, Launch, Params};
pub(crate) use launch::{MOST, entries, params};
pub use survey::{Card, CudaState, Host, KernelState, Survey, Use};
pub(crate) use tensor::LANES;
pub use tensor::{Statistics, Tensor};

use crate::tensor::DType;
use crate::{Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A processor with its memory.
#[derive(Clone, Debug)]
pub enum Device {
    /// Native code on all cores: f32 storage, f32 or bf16 products.
    Cpu(Cpu),
    /// Kernels: f16 or bf16 storage, f32 sums.
    Gpu(Gpu),
}

impl Device {
    /// The CPU with `threads` workers; 0 means one for each core available to the process.
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::Cpu(Cpu::new(threads)?))
    }

    /// Element type of activations: f32 on a CPU, f16 or bf16 on a GPU.
    pub fn storage(&self) -> DType {
        match self {
            Device::Cpu(_) => DType::F32,
            Device::Gpu(gpu) => gpu.storage(),
        }
    }

    /// Refuses a precision that this processor has no instructions for. A GPU takes any: it computes in its storage type.
    ///
    /// # Errors
    /// [`Error::Usage`] naming one that it has.
    pub fn check_precision(&self, precision: Precision) -> Result<()> {
        match self {
            Device::Cpu(cpu) if precision == Precision::Bf16 && cpu.isa() != cpu::Isa::Avx512Bf16 => Err(Error::usage(
                format!("bf16 needs a CPU with AVX512-BF16; this one has {}", cpu.isa().name()),
                "use --dtype f32",
            )),
            Device::Cpu(_) | Device::Gpu(_) => Ok(()),
        }
    }

    /// Type of the operands of matrix products, where layers were asked for `precision`.
    pub fn operands(&self, precision: Precision) -> DType {
        match (self, precision) {
            (Device::Cpu(_), Precision::F32) => DType::F32,
            (Device::Cpu(_), Precision::Bf16) => DType::BF16,
            (Device::Gpu(gpu), _) => gpu.storage(),
        }
    }

    /// Bytes of its memory that nobody uses: of the card, or of this machine. None where the system does not tell.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not tell.
    pub fn free_memory(&self) -> Result<Option<u64>> {
        match self {
            Device::Cpu(_) => Ok(survey::host_memory().map(|memory| memory.free)),
            Device::Gpu(gpu) => Ok(Some(gpu.memory()?.free)),
        }
    }

    /// True if nothing is executed: layers whose weights are only declared can be run then.
    pub(crate) fn is_predicted(&self) -> bool {
        matches!(self, Device::Gpu(gpu) if gpu.is_predicted())
    }

    /// The workers of this machine that compute on the CPU, or do for a GPU what stays on the host.
    pub fn host(&self) -> &Cpu {
        match self {
            Device::Cpu(cpu) => cpu,
            Device::Gpu(gpu) => gpu.host(),
        }
    }

    /// Runs `work`, which may start many passes, on a thread of the device: entering and leaving it for each pass would take a
    /// little memory now and then.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.host().install(work)
    }

    /// One line for logs and manifests: "cpu, 2 threads, avx512".
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.describe(),
            Device::Gpu(gpu) => gpu.describe(),
        }
    }
}

/// Number type of the operands of matrix products on a CPU; on a GPU they have its storage type, whatever this says. Sums are f32
/// everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 operands.
    F32,
    /// Operands rounded to bfloat16, needs AVX512-BF16.
    Bf16,
}

impl Precision {
    /// Lower-case name, as used in flags and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// The content of a mutex, also after a panic: what is locked here is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of a broken invariant between a recorded plan and its run.
pub(crate) fn plan_mismatch(message: String) -> Error {
    Error::Internal { op: "memory plan", message }
}
