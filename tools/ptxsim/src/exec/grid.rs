//! A launch: blocks on all cores, and what they share.

use super::block::{Block, Outcome};
use super::faults::Faults;
use crate::count::{Counts, SiteCounts};
use crate::error::{Error, Result};
use crate::fault::{Fault, Place};
use crate::ir::{LANES, Lanes, Preset, Program, Reg};
use crate::memory::{Memory, View};
use crate::{Options, Report};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Instructions a block runs before another may have its core.
const SLICE: u64 = 400_000;
/// Shared memory that a block can have (CUDA programming guide, compute capability 9.0).
const MAX_SHARED: u64 = 227 << 10;

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
    /// A block ended by a fault of its own.
    broken: AtomicBool,
}

impl Grid<'_> {
    pub(crate) fn place(&self, site: u32, block: u32, warp: u32, lane: u32) -> Place {
        let [gx, gy, _] = self.geometry.grid;
        let ctaid = [block % gx, block / gx % gy, block / gx / gy];
        let spots = &self.program.spots;
        let spot = spots.get(site as usize).or(spots.last()).cloned().unwrap_or_default();
        spot.place(ctaid, warp, lane)
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

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Blocks waiting for a core.
#[derive(Default)]
struct Queue<'g> {
    /// The first block that has not begun.
    fresh: u64,
    /// Blocks whose time was up; with the progress at which they were stuck, if they were.
    paused: VecDeque<(Block<'g>, Option<u64>)>,
    running: usize,
    counts: Vec<SiteCounts>,
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
    let queue = Mutex::new(Queue { counts: vec![SiteCounts::default(); program.insts.len()], ..Queue::default() });
    let changed = Condvar::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let threads = threads.min(geometry.blocks().try_into().unwrap_or(usize::MAX)).max(1);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&grid, &queue, &changed));
        }
        work(&grid, &queue, &changed);
    });
    let (unique_read, unique_written) = if options.counters { grid.view.sectors(grid.launch) } else { (0, 0) };
    for address in addresses {
        memory.free(address);
    }
    let sites = queue.into_inner().unwrap_or_else(PoisonError::into_inner).counts;
    let (faults, faults_dropped) = grid.faults.into_parts();
    let shared_bytes = (program.static_shared_bytes + geometry.shared) as u32;
    let block_threads = geometry.threads() as u32;
    let counts = Counts { sites, unique_read, unique_written, blocks: geometry.blocks(), block_threads, shared_bytes };
    Ok(Report { faults, faults_dropped, counts })
}

/// Checks that a launch is one that a device could take.
fn check(program: &Program, geometry: &Geometry, parameters: &[u8]) -> Result<()> {
    let fail = |message: String| Err(Error::launch(&program.name, message));
    let (threads, blocks) = (geometry.threads(), geometry.blocks());
    let most = program.max_threads.unwrap_or(1024).min(1024);
    if threads == 0 || blocks == 0 {
        return fail(format!("the grid {:?} of blocks {:?} has no threads", geometry.grid, geometry.block));
    }
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

/// Places the module's variables in global memory. Returns their addresses.
fn module_variables(program: &Program, memory: &Memory) -> Result<Vec<u64>> {
    let place = |variable: &crate::ir::ModuleVariable| {
        let address = memory.alloc(variable.bytes);
        let mut bytes = variable.init.clone();
        bytes.resize(variable.bytes as usize, 0); // without an initial value it is zero (PTX ISA, initializers)
        memory.write(address, &bytes).map(|()| address)
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

/// Runs blocks until none is left. A block that has had its time makes way for others, as they may be what it waits for.
fn work<'g>(grid: &'g Grid<'g>, queue: &Mutex<Queue<'g>>, changed: &Condvar) {
    let mut guard = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let mut block = if guard.fresh < grid.geometry.blocks() && !grid.is_stopped() {
            let index = guard.fresh as u32;
            guard.fresh += 1;
            guard.running += 1;
            drop(guard);
            Block::new(grid, index)
        } else {
            let now = grid.progress();
            let able = guard.paused.iter().position(|(_, stuck)| *stuck != Some(now));
            let Some((block, _)) = able.and_then(|i| guard.paused.remove(i)) else {
                if guard.running > 0 {
                    guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let released = guard.paused.iter_mut().fold(false, |any, (block, stuck)| {
                    let released = block.release_joins();
                    *stuck = stuck.filter(|_| !released);
                    released | any
                });
                if released {
                    continue;
                }
                if let Some((mut block, _)) = guard.paused.pop_front() {
                    block.report_deadlock("goes round in a loop that nothing can end");
                    grid.stop.store(true, Ordering::Relaxed);
                    guard.paused.clear();
                }
                changed.notify_all();
                return;
            };
            guard.running += 1;
            drop(guard);
            block
        };
        let outcome = block.run(SLICE);
        guard = queue.lock().unwrap_or_else(PoisonError::into_inner);
        guard.running -= 1;
        match outcome {
            Outcome::Done => {
                grid.broken.fetch_or(block.core.broken, Ordering::Relaxed);
                for (sum, counts) in guard.counts.iter_mut().zip(&block.core.counts) {
                    sum.warps += counts.warps;
                    sum.lanes += counts.lanes;
                    sum.bytes += counts.bytes;
                    sum.sectors += counts.sectors;
                    sum.wavefronts += counts.wavefronts;
                    sum.ideal_wavefronts += counts.ideal_wavefronts;
                }
            }
            Outcome::Paused => guard.paused.push_back((block, None)),
            Outcome::Stuck(progress) => guard.paused.push_back((block, Some(progress))),
        }
        changed.notify_all();
    }
}
