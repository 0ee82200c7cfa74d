//! The blocks of a launch take turns on the cores.

use super::block::{Block, Outcome};
use super::grid::Grid;
use crate::count::SiteCounts;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Instructions a block runs before another may have its core.
const SLICE: u64 = 400_000;

/// Blocks waiting for a core, and what those that have ended counted.
pub(crate) struct Queue<'g> {
    grid: &'g Grid<'g>,
    waiting: Mutex<Waiting<'g>>,
    changed: Condvar,
}

struct Waiting<'g> {
    /// How many blocks have begun.
    fresh: u64,
    /// Blocks whose time was up; with the progress at which they were stuck, if they were.
    paused: VecDeque<(Box<Block<'g>>, Option<u64>)>,
    running: usize,
    counts: Vec<SiteCounts>,
}

/// A block whose turn it is.
enum Turn<'g> {
    Begin(u32),
    GoOn(Box<Block<'g>>),
}

impl<'g> Queue<'g> {
    pub(crate) fn new(grid: &'g Grid<'g>) -> Queue<'g> {
        let counts = vec![SiteCounts::default(); grid.program.insts.len()];
        let waiting = Waiting { fresh: 0, paused: VecDeque::new(), running: 0, counts };
        Queue { grid, waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// What was counted, by instruction.
    pub(crate) fn into_counts(self) -> Vec<SiteCounts> {
        self.waiting.into_inner().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// Runs blocks until none is left. A block that has had its time makes way for others, as they may be what it waits for.
    pub(crate) fn work(&self) {
        let mut waiting = self.lock();
        loop {
            let turn = match waiting.next(self.grid) {
                Some(turn) => turn,
                None if waiting.running > 0 => {
                    waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                None if waiting.release_joins() => continue,
                None => {
                    if let Some((mut block, _)) = waiting.paused.pop_front() {
                        block.report_deadlock("goes round in a loop that nothing can end");
                        self.grid.stop();
                        waiting.paused.clear();
                    }
                    self.changed.notify_all();
                    return;
                }
            };
            waiting.running += 1;
            drop(waiting);
            let mut block = match turn {
                Turn::Begin(index) => Box::new(Block::new(self.grid, index)),
                Turn::GoOn(block) => block,
            };
            let outcome = block.run(SLICE);
            waiting = self.lock();
            waiting.running -= 1;
            match outcome {
                Outcome::Done => {
                    if block.core.broken {
                        self.grid.break_off();
                    }
                    waiting.counts.iter_mut().zip(&block.core.counts).for_each(|(sum, counts)| sum.add(counts));
                }
                Outcome::Paused => waiting.paused.push_back((block, None)),
                Outcome::Stuck(progress) => waiting.paused.push_back((block, Some(progress))),
            }
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<'g>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'g> Waiting<'g> {
    /// A block that can run: a fresh one, or one that is not stuck.
    fn next(&mut self, grid: &Grid<'_>) -> Option<Turn<'g>> {
        if self.fresh < grid.blocks() && !grid.is_stopped() {
            self.fresh += 1;
            return Some(Turn::Begin(grid.block(self.fresh - 1)));
        }
        let now = grid.progress();
        let able = self.paused.iter().position(|(_, stuck)| *stuck != Some(now))?;
        self.paused.remove(able).map(|(block, _)| Turn::GoOn(block))
    }

    /// Lets lanes that wait at joins go on, see [`super::warp::Warp::release_joins`]. Whether there were any.
    fn release_joins(&mut self) -> bool {
        self.paused.iter_mut().fold(false, |any, (block, stuck)| {
            let released = block.release_joins();
            *stuck = stuck.filter(|_| !released);
            released | any
        })
    }
}
