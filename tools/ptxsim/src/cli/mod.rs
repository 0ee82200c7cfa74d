//! The command line: flags to a launch, a report to lines.

mod arguments;

use arguments::{Argument, Parameters};
use clap::{Args, Parser, Subcommand};
use ptxsim::count::chip::{CHIPS, Chip};
use ptxsim::count::profile;
use ptxsim::{Launch, Memory, Module, Options};
use std::path::PathBuf;

/// Runs CUDA kernels from their PTX on a CPU, and is stricter than hardware.
#[derive(Parser)]
#[command(name = "ptxsim", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run one entry of a PTX file. Exit code 0: ran clean; 4: faults found, one JSON object a line on stderr; 2: bad usage or PTX.
    Run(Flags),
}

#[derive(Args)]
pub struct Flags {
    /// PTX file, as `nvcc -ptx -lineinfo` writes it.
    file: PathBuf,
    /// Entry to run.
    #[arg(long, value_name = "NAME")]
    entry: String,
    /// Blocks of the grid: X[,Y[,Z]].
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = extents)]
    grid: [u32; 3],
    /// Threads of a block: X[,Y[,Z]].
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = extents)]
    block: [u32; 3],
    /// Dynamic shared memory of a block.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    shared: u32,
    /// Seed of the order of warps and of random buffers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Cores to use; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Chip of the profile; all of them by default.
    #[arg(long, value_name = "a100|rtx4090|h100|h200", value_parser = chip)]
    chip: Option<&'static Chip>,
    /// Print what the launch did and the time below which it cannot run.
    #[arg(long)]
    profile: bool,
    /// An argument, in parameter order: buf:TYPE:COUNT:rand|zero|iota|undef|FILE, or a scalar such as u32:5, i32:-1, u64:7, f32:0.5.
    /// TYPE is f16, bf16, f32, f64, i8, u8, i32, u32, i64 or u64. Several scalars in a row fill a struct.
    #[arg(long = "arg", value_name = "SPEC", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Write the raw bytes of argument I (from 0), which must be a buffer, to a file after the run.
    #[arg(long, value_name = "I:FILE")]
    dump: Vec<String>,
}

fn extents(text: &str) -> Result<[u32; 3], String> {
    let mut out = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("at most three extents".into());
    }
    for (out, part) in out.iter_mut().zip(parts) {
        *out = part.trim().parse().map_err(|_| format!("`{part}` is not a number"))?;
    }
    Ok(out)
}

fn chip(name: &str) -> Result<&'static Chip, String> {
    Chip::by_name(name).ok_or_else(|| {
        let all: Vec<&str> = CHIPS.iter().map(|chip| chip.name).collect();
        format!("there is {}", all.join(", "))
    })
}

/// Runs the launch. False if there were faults.
///
/// # Errors
/// What is wrong with the flags, the file or the PTX.
pub fn run(flags: &Flags) -> Result<bool, String> {
    let path = flags.file.display().to_string();
    let source = std::fs::read(&flags.file).map_err(|error| format!("{path}: {error}"))?;
    let source = String::from_utf8(source).map_err(|_| format!("{path}: not text"))?;
    let kernel =
        Module::parse(&source, &path).and_then(|module| module.kernel(&flags.entry)).map_err(|error| error.to_string())?;
    let arguments = flags.arguments.iter().map(|spec| Argument::parse(spec)).collect::<Result<Vec<_>, _>>()?;
    let dumps = flags.dump.iter().map(|spec| dump(spec, arguments.len())).collect::<Result<Vec<_>, _>>()?;
    let memory = Memory::new();
    let parameters = Parameters::place(&kernel, &arguments, &memory, flags.seed)?;
    let launch = Launch { grid: flags.grid, block: flags.block, shared: flags.shared };
    let options = Options { seed: flags.seed, threads: flags.threads, counters: flags.profile, ..Options::default() };
    let report = ptxsim::launch(&kernel, &memory, &launch, &parameters.block, &options).map_err(|error| error.to_string())?;
    for (index, file) in dumps {
        let Some((address, bytes)) = parameters.buffers[index] else {
            return Err(format!("--dump {index}: argument {index} is not a buffer"));
        };
        let mut out = vec![0; bytes as usize];
        memory.read(address, &mut out).map_err(|error| error.to_string())?;
        std::fs::write(&file, out).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if flags.profile {
        let chips: Vec<&Chip> = flags.chip.map_or_else(|| CHIPS.iter().collect(), |chip| vec![chip]);
        print!("{}", profile::report(kernel.name(), kernel.sites(), &report.counts, &chips));
    }
    for fault in &report.faults {
        eprintln!("{}", fault.to_json());
    }
    Ok(report.faults.is_empty())
}

fn dump(spec: &str, arguments: usize) -> Result<(usize, PathBuf), String> {
    let bad = || format!("--dump {spec}: it takes I:FILE, where I is the number of an argument from 0");
    let (index, file) = spec.split_once(':').ok_or_else(bad)?;
    let index: usize = index.parse().map_err(|_| bad())?;
    if index >= arguments || file.is_empty() {
        return Err(format!("--dump {spec}: there are {arguments} arguments, counted from 0"));
    }
    Ok((index, file.into()))
}
