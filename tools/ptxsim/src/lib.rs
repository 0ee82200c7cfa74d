//! Runs CUDA kernels from their PTX on a CPU, and is stricter than hardware.
//!
//! A [`Module`] is parsed PTX; a [`Kernel`] is one of its entries, decoded; [`launch`] runs it on a [`Memory`] and returns a
//! [`Report`]: what the kernel did wrong ([`Fault`]) and what it did at all ([`count::Counts`]).
//!
//! ```
//! let source = r"
//! .version 9.0
//! .target sm_80
//! .address_size 64
//! .visible .entry double(.param .u64 data) {
//!     .reg .b32 %r<4>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [data];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     ld.global.u32 %r2, [%rd3];
//!     add.u32 %r3, %r2, %r2;
//!     st.global.u32 [%rd3], %r3;
//!     ret;
//! }";
//! let kernel = ptxsim::Module::parse(source, "double.ptx")?.kernel("double")?;
//! let memory = ptxsim::Memory::new();
//! let data = memory.alloc(4 * 32);
//! memory.write(data, &[1; 4 * 32])?;
//! let launch = ptxsim::Launch { grid: [1, 1, 1], block: [32, 1, 1], shared: 0 };
//! let report = ptxsim::launch(&kernel, &memory, &launch, &data.to_le_bytes(), &ptxsim::Options::default())?;
//! assert!(report.faults.is_empty());
//! let mut first = [0; 4];
//! memory.read(data, &mut first)?;
//! assert_eq!(first, [2; 4]);
//! # Ok::<(), ptxsim::Error>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod count;
mod error;
mod exec;
mod fault;
mod ir;
mod memory;
pub mod number;
mod syntax;

pub use error::{Error, Result};
pub use fault::{Fault, FaultKind, Place};
pub use ir::Parameter;
pub use memory::Memory;

use count::{Counts, Site};
use std::sync::Arc;

/// The code in the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// A parsed PTX module.
#[derive(Clone, Debug)]
pub struct Module {
    parsed: Arc<syntax::Module>,
    name: String,
    source: Arc<str>,
}

impl Module {
    /// Parses PTX text. `name` stands in errors.
    ///
    /// # Errors
    /// [`Error::Ptx`] with the line that is broken.
    pub fn parse(source: &str, name: &str) -> Result<Module> {
        let parsed = syntax::parse(source).map_err(|complaint| complaint.in_module(name, source))?;
        Ok(Module { parsed: Arc::new(parsed), name: name.into(), source: source.into() })
    }

    /// Names of the entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.parsed.functions.iter().filter(|f| f.entry && f.body.is_some()).map(|f| f.name.as_str())
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// [`Error::Ptx`] with the line that holds an unknown instruction or modifier; [`Error::Launch`] if there is no such entry.
    pub fn kernel(&self, entry: &str) -> Result<Kernel> {
        let Some(function) = self.parsed.functions.iter().find(|f| f.entry && f.body.is_some() && f.name == entry) else {
            let all: Vec<&str> = self.entries().collect();
            let all = if all.is_empty() { "none".into() } else { all.join(", ") };
            return Err(Error::launch(entry, format!("no such entry in {}; it has {all}", self.name)));
        };
        let program = ir::decode(&self.parsed, function, &self.source);
        let program = program.map_err(|complaint| complaint.in_module(&self.name, &self.source))?;
        Ok(Kernel(Arc::new(program)))
    }
}

/// A decoded entry, ready to be launched any number of times.
#[derive(Clone)]
pub struct Kernel(Arc<ir::Program>);

impl Kernel {
    /// Name of the entry.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Architecture that the PTX is for: "sm_80".
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// The parameters in order: where each lies in the parameter block.
    pub fn parameters(&self) -> &[Parameter] {
        &self.0.parameters
    }

    /// The instructions that [`Counts::sites`] counts.
    pub fn sites(&self) -> &[Site] {
        &self.0.sites
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({}, {} instructions)", self.name(), self.sites().len())
    }
}

/// Extents of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block in bytes.
    pub shared: u32,
}

/// How to run a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of the order in which warps run.
    pub seed: u64,
    /// Cores to use; 0 for all.
    pub threads: usize,
    /// Whether to count memory traffic and bank conflicts. Instructions are counted always.
    pub counters: bool,
    /// Faults to keep.
    pub max_faults: usize,
    /// Whether to look for races and for unwaited copies, which takes about half of the time.
    pub races: bool,
    /// The blocks to run, by their numbers in the grid (x first, then y, then z); all if none. The others do not exist: nothing that they
    /// would write is there, and the counts are those of the blocks that ran.
    pub blocks: Option<Vec<u32>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 0, threads: 0, counters: true, max_faults: 100, races: true, blocks: None }
    }
}

/// What came of a launch.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the kernel did wrong, one for each kind and pair of source lines.
    pub faults: Vec<Fault>,
    /// Faults beyond [`Options::max_faults`].
    pub faults_dropped: u64,
    /// What it did.
    pub counts: Counts,
}

/// Runs a kernel. `parameters` is its parameter block, packed as [`Kernel::parameters`] says.
///
/// # Errors
/// [`Error::Launch`] if the extents or the parameter block do not fit the kernel. What the kernel does wrong is in the report.
pub fn launch(kernel: &Kernel, memory: &Memory, launch: &Launch, parameters: &[u8], options: &Options) -> Result<Report> {
    let geometry = exec::Geometry { grid: launch.grid, block: launch.block, shared: launch.shared.into() };
    exec::run(&kernel.0, memory, geometry, parameters, options)
}
