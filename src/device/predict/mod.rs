//! A GPU that is not there: takes the work of a pass, remembers it, and does none of it.
//!
//! It says of itself what a chip of `ptxsim`'s table says, so that operations choose for it the kernels and tiles that they choose on that card.
//! Memory has addresses and extents, but no content; only little things that the host writes (token ids, rows) are kept. What it
//! remembered tells [`sample`] which blocks of which kernels to run in the simulator.

pub(crate) mod sample;

use super::backend::{Backend, Capability, EventHandle, Geometry, GraphHandle, KernelHandle, MemoryInfo};
use super::kernels::{Choice, Entry, KernelFile};
use super::lock;
use super::signature::Signature;
use crate::{Error, Result};
use ptxsim::count::chip::Chip;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Largest upload that is kept: indices, not weights.
const MOST_KEPT: usize = 64 << 10;

/// Allocations begin at multiples of this, and so apart from each other.
const ALIGN: u64 = 256;

/// A chip as a driver would show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    pub chip: &'static Chip,
    pub capability: Capability,
    /// Bytes of its memory (data sheets).
    memory: u64,
}

impl Card {
    /// The card with the chip of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names there are.
    pub fn by_name(name: &str) -> Result<Card> {
        let known = [("a100", (8, 0), 80), ("rtx4090", (8, 9), 24), ("h100", (9, 0), 80), ("h200", (9, 0), 141)];
        let card = |(name, (major, minor), gib): (&str, (u32, u32), u64)| {
            let capability = Capability { major, minor };
            Some(Card { chip: Chip::by_name(name)?, capability, memory: gib << 30 })
        };
        known.into_iter().find(|card| card.0 == name).and_then(card).ok_or_else(|| {
            let names = known.map(|card| card.0).join(", ");
            Error::usage(format!("nothing is known of a chip `{name}`"), format!("use one of {names}"))
        })
    }
}

/// What a launch is given: everything that decides what its blocks do, but the content of its tensors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaunchShape {
    pub entry: &'static str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// The parameter block; 0 for addresses.
    arguments: Vec<u8>,
    /// Where an address lies in the parameter block, and where it leads: number of the tensor, offset in it. Null pointers are left out.
    pointers: Vec<(usize, usize, u64)>,
    /// Bytes of each tensor.
    pub tensors: Vec<u64>,
}

impl LaunchShape {
    /// The number of the tensor that an argument leads to; `argument` counts tensors as the kernel does.
    pub fn tensor_of(&self, argument: usize) -> Option<usize> {
        self.pointers.iter().find(|(at, ..)| *at == argument * size_of::<u64>()).map(|&(_, tensor, _)| tensor)
    }

    /// The struct at the end of the arguments.
    pub fn params<P: bytemuck::AnyBitPattern>(&self) -> Option<P> {
        let start = self.arguments.len().checked_sub(size_of::<P>())?;
        bytemuck::try_pod_read_unaligned(&self.arguments[start..]).ok()
    }
}

/// A launch.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub shape: LaunchShape,
    /// Address of each tensor.
    pub addresses: Vec<u64>,
    /// What the host wrote there, if it was little.
    contents: Vec<Option<Arc<[u8]>>>,
    file: &'static KernelFile,
    /// The kernel's resources on this card.
    pub resources: &'static Entry,
}

/// Work of a pass, in order.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// An observed operation begins.
    Mark,
    Launch(Launch),
    Copy {
        bytes: u64,
    },
    Fill {
        bytes: u64,
    },
}

/// What passes put into the queue of a predicted GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Entries>);

#[derive(Debug, Default)]
struct Entries {
    works: Mutex<Vec<Work>>,
    /// Bytes of addresses given out.
    given: AtomicU64,
}

impl Log {
    /// Takes out everything since the last call.
    pub fn take(&self) -> Vec<Work> {
        std::mem::take(&mut lock(&self.0.works))
    }

    /// What is allocated from now on has no lower address.
    pub fn top(&self) -> u64 {
        ALIGN + self.0.given.load(Ordering::Relaxed)
    }

