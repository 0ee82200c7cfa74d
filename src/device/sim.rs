//! The simulator: PTX executed on this machine, by `ptxsim`. Every tensor has an allocation of its own, whose content is undefined at first:
//! a kernel that reads what nobody wrote, or leaves its tensor, or races, fails with its line.

use super::backend::{Backend, Capability, EventHandle, Geometry, GraphHandle, KernelHandle, MemoryInfo};
use super::cpu::parallel::Line;
use super::kernels::{self, Choice, KernelFile};
use super::lock;
use super::signature::Signature;
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The oldest card that the kernels are made for.
const CAPABILITY: Capability = Capability { major: 8, minor: 0 };

/// Few, so that grids are small and blocks go round more than once.
const MULTIPROCESSORS: u32 = 2;

/// Bytes of shared memory that a block of it can have (CUDA programming guide, "Technical specifications per compute capability").
const SHARED_LIMIT: u32 = 163 * 1024;

/// Bytes that pass through the host's memory at a time.
const PIECE: usize = 1 << 20;

/// Faults of a launch that its error shows.
const SHOWN_FAULTS: usize = 5;

/// A simulated GPU.
pub(super) struct Sim {
    memory: ptxsim::Memory,
    threads: usize,
    kernels: Mutex<Vec<Arc<Kernel>>>,
    modules: Mutex<HashMap<(&'static str, &'static str), Arc<ptxsim::Module>>>,
    /// Launches so far: each runs its warps in an order of its own.
    launches: AtomicU64,
    events: Mutex<Slab<Instant>>,
    graphs: Mutex<Slab<Arc<[Action]>>>,
    capture: Mutex<Option<Vec<Action>>>,
    staging: Mutex<Vec<Line>>,
}

struct Kernel {
    entry: &'static str,
    code: ptxsim::Kernel,
}

/// Work that can be captured.
#[derive(Clone, Debug)]
enum Action {
    Launch { kernel: KernelHandle, geometry: Geometry, arguments: Vec<u8> },
    Copy { to: u64, from: u64, bytes: usize },
    Fill { to: u64, byte: u8, bytes: usize },
    Undefine { address: u64, bytes: usize },
}

/// Things by number; numbers are not used twice.
struct Slab<T> {
    things: HashMap<u64, T>,
    next: u64,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { things: HashMap::new(), next: 0 }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, thing: T) -> u64 {
        self.next += 1;
        self.things.insert(self.next, thing);
        self.next
    }
}

fn failed(action: &str, message: impl ToString) -> Error {
    Error::Device { device: "sim".into(), action: action.into(), message: message.to_string() }
}

impl Sim {
    /// A simulated GPU whose blocks run on `threads` threads.
    pub fn new(threads: usize) -> Sim {
        Sim {
            memory: ptxsim::Memory::new(),
            threads,
            kernels: Mutex::default(),
            modules: Mutex::default(),
            launches: AtomicU64::new(0),
            events: Mutex::default(),
            graphs: Mutex::default(),
            capture: Mutex::default(),
            staging: Mutex::default(),
        }
    }

    /// Keeps work for the capture that goes on, or does it.
    fn submit(&self, action: Action) -> Result<()> {
        if let Some(actions) = &mut *lock(&self.capture) {
            actions.push(action);
            return Ok(());
        }
        self.perform(&action)
    }

    fn perform(&self, action: &Action) -> Result<()> {
        match *action {
            Action::Launch { kernel, geometry, ref arguments } => self.execute(kernel, geometry, arguments),
            Action::Copy { to, from, bytes } => {
                let mut values = vec![0; bytes];
                self.read(from, &mut values, "copy")?;
                self.memory.write(to, &values).map_err(|e| failed("copy", e))
            }
            Action::Fill { to, byte, bytes } => self.memory.write(to, &vec![byte; bytes]).map_err(|e| failed("fill memory", e)),
            Action::Undefine { address, bytes } => {
                self.memory.undefine(address, bytes as u64).map_err(|e| failed("undefine memory", e))
            }
        }
    }

