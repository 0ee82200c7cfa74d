//! A block: its warps take turns in seeded random order until all have exited.

use super::barrier::Barriers;
use super::clock::Clock;
use super::grid::Grid;
use super::shared::SharedMemory;
use super::step::Step;
use super::warp::{State, Warp};
use crate::count::SiteCounts;
use crate::fault::{Fault, FaultKind, Place};
use crate::ir::{LANES, Preset, lanes};

/// Instructions that a warp runs at most before another's turn.
const LONGEST_TURN: u64 = 512;
/// Reads of flags, with no write between, after which a block makes way for others: they may be what it waits for.
const IDLE_POLLS: u32 = 256;
/// Instructions without any effect after which a block is looked at for endless loops.
const SUSPICIOUS: u64 = 4_000;
/// Instructions without any effect on memory, by any thread, that are taken for an endless loop even if registers change.
const HOPELESS: u64 = 100_000_000;

/// All of a block but its warps.
pub(crate) struct Core<'g> {
    pub grid: &'g Grid<'g>,
    /// Number in the grid.
    pub index: u32,
    pub shared: SharedMemory,
    pub barriers: Barriers,
    /// Counts synchronisations: the source of stamps.
    pub time: u32,
    /// Warp instructions issued.
    pub issued: u64,
    /// Changes of shared memory, barriers passed, warps ended.
    events: u64,
    /// `issued` at the last change of anything.
    active_at: u64,
    last_progress: (u64, u64),
    /// Strong reads since the block last changed memory.
    pub idle_polls: u32,
    /// Set by a fault after which going on makes no sense.
    pub broken: bool,
    pub counts: Vec<SiteCounts>,
    random: u64,
}

/// How a block's time on a core ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Its time is up.
    Paused,
    /// Every thread that could run repeats itself, and will until another block changes global memory.
    /// With the progress of the grid at which they were found to.
    Stuck(u64),
}

/// A block that runs.
pub(crate) struct Block<'g> {
    pub core: Core<'g>,
    warps: Vec<Warp>,
}

