//! What a launch did, counted: instructions by class, tensor operations, global-memory sectors, shared-memory bank conflicts.

use std::sync::Arc;

pub mod chip;
pub mod occupancy;
pub mod profile;
pub mod roofline;

/// Class of an instruction: which unit of a multiprocessor executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Tensor-core products.
    Tensor,
    /// f32 add, multiply, fused multiply-add, minimum, maximum.
    Float,
    /// f16 and bf16 arithmetic.
    Half,
    /// f64 arithmetic.
    Double,
    /// Integer and logical operations, comparisons, selections, moves.
    Integer,
    /// Conversions.
    Convert,
    /// ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh, division: the special-function units.
    Special,
    /// Loads and stores of global memory (and local memory), and asynchronous copies from it.
    Global,
    /// Loads and stores of shared memory, ldmatrix, stmatrix.
    Shared,
    /// Atomics and reductions.
    Atomic,
    /// Shuffles, votes, matches.
    Collective,
    /// Barriers, fences, waits.
    Sync,
    /// Branches, exits.
    Control,
    /// Parameters and constants.
    Constant,
}

/// Counts of one PTX instruction over a whole launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Times a warp issued it.
    pub warps: u64,
    /// Active lanes in all of these.
    pub lanes: u64,
    /// Bytes that active lanes asked for.
    pub bytes: u64,
    /// 32-byte sectors of global memory touched, each issue for itself.
    pub sectors: u64,
    /// Passes through shared memory that the issues took.
    pub wavefronts: u64,
    /// Passes that the same bytes would take without bank conflicts.
    pub ideal_wavefronts: u64,
}

impl SiteCounts {
    pub(crate) fn add(&mut self, other: &SiteCounts) {
        self.warps += other.warps;
        self.lanes += other.lanes;
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
}

/// What one instruction of a kernel is, for reports on its counts.
#[derive(Clone, Debug)]
pub struct Site {
    /// Which unit executes it.
    pub class: Class,
    /// Floating-point operations of one issue by a full warp (two for each multiply-add).
    pub flops: u64,
    /// Operand type of a tensor product, as PTX spells it: "f16", "bf16", "tf32", "e4m3"...; empty for others.
    pub tensor_type: &'static str,
    /// Line of the PTX text, from 1.
    pub ptx_line: u32,
    /// CUDA file and line, where the PTX has them.
    pub source: Option<(Arc<str>, u32)>,
    /// The instruction as written.
    pub text: String,
}

/// Counts of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// One for each PTX instruction of the entry (same order as its [`Site`]s).
    pub sites: Vec<SiteCounts>,
    /// Bytes of distinct 32-byte sectors of global memory read: what memory must deliver at least once.
    pub unique_read: u64,
    /// Bytes of distinct 32-byte sectors of global memory written.
    pub unique_written: u64,
    /// Blocks run.
    pub blocks: u64,
    /// Threads of a block.
    pub block_threads: u32,
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
}