    fn give(&self, bytes: u64) -> u64 {
        ALIGN + self.0.given.fetch_add(bytes.next_multiple_of(ALIGN).max(ALIGN), Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
struct Kernel {
    choice: Choice,
    signature: Signature,
}

#[derive(Clone, Debug)]
struct Allocation {
    bytes: u64,
    content: Option<Arc<[u8]>>,
}

/// The backend; see the module.
pub(super) struct Predicted {
    card: Card,
    log: Log,
    allocations: Mutex<BTreeMap<u64, Allocation>>,
    kernels: Mutex<Vec<Kernel>>,
    capture: Mutex<Option<Vec<Work>>>,
    graphs: Mutex<HashMap<u64, Vec<Work>>>,
}

impl Predicted {
    pub fn new(card: Card, log: Log) -> Predicted {
        Predicted {
            card,
            log,
            allocations: Mutex::default(),
            kernels: Mutex::default(),
            capture: Mutex::default(),
            graphs: Mutex::default(),
        }
    }

    fn submit(&self, work: Work) {
        match &mut *lock(&self.capture) {
            Some(captured) => captured.push(work),
            None => lock(&self.log.0.works).push(work),
        }
    }

    fn failed(&self, action: &str, message: String) -> Error {
        Error::Device { device: self.name(), action: action.into(), message }
    }

    /// The tensor that an address lies in, with its own address.
    fn tensor(&self, address: u64) -> Result<(u64, Allocation)> {
        let allocations = lock(&self.allocations);
        let found = allocations.range(..=address).next_back().filter(|(start, tensor)| address < *start + tensor.bytes);
        let Some((&start, tensor)) = found else {
            return Err(self.failed("launch", format!("{address:#x} is in no tensor")));
        };
        Ok((start, tensor.clone()))
    }
}

impl Backend for Predicted {
    fn name(&self) -> String {
        format!("prediction for {}", self.card.chip.name)
    }

    fn capability(&self) -> Capability {
        self.card.capability
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { free: self.card.memory, total: self.card.memory })
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let address = self.log.give(bytes as u64);
        lock(&self.allocations).insert(address, Allocation { bytes: bytes as u64, content: None });
        Ok(address)
    }

    fn free(&self, address: u64) {
        lock(&self.allocations).remove(&address);
    }

    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        if bytes > MOST_KEPT {
            return Ok(());
        }
        let mut content = vec![0u64; bytes.div_ceil(8)]; // aligned enough for what converts
        let content = &mut bytemuck::cast_slice_mut(&mut content)[..bytes];
        fill(0, content);
        if let Some(tensor) = lock(&self.allocations).get_mut(&to).filter(|tensor| tensor.bytes == bytes as u64) {
            tensor.content = Some((&*content).into());
        }
        Ok(())
    }

    fn download(&self, _from: u64, _bytes: usize, _take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        Ok(())
    }

    fn copy(&self, _to: u64, _from: u64, bytes: usize) -> Result<()> {
        self.submit(Work::Copy { bytes: bytes as u64 });
        Ok(())
    }

    fn fill(&self, _to: u64, _byte: u8, bytes: usize) -> Result<()> {
        self.submit(Work::Fill { bytes: bytes as u64 });
        Ok(())
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn is_predicted(&self) -> bool {
        true
    }

    fn cache_bytes(&self) -> usize {
        self.card.chip.l2_bytes as usize
    }

    fn multiprocessors(&self) -> u32 {
        self.card.chip.multiprocessors
    }

    fn shared_limit(&self) -> u32 {
        self.card.chip.shared_per_block
    }

    fn load(&self, choice: &Choice, signature: &Signature) -> Result<KernelHandle> {
        let mut kernels = lock(&self.kernels);
        kernels.push(Kernel { choice: *choice, signature: signature.clone() });
        Ok(KernelHandle(kernels.len() as u64 - 1))
    }

    fn launch(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()> {
        let Some(Kernel { choice, signature }) = lock(&self.kernels).get(kernel.0 as usize).cloned() else {
            return Err(self.failed("launch", format!("{kernel:?} was not loaded")));
        };
        let mut arguments = arguments.to_vec();
        let (mut pointers, mut addresses, mut tensors, mut contents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for param in signature.params.iter().filter(|param| param.size == 8 && !param.is_struct) {
            let bytes = &mut arguments[param.offset..param.offset + 8];
            let mut address = [0; 8];
            address.copy_from_slice(bytes);
            bytes.fill(0);
            let address = u64::from_le_bytes(address);
            if address == 0 {
                continue;
            }
            let (start, tensor) = self.tensor(address)?;
            let number = addresses.iter().position(|&known| known == start).unwrap_or(addresses.len());
            if number == addresses.len() {
                addresses.push(start);
                tensors.push(tensor.bytes);
                contents.push(tensor.content);
            }
            pointers.push((param.offset, number, address - start));
        }
        let Geometry { grid, block, shared } = geometry;
        let shape = LaunchShape { entry: choice.entry.name, grid, block, shared, arguments, pointers, tensors };
        self.submit(Work::Launch(Launch { shape, addresses, contents, file: choice.file, resources: choice.entry }));
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn record(&self) -> Result<EventHandle> {
        self.submit(Work::Mark);
        Ok(EventHandle(0))
    }

    fn elapsed(&self, _from: EventHandle, _to: EventHandle) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn drop_event(&self, _event: EventHandle) {}

    fn begin_capture(&self) -> Result<()> {
        match lock(&self.capture).replace(Vec::new()) {
            None => Ok(()),
            Some(_) => Err(self.failed("capture", "a capture goes on already".into())),
        }
    }

    fn end_capture(&self) -> Result<GraphHandle> {
        let captured = lock(&self.capture).take().ok_or_else(|| self.failed("capture", "no capture was begun".into()))?;
        let number = self.log.give(1);
        lock(&self.graphs).insert(number, captured);
        Ok(GraphHandle(number))
    }

    fn replay(&self, graph: GraphHandle) -> Result<()> {
        let Some(works) = lock(&self.graphs).get(&graph.0).cloned() else {
            return Err(self.failed("replay", format!("{graph:?} is not known")));
        };
        works.into_iter().for_each(|work| self.submit(work));
        Ok(())
    }

    fn drop_graph(&self, graph: GraphHandle) {
        lock(&self.graphs).remove(&graph.0);
    }
}
