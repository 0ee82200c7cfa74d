//! Barriers of a block: bar.sync, bar.arrive, bar.red, with ids and counts.

use super::block::Core;
use super::clock::Meeting;
use super::step::Step;
use super::warp::{State, Warp};
use crate::fault::{Fault, FaultKind};
use crate::ir::{BarrierKind, LANES, lanes};

/// Barriers of a block (PTX ISA, bar): ids 0 to 15.
const BARRIERS: usize = 16;

/// Threads waiting at a barrier.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    warp: usize,
    mask: u32,
    pc: usize,
    kind: BarrierKind,
    aligned: bool,
}

#[derive(Debug, Default)]
struct Barrier {
    /// Threads it waits for, if one of the instructions says; else all that have not exited.
    threads: Option<u64>,
    arrived: u64,
    /// Lanes of each warp that have arrived.
    present: [u32; LANES],
    waiting: Vec<Waiting>,
    meeting: Meeting,
    /// Threads whose predicate holds, of those that have one.
    holds: u32,
    votes: u32,
}

/// The barriers of a block.
#[derive(Debug, Default)]
pub(crate) struct Barriers([Barrier; BARRIERS]);

impl Barriers {
    /// Whether threads wait at a barrier at which lanes of a warp may arrive one by one.
    pub(crate) fn any_not_aligned(&self) -> bool {
        self.0.iter().any(|barrier| barrier.waiting.iter().any(|w| !w.aligned))
    }

    /// How far a barrier has come, in words.
    pub(crate) fn describe(&self, id: usize) -> String {
        let Barrier { arrived, threads, .. } = &self.0[id];
        match threads {
            Some(threads) => format!("{arrived} of {threads} threads have come"),
            None => format!("{arrived} threads have come, and not all that run"),
        }
    }
}

/// What a warp brings to a barrier.
pub(crate) struct Arrival {
    pub kind: BarrierKind,
    pub id: u64,
    pub threads: Option<u64>,
    pub aligned: bool,
}

