//! Where operations run and where their memory lives.
//!
//! - [`Device`]: the processor. Today the CPU; every operation dispatches on it in one place.
//! - [`Buffer`]: memory that outlives a pass: weights, text keys and values, latents.
//! - [`Plan`], [`Arena`], [`Exec`], [`Tensor`]: one pass of a model. The same `forward` code is first *recorded* (shapes only), which
//!   gives the lifetimes of all its tensors, their packed addresses and the exact operation counts, and is then *run* any number
//!   of times inside one block of memory, without allocating.

#![allow(unsafe_code)]

mod arena;
mod buffer;
pub mod cpu;
mod exec;
pub mod kernels;

pub use arena::{Arena, Plan};
pub use buffer::Buffer;
pub use cpu::Cpu;
pub use exec::{Cost, Exec, Observer, Tensor};

use crate::{Error, Result};

/// A processor with its memory.
#[derive(Clone, Debug)]
pub enum Device {
    /// Native code on all cores: f32 storage, f32 or bf16 products.
    Cpu(Cpu),
}

impl Device {
    /// The CPU with `threads` workers; 0 means one for each core available to the process.
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::Cpu(Cpu::new(threads)?))
    }

    /// Refuses a precision that this processor has no instructions for.
    pub fn check_precision(&self, precision: Precision) -> Result<()> {
        let Device::Cpu(cpu) = self;
        if precision == Precision::Bf16 && cpu.isa() != cpu::Isa::Avx512Bf16 {
            return Err(Error::usage(
                format!("bf16 needs a CPU with AVX512-BF16; this one has {}", cpu.isa().name()),
                "use --dtype f32",
            ));
        }
        Ok(())
    }

    /// Runs `work`, which may start many passes, on a thread of the device: entering and leaving it for each pass would take a
    /// little memory now and then.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Device::Cpu(cpu) => cpu.install(work),
        }
    }

    /// One line for logs and manifests: "cpu, 2 threads, avx512".
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.describe(),
        }
    }
}

/// Number type of matrix products. Sums are f32 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 operands.
    F32,
    /// Operands rounded to bfloat16, needs AVX512-BF16 on a CPU.
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

/// The error of a broken invariant between a recorded plan and its run.
pub(crate) fn plan_mismatch(message: String) -> Error {
    Error::Internal { op: "memory plan", message }
}
