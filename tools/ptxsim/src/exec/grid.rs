//! A launch: whether it can be, what its blocks start with and what they share.

use super::faults::Faults;
use super::queue::Queue;
use crate::count::Counts;
use crate::error::{Error, Result};
use crate::fault::{Fault, Place};
use crate::ir::{LANES, Lanes, Preset, Program, Reg};
use crate::memory::{Memory, View};
use crate::{Options, Report};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared memory that a block can have (CUDA programming guide, compute capability 9.0).
const MAX_SHARED: u64 = 227 << 10;

/// Bytes of module variables that are taken: page tables of more would fill this machine's memory.
const MAX_VARIABLES: u64 = 32 << 30;
/// Extents that a grid and a block can have (CUDA programming guide, technical specifications).
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
const MAX_THREADS: u64 = 1024;

/// Extents of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory, in bytes.
    pub shared: u64,
}

impl Geometry {
    pub(crate) fn blocks(&self) -> u64 {
        self.grid.iter().fold(1, |all, &n| all.saturating_mul(n.into()))
    }

    pub(crate) fn threads(&self) -> u64 {
        self.block.iter().fold(1, |all, &n| all.saturating_mul(n.into()))
    }

    /// Where the block of a number is in the grid.
    pub(crate) fn ctaid(&self, block: u32) -> [u32; 3] {
        coordinates(block, self.grid)
    }

    /// Where the thread of a number is in its block.
    pub(crate) fn tid(&self, thread: u32) -> [u32; 3] {
        coordinates(thread, self.block)
    }
}

fn coordinates(index: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [index % x, index / x % y, index / x / y]
}

/// What the blocks of a launch share.
pub(crate) struct Grid<'a> {
    pub program: &'a Program,
    pub geometry: Geometry,
    pub parameters: &'a [u8],
    pub options: &'a Options,
    pub view: View,
    pub launch: u64,
    /// Registers as every warp starts with them.
    pub registers: Vec<Lanes>,
    /// Registers that differ among warps.
    pub varying: Vec<(Reg, Preset)>,
    faults: Faults,
    progress: AtomicU64,
    stop: AtomicBool,
    broken: AtomicBool,
}

impl Grid<'_> {
    pub(crate) fn place(&self, site: u32, block: u32, warp: u32, lane: u32) -> Place {
        let spots = &self.program.spots;
        let spot = spots.get(site as usize).or(spots.last()).cloned().unwrap_or_default();
        spot.place(self.geometry.ctaid(block), warp, lane)
    }

    /// How many blocks run.
    pub(crate) fn blocks(&self) -> u64 {
        self.options.blocks.as_ref().map_or(self.geometry.blocks(), |chosen| chosen.len() as u64)
    }

    /// The number in the grid of the block that begins as number `turn`.
    pub(crate) fn block(&self, turn: u64) -> u32 {
        self.options.blocks.as_ref().map_or(turn as u32, |chosen| chosen[turn as usize])
    }

    pub(crate) fn report(&self, mut fault: Fault) {
        fault.kernel.clone_from(&self.program.name);
        self.faults.add(fault, self.options.max_faults);
    }

    /// Global memory changed.
    pub(crate) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// A block has ended by a fault of its own.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// No block can go on.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs `program` to its end.
pub(crate) fn run(
    program: &Program,
    memory: &Memory,
    geometry: Geometry,
    parameters: &[u8],
    options: &Options,
) -> Result<Report> {
    check(program, &geometry, parameters)?;
    check_chosen(program, &geometry, options)?;
    let addresses = module_variables(program, memory)?;
    let (registers, varying) = presets(program, &geometry, &addresses);
    let grid = Grid {
        program,
        geometry,
        parameters,
        options,
        view: memory.view(),
        launch: memory.next_launch(),
        registers,
        varying,
        faults: Faults::default(),
        progress: AtomicU64::new(1),
        stop: AtomicBool::new(false),
        broken: AtomicBool::new(false),
    };
    let queue = Queue::new(&grid);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let threads = threads.min(grid.blocks().try_into().unwrap_or(usize::MAX)).max(1);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| queue.work());
        }
        queue.work();
    });
    let (unique_read, unique_written) = if options.counters { grid.view.sectors(grid.launch) } else { (0, 0) };
    for address in addresses {
        memory.free(address);
    }
    let (sites, blocks) = (queue.into_counts(), grid.blocks());
    let (faults, faults_dropped) = grid.faults.into_parts();
    let shared_bytes = (program.static_shared_bytes + geometry.shared) as u32;
    let block_threads = geometry.threads() as u32;
    let counts = Counts { sites, unique_read, unique_written, blocks, block_threads, shared_bytes };
    Ok(Report { faults, faults_dropped, counts })
}

