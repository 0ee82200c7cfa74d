//! The CPU: a pool of threads and the instruction set found at run time.

pub(crate) mod blocks;
pub mod gemm;
pub mod math;
pub(crate) mod parallel;
pub mod peak;
pub mod vector;

use crate::{Error, Result};
use std::sync::Arc;

/// A fixed set of worker threads and the vector instructions they use.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Arc<rayon::ThreadPool>,
    isa: Isa,
}

/// Vector instruction sets that have code of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable Rust, vectorised by the compiler for the baseline of the target.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with bfloat16 dot products.
    Avx512Bf16,
}

impl Isa {
    /// The best instruction set of this machine.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                return if has!("avx512bf16") { Isa::Avx512Bf16 } else { Isa::Avx512 };
            }
            if has!("avx2") && has!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Lower-case name, as used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }
}

impl Cpu {
    /// A pool of `threads` workers; 0 means one for each core available to the process.
    pub fn new(threads: usize) -> Result<Cpu> {
        Cpu::with_isa(threads, Isa::detect())
    }

    /// As [`Cpu::new`] with an instruction set no better than the machine's: to test the others.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Cpu> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("syntic-{i}"))
            // Taken now, so that no worker allocates in a later pass because it had no part in the first one.
            .start_handler(|_| parallel::with_scratch(0, gemm::SCRATCH, |_| ()))
            .build()
            .map_err(|e| Error::usage(format!("cannot start {threads} threads: {e}"), "use a smaller --threads"))?;
        Ok(Cpu { pool: Arc::new(pool), isa: isa.min(Isa::detect()) })
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// "cpu, 2 threads, avx512".
    pub fn describe(&self) -> String {
        format!("cpu, {} threads, {}", self.threads(), self.isa.name())
    }

    /// Runs `work` on a worker of the pool; parallel loops inside it use all workers.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}