impl Core<'_> {
    /// The running fragment arrives at a barrier with its active lanes.
    pub(crate) fn arrive(&mut self, warp: &mut Warp, active: u32, arrival: Arrival) -> Step {
        let Arrival { kind, id, threads, aligned } = arrival;
        let pc = warp.fragment().pc;
        if aligned && active != warp.live {
            let missing: Vec<String> = lanes(warp.live & !active).map(|lane| lane.to_string()).collect();
            return self.broken_barrier(
                warp,
                active,
                format!("a barrier without lanes {} of the warp, which have not exited", missing.join(", ")),
            );
        }
        if id >= BARRIERS as u64 {
            return self.broken_barrier(warp, active, format!("barrier {id}: there are 0 to {}", BARRIERS - 1));
        }
        if let Some(n) = threads.filter(|n| n % LANES as u64 != 0 || *n == 0) {
            return self.broken_barrier(
                warp,
                active,
                format!("a barrier of {n} threads: the number must be a multiple of {LANES}"),
            );
        }
        // Without a number it waits for all threads of the block, in whole warps (PTX ISA, bar).
        let all = self.grid.geometry.threads().next_multiple_of(LANES as u64);
        let barrier = &mut self.barriers.0[id as usize];
        if barrier.arrived > 0 && barrier.threads.unwrap_or(all) != threads.unwrap_or(all) {
            let (one, other) = (barrier.threads, threads);
            let words = |n: Option<u64>| n.map_or("all threads".to_string(), |n| format!("{n} threads"));
            return self.broken_barrier(
                warp,
                active,
                format!("waits for {} at barrier {id}, where others wait for {}", words(other), words(one)),
            );
        }
        barrier.threads = barrier.threads.or(threads);
        // A whole warp counts as 32 threads even when the block's last one is smaller, also when it comes in parts.
        let present = &mut barrier.present[warp.id as usize];
        let count = |mask: u32| if warp.live & !mask == 0 { LANES as u64 } else { u64::from(mask.count_ones()) };
        let again = active & !*present == 0;
        barrier.arrived += if again { count(active) } else { count(*present | active) - count(*present) };
        *present |= active;
        barrier.meeting.arrive(&mut warp.clock, active, &mut self.time);
        if let BarrierKind::Popc { input, .. } | BarrierKind::And { input, .. } | BarrierKind::Or { input, .. } = kind {
            barrier.holds += (warp.test(input) & active).count_ones();
            barrier.votes += active.count_ones();
        }
        if matches!(kind, BarrierKind::Arrive) {
            warp.fragment().pc += 1;
        } else {
            warp.fragment().state = State::AtBarrier(id as usize);
            barrier.waiting.push(Waiting { warp: warp.id as usize, mask: active, pc, kind, aligned });
        }
        self.event();
        Step::Arrived(id as usize)
    }

    pub(crate) fn broken_barrier(&mut self, warp: &Warp, active: u32, message: String) -> Step {
        let site = warp.fragments[warp.current].pc as u32;
        self.fault(FaultKind::DivergentBarrier, warp, active.trailing_zeros(), site, 0, None, message);
        self.broken = true;
        Step::Switch
    }

    /// Lets the threads at a barrier go if all have come.
    pub(crate) fn pass_barrier(&mut self, warps: &mut [Warp], id: usize) {
        let barrier = &mut self.barriers.0[id];
        let complete = match barrier.threads {
            Some(threads) => barrier.arrived >= threads,
            None => warps.iter().zip(&barrier.present).all(|(warp, present)| warp.live & !present == 0),
        };
        if barrier.arrived == 0 || !complete {
            return;
        }
        let Barrier { threads, waiting, meeting, holds, votes, .. } = std::mem::take(barrier);
        let of_warp = |id: usize| waiting.iter().filter(|w| w.warp == id).fold(0, |mask, w| mask | w.mask);
        for warp in warps.iter_mut() {
            let mask = of_warp(warp.id as usize);
            if mask != 0 {
                meeting.leave(&mut warp.clock, mask, warp.live);
            }
        }
        for &Waiting { warp, mask, kind, .. } in &waiting {
            let warp = &mut warps[warp];
            match kind {
                BarrierKind::Popc { out, .. } => warp.set(out, mask, &[u64::from(holds); LANES]),
                BarrierKind::And { out, .. } => warp.set_pred(out, mask, if holds == votes { u32::MAX } else { 0 }),
                BarrierKind::Or { out, .. } => warp.set_pred(out, mask, if holds > 0 { u32::MAX } else { 0 }),
                BarrierKind::Sync | BarrierKind::Arrive => {}
            }
            let there = warp.fragments.iter_mut().find(|f| f.state == State::AtBarrier(id) && f.mask == mask);
            if let Some(fragment) = there {
                fragment.state = State::Ready;
                fragment.pc += 1;
            }
        }
        self.event();
        // __syncthreads may stand in a branch only if all threads of the block take it (CUDA programming guide).
        let mut aligned = waiting.iter().filter(|w| w.aligned);
        if let (None, Some(first)) = (threads, aligned.next())
            && let Some(other) = aligned.find(|w| w.pc != first.pc)
        {
            let place = |w: &Waiting| self.grid.place(w.pc as u32, self.index, w.warp as u32, w.mask.trailing_zeros());
            let message = format!("barrier {id} of all threads is reached at two places");
            let (place, other) = (place(first), Some(place(other)));
            self.grid.report(Fault {
                kind: FaultKind::DivergentBarrier,
                kernel: String::new(),
                place,
                address: 0,
                other,
                message,
            });
        }
    }

    /// Lanes have exited: whoever waited for all threads may go.
    pub(crate) fn pass_all_barriers(&mut self, warps: &mut [Warp]) {
        for id in 0..BARRIERS {
            if self.barriers.0[id].threads.is_none() {
                self.pass_barrier(warps, id);
            }
        }
    }
}
