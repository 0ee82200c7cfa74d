//! What this machine has and what syntic will use of it.

use super::backend::{Capability, MemoryInfo};

/// A card that the driver shows.
#[derive(Clone, Debug)]
pub struct Card {
    /// Its number, for `--device cuda:N`.
    pub index: usize,
    /// "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// What it can execute.
    pub capability: Capability,
    /// Its memory.
    pub memory: MemoryInfo,
    /// The architecture of the kernels that it would run, if there are any.
    pub kernels: Option<String>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Survey {}

/// Memory of this machine.
pub(super) fn host_memory() -> Option<MemoryInfo> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(MemoryInfo { free: field("MemAvailable")?, total: field("MemTotal")? })
}
