//! `syntic doctor`: what this machine has, and what syntic will use.

use super::print;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use syntic::device::{Card, CudaState, Host, KernelState, Survey};
use syntic::weights::{Cache, PackedFolder, caches, packed_weights};
use syntic::{Error, Result};

/// Flags of `syntic doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Findings {
    #[serde(flatten)]
    machine: Survey,
    caches: Vec<Cache>,
    packed: PackedFolder,
}

/// Runs the command. What is missing is a finding, not an error.
pub fn run(args: Args) -> Result<()> {
    let findings = Findings { machine: Survey::new(), caches: caches(), packed: packed_weights() };
    if args.json {
        let json = serde_json::to_string(&findings).map_err(|e| Error::Internal { op: "doctor", message: e.to_string() })?;
        print(json);
        return Ok(());
    }
    let Findings { machine, caches, packed } = findings;
    line("syntic", machine.version);
    let reason = machine.used.because.map(|reason| format!(" ({reason})")).unwrap_or_default();
    line("will use", format_args!("{}{reason}", machine.used.device));
    show_host(&machine.host);
    show_cuda(&machine.cuda);
    show_kernels(&machine.kernels);
    caches.iter().for_each(show_cache);
    show_packed(&packed);
    Ok(())
}

fn line(name: &str, text: impl fmt::Display) {
    print(format_args!("{name:>10}  {text}"));
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

fn show_host(host: &Host) {
    let model = host.model.as_deref().unwrap_or("a CPU");
    line("cpu", format_args!("{model}, {} cores, {}, {}", host.cores, host.isa, host.dtypes.join(" and ")));
    if let Some(memory) = host.memory {
        line("memory", format_args!("{}, {} free", gib(memory.total), gib(memory.free)));
    }
}

fn show_cuda(cuda: &CudaState) {
    if let Some(latest) = &cuda.cuda {
        let version = cuda.driver.as_ref().map(|version| format!("driver {version}, ")).unwrap_or_default();
        let library = cuda.library.as_ref().map(|path| format!(", {path}")).unwrap_or_default();
        line("cuda", format_args!("{version}up to CUDA {latest}{library}"));
    }
    if let Some(problem) = &cuda.problem {
        line("cuda", problem);
    }
    for Card { index, name, capability, multiprocessors, memory, kernels } in &cuda.cards {
        let kernels = kernels.map_or("no kernels for it".into(), |arch| format!("runs the kernels for {arch}"));
        let memory = gib(*memory);
        line(&format!("cuda:{index}"), format_args!("{name}, {capability}, {multiprocessors} SMs, {memory}, {kernels}"));
    }
}

fn show_kernels(kernels: &KernelState) {
    if let Some(reason) = kernels.missing {
        return line("kernels", reason);
    }
    let embedded: Vec<String> = kernels.embedded.iter().map(|(arch, count)| format!("{count} for {arch}")).collect();
    line("kernels", embedded.join(", "));
}

fn show_cache(cache: &Cache) {
    let folder = cache.folder.as_ref().map_or("no folder for it".into(), |folder| folder.display().to_string());
    let models = if cache.models.is_empty() { "nothing there".into() } else { cache.models.join(", ") };
    line("models", format_args!("{}: {models} ({folder})", cache.name));
}

fn show_packed(packed: &PackedFolder) {
    let files = |folder| format!("{} files, {} ({})", packed.files, gib(packed.bytes), Path::display(folder));
    line("packed", packed.folder.as_deref().map_or_else(|| "weights are not kept".into(), files));
}
