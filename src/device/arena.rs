//! Memory of one pass, planned once: every tensor has a fixed place in one block.

use super::Device;
use super::buffer::{ALIGN, Block};
use super::exec::{Cost, DeviceGround, Exec, Ground, Observer, Recording, Watcher};
use super::gpu::{DeviceMemory, Gpu, Graph};
use crate::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Alignment of tensors on a GPU: what its allocator gives, and more than any of its memory instructions asks for.
const DEVICE_ALIGN: usize = 256;

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
    launches: Vec<&'static str>,
}

impl Plan {
    /// Records `pass` without computing anything: operations check shapes and count, tensors have no memory.
    pub fn record(device: &Device, pass: impl FnOnce(&Exec<'_>) -> Result<()>) -> Result<Plan> {
        let exec = Exec::recording(device);
        pass(&exec)?;
        let Recording { events, ops, launches } = exec.into_recording();
        let align = match device {
            Device::Cpu(_) => ALIGN,
            Device::Gpu(_) => DEVICE_ALIGN,
        };
        let (offsets, peak) = place(&events, align);
        Ok(Plan { events, offsets, peak, ops, launches })
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

    /// Entries of the kernels that the pass launches on a GPU, in order.
    pub fn launches(&self) -> &[&'static str] {
        &self.launches
    }
}

#[cfg(test)]
impl Plan {
    /// Bytes between the tensors of a guarded plan.
    const GUARD: usize = 1 << 10;

    /// What the guards are filled with before the run; as a number of floats it is a NaN.
    pub(crate) const GUARD_BYTE: u8 = 0xFF;

    /// The same pass, with memory for every tensor that no other gets, and guards round it: whatever leaves its tensor leaves traces.
    pub(crate) fn guarded(&self) -> Plan {
        let mut end = 0;
        let place = |bytes: usize| {
            let offset = (end + Plan::GUARD).next_multiple_of(DEVICE_ALIGN);
            end = offset + bytes;
            offset
        };
        let offsets = births(&self.events).map(place).collect();
        let peak = (end + Plan::GUARD).next_multiple_of(DEVICE_ALIGN);
        Plan { events: self.events.clone(), offsets, peak, ops: self.ops.clone(), launches: self.launches.clone() }
    }

    /// Looks at the guards in `arena`, the memory after a run of a guarded plan.
    ///
    /// # Panics
    /// If they were written.
    pub(crate) fn check_guards(&self, arena: &[u8]) {
        let mut end = 0;
        let tensors = self.offsets.iter().copied().zip(births(&self.events)).chain([(self.peak, 0)]);
        for (tensor, (start, bytes)) in tensors.enumerate() {
            let written = arena[end..start].iter().position(|&byte| byte != Plan::GUARD_BYTE);
            assert_eq!(written, None, "bytes before tensor {tensor}, counted from the end of the one before, were written");
            end = start + bytes;
        }
    }
}

/// Sizes of tensors, in order of birth.
#[cfg(test)]
fn births(events: &[Event]) -> impl Iterator<Item = usize> {
    events.iter().filter_map(|event| match *event {
        Event::Alloc { bytes } => Some(bytes),
        Event::Free { .. } => None,
    })
}

/// Packs tensors by decreasing size: each goes to the lowest gap among the placed tensors that live at the same time.
/// Returns the offsets in order of birth and the size of the arena; a plan beyond all memory saturates, and no arena runs it.
fn place(events: &[Event], align: usize) -> (Vec<usize>, usize) {
    struct Life {
        bytes: usize,
        birth: usize,
        death: usize,
    }
    let mut lives: Vec<Life> = Vec::new();
    for (time, event) in events.iter().enumerate() {
        match *event {
            Event::Alloc { bytes } => lives.push(Life { bytes: bytes.next_multiple_of(align), birth: time, death: events.len() }),
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

/// The memory in which planned passes run. One arena serves many plans, one at a time.
#[derive(Debug, Default)]
pub struct Arena {
    memory: Memory,
}

#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Host(Block),
    /// Shared with the passes that were captured in it.
    Device(Arc<DeviceMemory>),
}

impl Arena {
    /// An empty arena; it grows to the largest plan that it runs.
    pub fn new() -> Arena {
        Arena::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::None => 0,
            Memory::Host(block) => block.bytes(),
            Memory::Device(memory) => memory.bytes(),
        }
    }

    /// Makes room for `plan`, so that [`Arena::run`] does not have to.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not that much memory.
    pub fn reserve(&mut self, device: &Device, plan: &Plan) -> Result<()> {
        let here = match (&self.memory, device) {
            (Memory::Host(_), Device::Cpu(_)) => true,
            (Memory::Device(memory), Device::Gpu(gpu)) => memory.gpu().is(gpu),
            _ => false,
        };
        let bytes = match device {
            // Its tensors get allocations of their own, when they are born.
            Device::Gpu(gpu) if gpu.is_simulated() => 0,
            _ => plan.bytes(),
        };
        if !here || self.bytes() < bytes {
            self.memory = Memory::None; // free the old block before taking the new one
            self.memory = match device {
                Device::Cpu(_) => Memory::Host(Block::zeroed(bytes)?),
                Device::Gpu(gpu) => Memory::Device(Arc::new(gpu.alloc(bytes)?)),
            };
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

    /// Runs `pass`, which must perform the operations that `plan` recorded, in the same order, and waits until it is done.
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
        self.reserve(device, plan)?;
        let memory = &mut self.memory;
        device.install(move || {
            let exec = start(device, plan, memory, observer, None)?;
            let result = pass(&exec)?;
            exec.finish()?;
            Ok(result)
        })
    }

    /// Captures `pass`, which is not run: the graph runs it, any number of times. It may read and write buffers, but exchange nothing
    /// with the host.
    ///
    /// # Errors
    /// As [`Arena::run`]; [`Error::Usage`] on a CPU, which has nothing to gain by it.
    pub fn capture(&mut self, device: &Device, plan: &Plan, pass: impl FnOnce(&Exec<'_>) -> Result<()> + Send) -> Result<Graph> {
        let Device::Gpu(gpu) = device else { return Err(Error::usage("a CPU captures no graphs", "run the pass")) };
        self.reserve(device, plan)?;
        let memory = &mut self.memory;
        device.install(move || {
            let arena = match memory {
                Memory::Device(memory) => vec![memory.clone()],
                Memory::None | Memory::Host(_) => Vec::new(),
            };
            Graph::capture(gpu, || {
                let exec = start(device, plan, memory, None, Some(arena))?;
                pass(&exec)?;
                exec.finish()?;
                Ok(exec.into_kept())
            })
        })
    }
}

/// A pass about to run in `memory`, which was reserved for its plan; one to be captured if there is something to keep for it.
fn start<'p>(
    device: &'p Device,
    plan: &'p Plan,
    memory: &'p mut Memory,
    observer: Watcher<'p>,
    kept: Option<Vec<Arc<DeviceMemory>>>,
) -> Result<Exec<'p>> {
    let ground = match (device, memory) {
        (Device::Cpu(_), Memory::Host(block)) if block.bytes() >= plan.bytes() => Ground::Host(block.ptr()),
        (Device::Gpu(gpu), Memory::Device(memory)) => Ground::Device(on_device(gpu, plan, memory, kept)?),
        _ => return Err(super::plan_mismatch("the arena was not reserved for the plan".into())),
    };
    Ok(Exec::running(device, plan, ground, observer))
}

fn on_device<'p>(
    gpu: &'p Gpu,
    plan: &Plan,
    memory: &DeviceMemory,
    kept: Option<Vec<Arc<DeviceMemory>>>,
) -> Result<DeviceGround<'p>> {
    let separate = gpu.is_simulated();
    if !separate && memory.bytes() < plan.bytes() {
        return Err(super::plan_mismatch("the arena is smaller than its plan".into()));
    }
    Ok(DeviceGround {
        gpu,
        base: (!separate).then(|| memory.address()),
        living: RefCell::default(),
        kept: kept.map(RefCell::new),
        starts: RefCell::default(),
        first: Cell::new(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn guards_lie_round_every_tensor() {
        let events = vec![Event::Alloc { bytes: 7 }, Event::Free { id: 0 }, Event::Alloc { bytes: 300 }];
        let plan = Plan { events, offsets: vec![0; 2], peak: 0, ops: Vec::new(), launches: Vec::new() }.guarded();
        let (first, second) = (plan.offsets[0], plan.offsets[1]);
        assert!(first >= Plan::GUARD && second >= first + 7 + Plan::GUARD && plan.bytes() >= second + 300 + Plan::GUARD);
        let is_found = |byte: usize| {
            let mut arena = vec![Plan::GUARD_BYTE; plan.bytes()];
            arena[byte] = 0;
            catch_unwind(AssertUnwindSafe(|| plan.check_guards(&arena))).is_err()
        };
        let own = [first, first + 6, second, second + 299];
        assert_eq!(own.map(is_found), [false; 4]);
        let others = [0, first - 1, first + 7, second - 1, second + 300, plan.bytes() - 1];
        assert_eq!(others.map(is_found), [true; 6]);
    }

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
        let (offsets, peak) = place(&events, ALIGN);
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
