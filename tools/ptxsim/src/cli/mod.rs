//! The command line: flags to a launch, a report to lines.

mod arguments;

use arguments::{Argument, Parameters};
use clap::{Args, Parser, Subcommand};
use ptxsim::count::chip::{CHIPS, Chip};
use ptxsim::count::profile;
use ptxsim::{Kernel, Launch, Memory, Module, Options, Report};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
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
    let arguments = flags.arguments.iter().map(|spec| Argument::parse(spec)).collect::<Result<Vec<_>, _>>()?;
    let dumps = flags.dump.iter().map(|spec| dump(spec, &arguments)).collect::<Result<Vec<_>, _>>()?;
    let kernel = kernel(&flags.file, &flags.entry)?;
    let memory = Memory::new();
    let parameters = Parameters::place(&kernel, &arguments, &memory, flags.seed)?;
    let launch = Launch { grid: flags.grid, block: flags.block, shared: flags.shared };
    let options = Options { seed: flags.seed, threads: flags.threads.into(), counters: flags.profile, ..Options::default() };
    let report = ptxsim::launch(&kernel, &memory, &launch, &parameters.block, &options).map_err(|error| error.to_string())?;
    tell(flags, &kernel, &report).map_err(|error| format!("cannot write the report: {error}"))?;
    for (index, file) in dumps {
        let (address, bytes) = parameters.buffers[index].unwrap_or_default();
        let mut out = vec![0; bytes as usize];
        memory.read(address, &mut out).map_err(|error| error.to_string())?;
        std::fs::write(&file, out).map_err(|error| format!("--dump {index}: {}: {error}", file.display()))?;
    }
    Ok(report.faults.is_empty())
}

fn kernel(file: &Path, entry: &str) -> Result<Kernel, String> {
    let path = file.display().to_string();
    let source = std::fs::read(file).map_err(|error| format!("{path}: {error}"))?;
    let source =
        String::from_utf8(source).map_err(|_| format!("{path}: not text; it takes PTX, as `nvcc -ptx -lineinfo` writes it"))?;
    Module::parse(&source, &path).and_then(|module| module.kernel(entry)).map_err(|error| error.to_string())
}

/// Faults to stderr, all else to stdout. A reader that has heard enough and closes its end is no error.
fn tell(flags: &Flags, kernel: &Kernel, report: &Report) -> io::Result<()> {
    let heard = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    };
    let mut text = String::new();
    if flags.profile {
        let chips: Vec<&Chip> = flags.chip.map_or_else(|| CHIPS.iter().collect(), |chip| vec![chip]);
        text = profile::report(kernel.name(), kernel.sites(), &report.counts, &chips);
    }
    if report.faults_dropped > 0 {
        text += &format!("{} faults on other lines are not listed\n", report.faults_dropped);
    }
    heard(io::stdout().lock().write_all(text.as_bytes()))?;
    let mut stderr = io::stderr().lock();
    heard(report.faults.iter().try_for_each(|fault| writeln!(stderr, "{}", fault.to_json())))
}

fn dump(spec: &str, arguments: &[Argument]) -> Result<(usize, PathBuf), String> {
    let takes = "it takes I:FILE, where I is the number of an argument, from 0";
    let (index, file) = spec.split_once(':').filter(|(_, file)| !file.is_empty()).ok_or(format!("--dump {spec}: {takes}"))?;
    let index: usize = index.parse().map_err(|_| format!("--dump {spec}: {takes}"))?;
    match arguments.get(index) {
        Some(argument) if argument.is_buffer() => Ok((index, file.into())),
        Some(_) => Err(format!("--dump {spec}: argument {index} is not a buffer; {takes}")),
        None => Err(format!("--dump {spec}: there are {} arguments; {takes}", arguments.len())),
    }
}
