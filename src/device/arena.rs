//! Memory of one pass, planned once: every tensor has a fixed place in one block.

use super::buffer::{ALIGN, Block};
use super::exec::{Cost, Exec, Observer};
use super::{Device, plan_mismatch};
use crate::Result;

/// What happened to memory during a recorded pass, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A tensor of this many bytes was born; its number is the count of births before it.
    Alloc { bytes: usize },
    /// Tensor number `id` died.
    Free { id: u32 },
}

/// The memory plan and the operation counts of one pass.
#[derive(Debug)]
pub struct Plan {
    pub(super) events: Vec<Event>,
    /// Offset of each tensor in the arena, in order of birth.
    pub(super) offsets: Vec<usize>,
    peak: usize,
    ops: Vec<Cost>,
}

impl Plan {
    /// Records `pass` without computing anything: operations check shapes and count, tensors have no memory.
    pub fn record(device: &Device, pass: impl FnOnce(&Exec<'_>) -> Result<()>) -> Result<Plan> {
        let exec = Exec::recording(device);
        pass(&exec)?;
        let (events, ops) = exec.into_recording();
        let (offsets, peak) = place(&events);
        Ok(Plan { events, offsets, peak, ops })
    }

    /// Bytes of the arena that runs this pass.
    pub fn bytes(&self) -> usize {
        self.peak
    }

    /// Floating-point operations of the pass, two for each multiply-add.
    pub fn flops(&self) -> u64 {
        self.ops.iter().map(|op| op.flops).sum()
    }

    /// The operations in order, with their counts.
    pub fn ops(&self) -> &[Cost] {
        &self.ops
    }
}

/// Packs tensors by decreasing size: each goes to the lowest gap among the placed tensors that live at the same time.
/// Returns the offsets in order of birth and the size of the arena; a plan beyond all memory saturates, and no arena runs it.
fn place(events: &[Event]) -> (Vec<usize>, usize) {
    struct Life {
        bytes: usize,
        birth: usize,
        death: usize,
    }
    let mut lives: Vec<Life> = Vec::new();
    for (time, event) in events.iter().enumerate() {
        match *event {
            Event::Alloc { bytes } => lives.push(Life { bytes: bytes.next_multiple_of(ALIGN), birth: time, death: events.len() }),
            Event::Free { id } => lives[id as usize].death = time,
        }
    }
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), i));
    let mut offsets = vec![0; lives.len()];
    // Placed tensors, by offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut peak = 0;
    for i in order {
        let mut offset = 0usize;
        for &j in &placed {
            let together = lives[j].birth < lives[i].death && lives[i].birth < lives[j].death;
            if together {
                if offset.saturating_add(lives[i].bytes) <= offsets[j] {
                    break;
                }
                offset = offset.max(offsets[j].saturating_add(lives[j].bytes));
            }
        }
        offsets[i] = offset;
        peak = peak.max(offset.saturating_add(lives[i].bytes));
        let at = placed.partition_point(|&j| offsets[j] <= offset);
        placed.insert(at, i);
    }
    (offsets, peak)
}

/// The block of memory in which planned passes run. One arena serves many plans, one at a time.
#[derive(Debug)]
pub struct Arena {
    block: Block,
}

impl Default for Arena {
    fn default() -> Self {
        Arena::new()
    }
}

impl Arena {
    /// An empty arena; it grows to the largest plan that it runs.
    pub fn new() -> Arena {
        Arena { block: Block::empty() }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.block.bytes()
    }

    /// Makes room for `plan`, so that [`Arena::run`] does not have to.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if there is not that much memory.
    pub fn reserve(&mut self, plan: &Plan) -> Result<()> {
        if self.block.bytes() < plan.bytes() {
            self.block = Block::empty(); // free the old block before taking the new one
            self.block = Block::zeroed(plan.bytes())?;
        }
        Ok(())
    }

    /// Records `pass` and runs it once.
    ///
    /// # Errors
    /// As [`Plan::record`] and [`Arena::run`].
    pub fn run_once<R: Send>(&mut self, device: &Device, mut pass: impl FnMut(&Exec<'_>) -> Result<R> + Send) -> Result<R> {
        let plan = Plan::record(device, |exec| pass(exec).map(drop))?;
        self.run(device, &plan, pass)
    }

    /// Runs `pass`, which must perform the operations that `plan` recorded, in the same order.
    ///
    /// # Errors
    /// What `pass` returns; [`Arena::reserve`]'s; an internal error if it takes or drops tensors otherwise than in the recording.
    pub fn run<R: Send>(&mut self, device: &Device, plan: &Plan, pass: impl FnOnce(&Exec<'_>) -> Result<R> + Send) -> Result<R> {
        self.run_observed(device, plan, None, pass)
    }

    /// As [`Arena::run`], showing named intermediate tensors and the time of each operation to `observer`.
    pub fn run_observed<R: Send>(
        &mut self,
        device: &Device,
        plan: &Plan,
        observer: Option<&(dyn Observer + Sync)>,
        pass: impl FnOnce(&Exec<'_>) -> Result<R> + Send,
    ) -> Result<R> {
        self.reserve(plan)?;
        let block = &mut self.block;
        device.install(move || {
            let exec = Exec::running(device, plan, block, observer);
            let result = pass(&exec)?;
            match exec.finish() {
                Some(message) => Err(plan_mismatch(message)),
                None => Ok(result),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_live_together_never_overlap() {
        // A pseudo-random program of births and deaths.
        let (mut events, mut alive, mut births, mut state) = (Vec::new(), Vec::new(), 0u32, 12345u64);
        for _ in 0..400 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let roll = (state >> 33) as usize;
            if alive.len() > 3 && roll.is_multiple_of(2) {
                events.push(Event::Free { id: alive.remove(roll % alive.len()) });
            } else {
                events.push(Event::Alloc { bytes: 1 + roll % 1000 });
                alive.push(births);
                births += 1;
            }
        }
        let (offsets, peak) = place(&events);
        let mut live: Vec<(usize, usize, u32)> = Vec::new();
        let mut next = 0;
        let mut lower_bound = 0;
        for event in events {
            match event {
                Event::Alloc { bytes } => {
                    let (start, end) = (offsets[next], offsets[next] + bytes);
                    assert_eq!(start % ALIGN, 0);
                    assert!(end <= peak);
                    assert!(live.iter().all(|&(s, e, _)| end <= s || e <= start), "tensor {next} overlaps");
                    live.push((start, end, next as u32));
                    lower_bound = lower_bound.max(live.iter().map(|(s, e, _)| e - s).sum());
                    next += 1;
                }
                Event::Free { id } => live.retain(|&(_, _, i)| i != id),
            }
        }
        assert!(peak < lower_bound * 2, "{peak} bytes for {lower_bound} alive at once");
    }
}