impl<'g> Block<'g> {
    pub(crate) fn new(grid: &'g Grid<'g>, index: u32) -> Block<'g> {
        let program = grid.program;
        let ctaid = grid.geometry.ctaid(index);
        let threads = grid.geometry.threads();
        let count = threads.div_ceil(LANES as u64) as usize;
        let warps = (0..count).map(|id| {
            let live = (threads - (id * LANES) as u64).min(LANES as u64) as u32;
            let mut registers = grid.registers.clone();
            for &(register, preset) in &grid.varying {
                registers[register as usize] = std::array::from_fn(|lane| match preset {
                    Preset::Tid(axis) => u64::from(grid.geometry.tid((id * LANES + lane) as u32)[axis]),
                    Preset::Ctaid(axis) => u64::from(ctaid[axis]),
                    Preset::WarpId => id as u64,
                    _ => 0,
                });
            }
            let clock = Clock::new(index, id as u32, program.hands_over);
            let local = program.local_bytes as usize * LANES;
            Warp::new(id as u32, u32::MAX >> (LANES as u32 - live), registers, program.preds, local, clock)
        });
        let mut random = grid.options.seed ^ (u64::from(index) << 32).wrapping_add(0x9E37_79B9_7F4A_7C15);
        (0..3).for_each(|_| _ = next_random(&mut random));
        let core = Core {
            grid,
            index,
            shared: SharedMemory::new(&program.shared, program.dynamic_shared, grid.geometry.shared, grid.options.races),
            barriers: Barriers::default(),
            time: 1,
            issued: 0,
            events: 0,
            active_at: 0,
            last_progress: (0, 0),
            idle_polls: 0,
            broken: false,
            counts: vec![SiteCounts::default(); program.insts.len()],
            random,
        };
        Block { warps: warps.collect(), core }
    }

    /// Runs the block for about `instructions` warp instructions.
    pub(crate) fn run(&mut self, instructions: u64) -> Outcome {
        let end = self.core.issued + instructions;
        loop {
            if self.core.broken || self.core.grid.is_stopped() {
                return Outcome::Done;
            }
            let warps = &mut self.warps;
            let ready: Vec<usize> = (0..warps.len()).filter(|&w| warps[w].is_ready()).collect();
            if ready.is_empty() {
                // Lanes at a join may be what lanes of their warp at a barrier wait for, if these need not come together.
                if self.core.barriers.any_not_aligned() && self.release_joins() {
                    continue;
                }
                if self.warps.iter().any(|w| w.live != 0) {
                    self.report_deadlock("waits for threads that never come");
                }
                return Outcome::Done;
            }
            let chosen = ready[(self.core.next_random() % ready.len() as u64) as usize];
            let turn = 1 + self.core.next_random() % LONGEST_TURN;
            self.turn(chosen, turn);
            if self.core.quiet() > SUSPICIOUS {
                let now = self.core.progress();
                if self.is_stuck(now) {
                    return Outcome::Stuck(now.0);
                }
            }
            if self.core.quiet() > HOPELESS {
                self.report_deadlock("runs on and on while nothing in memory changes");
                return Outcome::Done;
            }
            if self.core.issued >= end || self.core.idle_polls > IDLE_POLLS {
                self.core.idle_polls = 0;
                return Outcome::Paused;
            }
        }
    }

    /// One warp runs until it blocks or its turn ends.
    fn turn(&mut self, chosen: usize, turn: u64) {
        let end = self.core.issued + turn;
        if !self.warps[chosen].switch() {
            return;
        }
        while self.core.issued < end && !self.core.broken {
            let warp = &mut self.warps[chosen];
            if !warp.rejoin() {
                if !warp.switch() {
                    return;
                }
                continue;
            }
            match self.core.step(warp) {
                Step::Next => {}
                Step::Switch => {
                    if !warp.switch() {
                        return;
                    }
                }
                Step::Arrived(id) => {
                    self.core.pass_barrier(&mut self.warps, id);
                    if !self.warps[chosen].switch() {
                        return;
                    }
                }
                Step::Exited => {
                    self.core.event();
                    self.core.pass_collectives(&mut self.warps[chosen]);
                    self.core.pass_all_barriers(&mut self.warps);
                    if !self.warps[chosen].switch() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether nothing but another block can end the loops in which all threads are.
    fn is_stuck(&self, now: (u64, u64)) -> bool {
        self.warps.iter().all(|warp| warp.repeats(now))
    }

    /// Lets lanes that wait at joins go on, see [`Warp::release_joins`]. Whether there were any.
    pub(crate) fn release_joins(&mut self) -> bool {
        self.core.event();
        self.warps.iter_mut().fold(false, |any, warp| warp.release_joins() | any)
    }

    /// Reports the threads that cannot go on, once.
    pub(crate) fn report_deadlock(&mut self, what: &str) {
        if self.core.grid.is_broken() {
            return; // others may wait for what a broken block did not do
        }
        let waiting = |(warp, fragment): (&Warp, &super::warp::Fragment)| {
            (warp.id, fragment.mask.trailing_zeros(), fragment.pc, fragment.state)
        };
        let all: Vec<_> = self.warps.iter().flat_map(|w| w.fragments.iter().map(move |f| (w, f))).map(waiting).collect();
        let find = |wanted: fn(State) -> bool| all.iter().find(|(.., state)| wanted(*state));
        let looping = find(|state| state == State::Ready);
        let divided = || find(|state| matches!(state, State::AtCollective(_) | State::Hesitant));
        let Some(&(warp, lane, pc, state)) = looping.or_else(divided).or(all.first()) else { return };
        let other = all.iter().find(|(_, _, other, _)| *other != pc);
        let other = other.map(|&(warp, lane, pc, _)| self.core.grid.place(pc as u32, self.core.index, warp, lane));
        let missing = |mask: u32| lanes(mask).map(|l| l.to_string()).collect::<Vec<_>>().join(", ");
        let (kind, message) = match state {
            State::AtCollective(mask) => {
                let arrived = self.warps[warp as usize].fragments.iter().filter(|f| f.pc == pc).fold(0, |m, f| m | f.mask);
                let lanes = missing(mask & self.warps[warp as usize].live & !arrived);
                (FaultKind::DivergentBarrier, format!("waits for lanes {lanes} of its warp, which do not come here"))
            }
            State::Hesitant => (FaultKind::DivergentBarrier, "waits at a barrier for lanes of its warp that do not come".into()),
            State::AtBarrier(id) => (FaultKind::Deadlock, format!("at barrier {id} {what}: {}", self.core.barriers.describe(id))),
            State::Ready => (FaultKind::Deadlock, what.to_string()),
        };
        let place = self.core.grid.place(pc as u32, self.core.index, warp, lane);
        self.core.grid.report(Fault { kind, kernel: String::new(), place, address: 0, other, message });
        self.core.broken = true;
    }
}

impl Core<'_> {
    /// Reports a fault of a thread.
    #[allow(clippy::too_many_arguments)] // the parts of a report
    pub(crate) fn fault(
        &mut self,
        kind: FaultKind,
        warp: &Warp,
        lane: u32,
        site: u32,
        address: u64,
        other: Option<Place>,
        message: String,
    ) {
        let place = self.grid.place(site, self.index, warp.id, lane);
        self.grid.report(Fault { kind, kernel: String::new(), place, address, other, message });
    }

    /// Memory changed: in this block alone if it was shared memory.
    pub(crate) fn progressed(&mut self, shared: bool) {
        self.idle_polls = 0;
        if shared {
            self.events += 1;
        } else {
            self.grid.progressed();
        }
    }

    /// Something happened that is not a change of memory.
    pub(crate) fn event(&mut self) {
        self.events += 1;
    }

    /// A number that is the same only if nothing has happened.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.grid.progress(), self.events)
    }

    /// Instructions since anything happened.
    pub(crate) fn quiet(&mut self) -> u64 {
        let now = self.progress();
        if now != self.last_progress {
            self.last_progress = now;
            self.active_at = self.issued;
        }
        self.issued - self.active_at
    }

    /// Whether to look for endless loops.
    pub(crate) fn is_suspicious(&mut self) -> bool {
        self.quiet() > SUSPICIOUS / 2
    }

    /// Whether a loop has gone round for so long without effect that it may wait for lanes of its own warp, see
    /// [`Warp::release_joins`].
    pub(crate) fn is_fruitless(&mut self) -> bool {
        self.quiet() > 4 * SUSPICIOUS
    }

    pub(crate) fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }
}

/// SplitMix64 (Steele, Lea & Flood, 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
