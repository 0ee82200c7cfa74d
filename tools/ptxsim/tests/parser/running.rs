//! Runs kernels that were broken and can still be decoded. A launch has no limit on its instructions, so what may go round for ever runs
//! in a process of its own, which is ended after a while.

use crate::corpus::pieces;
use crate::examine::{Entries, examine};
use crate::mutate::{Random, mutate};
use ptxsim::{Error, Kernel, Launch, Memory, Module, Options, launch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// After this a kernel is taken to go round for ever, which broken loops may.
const PATIENCE: Duration = Duration::from_secs(2);

/// A buffer of numbers, and a parameter block that is full of its address.
fn parameters(kernel: &Kernel, memory: &Memory) -> Vec<u8> {
    let data = memory.alloc(4096);
    let bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    memory.write(data, &bytes).unwrap();
    let size = kernel.parameters().last().map_or(0, |last| last.offset + last.bytes);
    data.to_le_bytes().into_iter().cycle().take(size as usize).collect()
}

/// Runs a kernel in which one instruction, of a file that has no way back, was broken. Whether there was one to run.
///
/// # Errors
/// If it panics.
pub fn in_process(broken: &str, outcome: Result<Entries, Error>) -> Result<bool, String> {
    let back = ["bra", "brx", "call"].iter().any(|word| broken.contains(word));
    let Some(Ok(kernel)) = outcome.ok().and_then(|mut entries| entries.pop()) else { return Ok(false) };
    if back {
        return Ok(false);
    }
    let run = || {
        let memory = Memory::new();
        let geometry = Launch { grid: [1, 1, 1], block: [48, 1, 1], shared: 0 };
        launch(&kernel, &memory, &geometry, &parameters(&kernel, &memory), &Options { threads: 1, ..Options::default() })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        // More shared memory than there is, and the like, is refused.
        Ok(Ok(_) | Err(Error::Launch { .. })) => Ok(true),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("panicked while it ran".to_owned()),
    }
}

/// What a file's entry leaves 2,048 bytes into the buffer.
pub fn result(source: &str) -> u64 {
    let kernel = Module::parse(source, "m").and_then(|module| module.kernel("all")).unwrap();
    let memory = Memory::new();
    let parameters = parameters(&kernel, &memory);
    let geometry = Launch { grid: [1, 1, 1], block: [1, 1, 1], shared: 0 };
    launch(&kernel, &memory, &geometry, &parameters, &Options::default()).unwrap();
    let mut word = [0; 8];
    memory.read(u64::from_le_bytes(parameters[..8].try_into().unwrap()) + 2048, &mut word).unwrap();
    u64::from_le_bytes(word)
}

/// Arguments for any kernel: a buffer for what has the size of a pointer, small numbers for the rest.
fn arguments(kernel: &Kernel) -> Vec<&'static str> {
    let each = kernel.parameters().iter().flat_map(|parameter| match (parameter.bytes, parameter.align) {
        (8, 8) => vec!["buf:f32:4096:rand"],
        (bytes, 4..) if bytes % 4 == 0 => vec!["u32:64"; bytes as usize / 4],
        (bytes, _) => vec!["u8:1"; bytes as usize],
    });
    each.collect()
}

/// Runs `cases` broken kernels with the command.
pub fn in_children(cases: u64, seed: u64) {
    let pieces = pieces();
    let mut random = Random(seed);
    let (mut done, mut ended, mut wrong) = (0, 0, Vec::new());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("running-{seed}.ptx"));
    while done < cases {
        let (piece, other) = (&pieces[random.below(pieces.len())], &pieces[random.below(pieces.len())]);
        let broken = mutate(&piece.text, &other.text, &mut random);
        let kernels = examine(&broken).unwrap_or_else(|wrong| panic!("{}: {wrong}", piece.name));
        let Some(kernel) = kernels.ok().and_then(|entries| entries.into_iter().find_map(Result::ok)) else { continue };
        done += 1;
        std::fs::write(&file, &broken).unwrap();
        match run(&file, &kernel, &random.next().to_string()) {
            Some(Some(0 | 2 | 4)) => ended += 1,
            Some(code) => {
                let kept = file.with_file_name(format!("running-{seed}-{done}.ptx"));
                std::fs::copy(&file, &kept).unwrap();
                wrong.push(format!("{}: exit code {code:?} ({})", piece.name, kept.display()));
            }
            None => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ended > cases / 2, "{ended} of {cases} came to an end");
}

/// The exit code of the command on a kernel; none if it was ended.
fn run(file: &Path, kernel: &Kernel, seed: &str) -> Option<Option<i32>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptxsim"));
    command.arg("run").arg(file).args(["--entry", kernel.name(), "--grid", "2", "--block", "64", "--shared", "4096"]);
    command.args(["--seed", seed, "--threads", "1"]);
    for argument in arguments(kernel) {
        command.args(["--arg", argument]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait(child)
}

fn wait(mut child: Child) -> Option<Option<i32>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.code());
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