/// Checks that a launch is one that a device could take.
fn check(program: &Program, geometry: &Geometry, parameters: &[u8]) -> Result<()> {
    let fail = |message: String| Err(Error::launch(&program.name, message));
    let (threads, blocks) = (geometry.threads(), geometry.blocks());
    for (what, extents, most) in [("grid", geometry.grid, MAX_GRID), ("block", geometry.block, MAX_BLOCK)] {
        for ((axis, extent), most) in ["x", "y", "z"].into_iter().zip(extents).zip(most) {
            if !(1..=most).contains(&extent) {
                return fail(format!("the {what} is {extent} along {axis}: it can be 1 to {most}"));
            }
        }
    }
    if let Some(required) = program.required_block.filter(|required| *required != geometry.block.map(u64::from)) {
        return fail(format!("blocks of {:?} threads; it takes {required:?} and no others (`.reqntid`)", geometry.block));
    }
    let most = program.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS);
    if threads > most {
        return fail(format!("{threads} threads a block; it takes {most} at most"));
    }
    if blocks > u64::from(u32::MAX) {
        return fail(format!("{blocks} blocks are more than can be told apart"));
    }
    let shared = program.static_shared_bytes + geometry.shared;
    if shared > MAX_SHARED {
        return fail(format!("{shared} bytes of shared memory a block; no device has more than {MAX_SHARED}"));
    }
    if parameters.len() as u64 != program.parameter_bytes() {
        return fail(format!("{} bytes of parameters; it takes {}", parameters.len(), program.parameter_bytes()));
    }
    Ok(())
}

/// Checks that the chosen blocks are in the grid, each once.
fn check_chosen(program: &Program, geometry: &Geometry, options: &Options) -> Result<()> {
    let Some(chosen) = &options.blocks else { return Ok(()) };
    let mut sorted = chosen.clone();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    let outside = sorted.last().copied().filter(|&block| u64::from(block) >= geometry.blocks());
    match (outside, twice) {
        (Some(block), _) => {
            Err(Error::launch(&program.name, format!("block {block} was chosen of a grid of {}", geometry.blocks())))
        }
        (None, Some(block)) => Err(Error::launch(&program.name, format!("block {block} was chosen twice"))),
        (None, None) => Ok(()),
    }
}

/// Places the module's variables in global memory. Returns their addresses.
fn module_variables(program: &Program, memory: &Memory) -> Result<Vec<u64>> {
    let bytes = program.variables.iter().fold(0, |all: u64, variable| all.saturating_add(variable.bytes));
    if bytes > MAX_VARIABLES {
        return Err(Error::launch(
            &program.name,
            format!("{bytes} bytes of module variables; at most {MAX_VARIABLES} are possible"),
        ));
    }
    let place = |variable: &crate::ir::ModuleVariable| {
        let address = memory.alloc_filled(variable.bytes, &[0]); // as far as there is no initial value (PTX ISA, initializers)
        memory.write(address, &variable.init).map(|()| address)
    };
    program.variables.iter().map(place).collect()
}

/// Registers as warps start with them, and those that differ among warps.
fn presets(program: &Program, geometry: &Geometry, variables: &[u64]) -> (Vec<Lanes>, Vec<(Reg, Preset)>) {
    let mut registers = vec![[0; LANES]; program.registers];
    let mut varying = Vec::new();
    for &(register, preset) in &program.presets {
        let same = |value: u64| [value; LANES];
        registers[register as usize] = match preset {
            Preset::Constant(value) => same(value),
            Preset::Variable(index, offset) => same(variables[index].wrapping_add_signed(offset)),
            Preset::DynamicBase(offset) => same(program.dynamic_shared.wrapping_add_signed(offset)),
            Preset::Ntid(axis) => same(u64::from(geometry.block[axis])),
            Preset::Nctaid(axis) => same(u64::from(geometry.grid[axis])),
            Preset::LaneId => std::array::from_fn(|lane| lane as u64),
            Preset::NumWarps => same(geometry.threads().div_ceil(LANES as u64)),
            Preset::LaneMask(kind) => std::array::from_fn(|lane| {
                let (below, own) = ((1u64 << lane) - 1, 1u64 << lane);
                let above = u64::from(u32::MAX) & !(below | own);
                [own, below, below | own, above, above | own][usize::from(kind) % 5]
            }),
            Preset::DynamicShared => same(geometry.shared),
            Preset::TotalShared => same(program.static_shared_bytes + geometry.shared),
            Preset::Tid(_) | Preset::Ctaid(_) | Preset::WarpId => {
                varying.push((register, preset));
                continue;
            }
        };
    }
    (registers, varying)
}
