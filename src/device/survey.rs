//! What this machine has, and what syntic will use of it.

use super::backend::{Capability, MemoryInfo};
use super::cpu::Isa;
use super::{DeviceChoice, cuda, kernels};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// A card that the driver shows.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// Its number, for `--device cuda:N`.
    pub index: usize,
    /// "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// What it can execute.
    #[serde(serialize_with = "as_text")]
    pub capability: Capability,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Its memory, in bytes.
    pub memory: u64,
    /// The architecture of the embedded kernels that it runs; none if there are none for it.
    pub kernels: Option<&'static str>,
}

fn as_text<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The processor and the memory of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// "AMD EPYC 9654 96-Core Processor", where the system tells.
    pub model: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Vector instructions that are used.
    pub isa: &'static str,
    /// Types of operands that the CPU computes in.
    pub dtypes: Vec<&'static str>,
    /// Memory in bytes, where the system tells.
    pub memory: Option<MemoryInfo>,
}

/// The NVIDIA driver and its cards.
#[derive(Clone, Debug, Serialize)]
pub struct CudaState {
    /// Where the driver's library lies, if the system tells.
    pub library: Option<String>,
    /// Version of the driver, if the system tells.
    pub driver: Option<String>,
    /// Latest CUDA that it supports.
    pub cuda: Option<String>,
    /// The cards.
    pub cards: Vec<Card>,
    /// Why no card can be used, if none can.
    pub problem: Option<String>,
}

/// The kernels in this program.
#[derive(Clone, Debug, Serialize)]
pub struct KernelState {
    /// Number of kernels, by architecture.
    pub embedded: BTreeMap<&'static str, usize>,
    /// Why there are none.
    pub missing: Option<&'static str>,
}

/// What `--device auto` is here.
#[derive(Clone, Debug, Serialize)]
pub struct Use {
    /// "cpu", "cuda:0".
    pub device: String,
    /// Why it is no GPU.
    pub because: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// Version of syntic.
    pub version: &'static str,
    /// What is used.
    #[serde(rename = "use")]
    pub used: Use,
    /// This machine.
    pub host: Host,
    /// Its cards.
    pub cuda: CudaState,
    /// What they would run.
    pub kernels: KernelState,
}

impl Survey {
    /// Looks. Fails at nothing: what is not there is said to be missing.
    pub fn new() -> Survey {
        let (choice, because) = DeviceChoice::Auto.resolve();
        Survey {
            version: crate::VERSION,
            used: Use { device: choice.to_string(), because },
            host: host(),
            cuda: cuda_state(),
            kernels: kernel_state(),
        }
    }
}

impl Default for Survey {
    fn default() -> Survey {
        Survey::new()
    }
}

fn host() -> Host {
    let isa = Isa::detect();
    let dtypes = if isa == Isa::Avx512Bf16 { vec!["f32", "bf16"] } else { vec!["f32"] };
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Host {
        model: model.map(|(_, name)| name.trim().to_string()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        isa: isa.name(),
        dtypes,
        memory: host_memory(),
    }
}

/// Memory of this machine, where the system tells.
pub(super) fn host_memory() -> Option<MemoryInfo> {
    memory_from(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_from(text: &str) -> Option<MemoryInfo> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(MemoryInfo { free: field("MemAvailable")?, total: field("MemTotal")? })
}

fn cuda_state() -> CudaState {
    let none = |problem| CudaState { library: None, driver: None, cuda: None, cards: Vec::new(), problem: Some(problem) };
    match (cuda::driver(), cuda::cards()) {
        (Err(error), _) => none(match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        }),
        (Ok(driver), cards) => {
            let (cards, problem) = match cards {
                Ok(cards) => (cards, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            let (library, cuda) = (driver.library.clone(), Some(driver.cuda.clone()));
            CudaState { library, driver: driver.version.clone(), cuda, cards, problem }
        }
    }
}

fn kernel_state() -> KernelState {
    let mut embedded = BTreeMap::new();
    for file in kernels::files() {
        *embedded.entry(file.arch).or_insert(0) += file.entries.len();
    }
    KernelState { embedded, missing: kernels::missing() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        let text = "MemTotal:       24 kB\nMemFree:         5 kB\nMemAvailable:   16 kB\n";
        assert_eq!(memory_from(text), Some(MemoryInfo { free: 16 << 10, total: 24 << 10 }));
        assert_eq!(memory_from("MemTotal: 24 kB\n"), None);
        assert_eq!(memory_from("MemTotal: x kB\nMemAvailable: 16 kB\n"), None);
    }

    #[test]
    fn surveys_say_what_is_used_and_why() {
        let survey = Survey::new();
        assert!(survey.host.cores > 0 && !survey.host.dtypes.is_empty());
        assert_eq!(survey.used.because.is_none(), survey.used.device.starts_with("cuda"), "{:?}", survey.used);
        assert_eq!(survey.cuda.problem.is_some(), survey.cuda.cards.is_empty());
        assert_eq!(survey.kernels.missing.is_some(), survey.kernels.embedded.is_empty());
        let json = serde_json::to_value(&survey).unwrap();
        assert!(json["use"]["device"].is_string() && json["host"]["cores"].is_u64(), "{json}");
    }
}