    fn execute(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()> {
        let Some(kernel) = lock(&self.kernels).get(kernel.0 as usize).cloned() else {
            return Err(failed("launch", format!("{kernel:?} was not loaded")));
        };
        let seed = self.launches.fetch_add(1, Ordering::Relaxed);
        let options = ptxsim::Options { seed, threads: self.threads, counters: false, ..ptxsim::Options::default() };
        let launch = ptxsim::Launch { grid: geometry.grid, block: geometry.block, shared: geometry.shared };
        #[allow(clippy::disallowed_methods)] // called by `Gpu::launch` alone, and for the replay of what it launched
        let report = ptxsim::launch(&kernel.code, &self.memory, &launch, arguments, &options)
            .map_err(|e| Error::launch(kernel.entry, format!("{e} ({geometry})")))?;
        if report.faults.is_empty() {
            return Ok(());
        }
        let faults: Vec<String> = report.faults.iter().take(SHOWN_FAULTS).map(|fault| format!("\n  {fault}")).collect();
        Err(Error::launch(
            kernel.entry,
            format!("{} fault(s) with {geometry}:{}", report.faults.len() as u64 + report.faults_dropped, faults.concat()),
        ))
    }

    /// Reads for the host, which is no more to read what nobody wrote than a kernel is.
    fn read(&self, from: u64, values: &mut [u8], action: &str) -> Result<()> {
        if !self.memory.is_defined(from, values.len() as u64).map_err(|e| failed(action, e))? {
            return Err(failed(action, format!("some of {} bytes at {from:#x} were never written", values.len())));
        }
        self.memory.read(from, values).map_err(|e| failed(action, e))
    }

    /// Calls `work` with the offset and the memory of each piece.
    fn pieces(&self, bytes: usize, mut work: impl FnMut(usize, &mut [u8]) -> Result<()>) -> Result<()> {
        let mut staging = lock(&self.staging);
        let lines = PIECE.min(bytes).div_ceil(size_of::<Line>());
        if staging.len() < lines {
            *staging = bytemuck::zeroed_vec(lines);
        }
        let staging = bytemuck::cast_slice_mut(&mut staging);
        (0..bytes).step_by(PIECE).try_for_each(|offset| work(offset, &mut staging[..PIECE.min(bytes - offset)]))
    }
}

/// The PTX of a file: the one of the folder that the variable `SYNTIC_SIM_PTX` names, so that a kernel can be changed and tried, by a person
/// or by tools/mutate-barriers, without building the program anew; the embedded one if that folder lacks it or there is no such folder.
fn parse(file: &KernelFile) -> std::result::Result<ptxsim::Module, String> {
    match std::env::var_os("SYNTIC_SIM_PTX") {
        Some(folder) => parse_in(Path::new(&folder), file),
        None => ptxsim::Module::parse(file.ptx, &ptx_name(file)).map_err(|e| e.to_string()),
    }
}

/// The PTX of `folder`, or the embedded one. A folder without any of the files is no folder of PTX.
fn parse_in(folder: &Path, file: &KernelFile) -> std::result::Result<ptxsim::Module, String> {
    let path = folder.join(ptx_name(file));
    let problem = match std::fs::read_to_string(&path) {
        Ok(ptx) => return ptxsim::Module::parse(&ptx, &path.to_string_lossy()).map_err(|e| e.to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => e,
        Err(e) => return Err(format!("{}: {e} (SYNTIC_SIM_PTX)", path.display())),
    };
    if kernels::files().iter().any(|file| folder.join(ptx_name(file)).is_file()) {
        return ptxsim::Module::parse(file.ptx, &ptx_name(file)).map_err(|e| e.to_string());
    }
    Err(format!(
        "{}: {problem}, nor has SYNTIC_SIM_PTX the PTX of any other kernel; it is a folder of <family>/<op>.ptx",
        path.display()
    ))
}

fn ptx_name(file: &KernelFile) -> String {
    format!("{}.ptx", file.name)
}

impl Backend for Sim {
    fn name(&self) -> String {
        format!("sim, {} threads", self.threads)
    }

    fn capability(&self) -> Capability {
        CAPABILITY
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(super::survey::host_memory().unwrap_or(MemoryInfo { free: 0, total: 0 }))
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.memory.alloc(bytes as u64))
    }

    fn free(&self, address: u64) {
        self.memory.free(address);
    }

    fn undefine(&self, address: u64, bytes: usize) -> Result<()> {
        self.submit(Action::Undefine { address, bytes })
    }

    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        self.pieces(bytes, |offset, piece| {
            fill(offset, piece);
            self.memory.write(to + offset as u64, piece).map_err(|e| failed("take values from the host", e))
        })
    }

    fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.pieces(bytes, |offset, piece| {
            self.read(from + offset as u64, piece, "give values to the host")?;
            take(offset, piece);
            Ok(())
        })
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.submit(Action::Copy { to, from, bytes })
    }

    fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        self.submit(Action::Fill { to, byte, bytes })
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn cache_bytes(&self) -> usize {
        0
    }

    fn multiprocessors(&self) -> u32 {
        MULTIPROCESSORS
    }

    fn shared_limit(&self) -> u32 {
        SHARED_LIMIT
    }

    fn load(&self, choice: &Choice, _: &Signature) -> Result<KernelHandle> {
        let (file, entry) = (choice.file, choice.entry.name);
        let mut modules = lock(&self.modules);
        let module = match modules.get(&(file.name, file.arch)) {
            Some(module) => module.clone(),
            None => {
                let module = parse(file).map_err(|message| Error::launch(entry, message))?;
                modules.entry((file.name, file.arch)).insert_entry(Arc::new(module)).get().clone()
            }
        };
        let code = module.kernel(entry).map_err(|e| Error::launch(entry, e.to_string()))?;
        let mut kernels = lock(&self.kernels);
        kernels.push(Arc::new(Kernel { entry, code }));
        Ok(KernelHandle(kernels.len() as u64 - 1))
    }

    fn launch(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()> {
        self.submit(Action::Launch { kernel, geometry, arguments: arguments.to_vec() })
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn record(&self) -> Result<EventHandle> {
        Ok(EventHandle(lock(&self.events).insert(Instant::now())))
    }

    fn elapsed(&self, from: EventHandle, to: EventHandle) -> Result<Duration> {
        let events = lock(&self.events);
        match (events.things.get(&from.0), events.things.get(&to.0)) {
            (Some(from), Some(to)) => Ok(to.saturating_duration_since(*from)),
            _ => Err(failed("measure time", format!("{from:?} or {to:?} is not known"))),
        }
    }

    fn drop_event(&self, event: EventHandle) {
        lock(&self.events).things.remove(&event.0);
    }

    fn begin_capture(&self) -> Result<()> {
        match lock(&self.capture).replace(Vec::new()) {
            None => Ok(()),
            Some(_) => Err(failed("capture", "a capture goes on already")),
        }
    }

    fn end_capture(&self) -> Result<GraphHandle> {
        let Some(actions) = lock(&self.capture).take() else { return Err(failed("capture", "no capture was begun")) };
        Ok(GraphHandle(lock(&self.graphs).insert(actions.into())))
    }

    fn replay(&self, graph: GraphHandle) -> Result<()> {
        let Some(actions) = lock(&self.graphs).things.get(&graph.0).cloned() else {
            return Err(failed("replay", format!("{graph:?} is not known")));
        };
        actions.iter().try_for_each(|action| self.submit(action.clone()))
    }

    fn drop_graph(&self, graph: GraphHandle) {
        lock(&self.graphs).things.remove(&graph.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ptx_need_not_have_every_file() {
        let [one, .., other] = kernels::files() else { panic!() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ptx_name(one));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let problem = |file| parse_in(folder.path(), file).map(drop).unwrap_err();
        // A folder of something else, or a name that was mistyped.
        for file in [one, other] {
            assert!(problem(file).contains(file.name) && problem(file).contains("any other kernel"), "{}", problem(file));
        }
        std::fs::write(&path, one.ptx).unwrap();
        for file in [one, other] {
            parse_in(folder.path(), file).unwrap().kernel(file.entries[0].name).unwrap();
        }
        // It is the folder's file that counts.
        std::fs::write(&path, "no PTX").unwrap();
        assert!(problem(one).contains(&*path.to_string_lossy()), "{}", problem(one));
        parse_in(folder.path(), other).unwrap();
    }
}
