//! Counts of known patterns, against counts by hand.
//!
//! `tests/kernels/counters.cu` says at the end of a line what its instructions add up to: `// count: sectors=4 bytes=128`. Each
//! entry runs once, with two buffers; `// launch: grid=4 block=64` above it says how, else one block of 32 threads runs.

mod compiled;
mod nvcc;

use ptxsim::count::{Class, Counts, Site, SiteCounts};
use ptxsim::{Launch, Memory, Options, launch};
use std::fs;

const BUFFER: usize = 32 * 1024;

#[derive(Default)]
struct Entry {
    name: String,
    grid: u32,
    block: u32,
    /// Line, name of a count, its value.
    counts: Vec<(u32, String, u64)>,
}

fn entries() -> Vec<Entry> {
    let text = fs::read_to_string(compiled::source("counters")).unwrap();
    let (mut entries, mut shape) = (Vec::<Entry>::new(), (1, 32));
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(words) = text.strip_prefix("// launch: ") {
            let value = |key: &str| words.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().parse().unwrap();
            shape = (value("grid="), value("block="));
        }
        if let Some((_, after)) = text.split_once("__global__ void ") {
            let (grid, block) = std::mem::replace(&mut shape, (1, 32));
            entries.push(Entry { name: after.split('(').next().unwrap().to_owned(), grid, block, counts: Vec::new() });
        }
        for word in text.split_once("// count: ").into_iter().flat_map(|(_, words)| words.split_whitespace()) {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("counters.cu:{line}: cannot read `{word}`"));
            entries.last_mut().unwrap().counts.push((line, name.to_owned(), value.parse().unwrap()));
        }
    }
    entries
}

/// One count of one instruction. Address arithmetic that shares a line with an access counts nothing.
fn count(name: &str, site: &Site, counts: &SiteCounts) -> u64 {
    let arithmetic = matches!(site.class, Class::Float | Class::Half | Class::Tensor);
    let access = matches!(site.class, Class::Global | Class::Shared | Class::Atomic);
    match name {
        "flops" if arithmetic => site.flops * counts.warps,
        "lanes" if access => counts.lanes,
        "bytes" if access => counts.bytes,
        "sectors" => counts.sectors,
        "wavefronts" => counts.wavefronts,
        "ideal" => counts.ideal_wavefronts,
        "flops" | "lanes" | "bytes" => 0,
        _ => panic!("no count is named {name}"),
    }
}

/// Runs an entry: its instructions and what was counted.
fn run(entry: &Entry) -> (Vec<Site>, Counts) {
    let kernel = compiled::module("counters").kernel(&entry.name).unwrap();
    let memory = Memory::new();
    let buffer = |_| {
        let address = memory.alloc(BUFFER as u64);
        memory.write(address, &[0; BUFFER]).unwrap();
        address.to_le_bytes()
    };
    let parameters: Vec<u8> = (0..2).flat_map(buffer).collect();
    let shape = Launch { grid: [entry.grid, 1, 1], block: [entry.block, 1, 1], shared: 0 };
    let report = launch(&kernel, &memory, &shape, &parameters, &Options::default()).unwrap();
    assert!(report.faults.is_empty(), "{}: {}", entry.name, report.faults[0]);
    (kernel.sites().to_vec(), report.counts)
}

fn run_named(name: &str) -> (Vec<Site>, Counts) {
    run(&entries().into_iter().find(|entry| entry.name == name).unwrap())
}

#[test]
fn counts_agree_with_those_by_hand() {
    let mut wrong = String::new();
    let entries = entries();
    assert!(entries.iter().all(|entry| !entry.counts.is_empty()));
    for entry in &entries {
        let (sites, counts) = run(entry);
        assert_eq!(sites.len(), counts.sites.len());
        for (line, name, expected) in &entry.counts {
            let here = |site: &Site| site.source.as_ref().is_some_and(|(file, at)| file.ends_with("counters.cu") && at == line);
            let sum: u64 =
                sites.iter().zip(&counts.sites).filter(|(site, _)| here(site)).map(|(site, n)| count(name, site, n)).sum();
            if sum != *expected {
                wrong += &format!("{} (line {line}): {name} is {sum}, not {expected}\n", entry.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What a launch as a whole counts: sectors that several blocks read are fetched once.
#[test]
fn totals_of_a_launch() {
    let (_, counts) = run_named("read_by_every_block");
    assert_eq!((counts.unique_read, counts.unique_written), (256, 1024));
    assert_eq!((counts.blocks, counts.block_threads, counts.shared_bytes), (4, 64, 0));
    let (_, counts) = run_named("shared_stride_33");
    assert_eq!((counts.blocks, counts.block_threads, counts.shared_bytes), (1, 32, 32 * 33 * 4));
    assert_eq!((counts.unique_read, counts.unique_written), (0, 128));
}

/// Every instruction is issued once by each warp in straight code, and its class says what it is.
#[test]
fn issues_and_classes() {
    let (sites, counts) = run_named("tensor_f16");
    let issued =
        |class: Class| sites.iter().zip(&counts.sites).filter(|(site, _)| site.class == class).map(|(_, n)| n.warps).sum::<u64>();
    assert_eq!((issued(Class::Tensor), issued(Class::Global), issued(Class::Shared)), (1, 7, 0));
    let tensor = sites.iter().find(|site| site.class == Class::Tensor).unwrap();
    assert_eq!((tensor.flops, tensor.tensor_type), (4096, "f16"));
    assert!(tensor.text.contains("mma.sync.aligned.m16n8k16"), "{}", tensor.text);
}
