//! Broken kernels that must be reported, and clean ones that must not.
//!
//! The files `tests/kernels/*.cu` describe themselves. Above an entry stands how it is run, in the words of `ptxsim run`:
//! ```text
//! // run: grid=4 block=128 shared=512 args=buf:f32:512:undef,buf:f32:512:rand,u32:512
//! ```
//! A broken entry also names its clean counterpart (`twin=NAME`) and marks its faulty lines, up to the next `// run:`, with
//! comments `// fault: ITEM, ITEM...`. An ITEM is `[also] KIND [a] [b]`. Every report of a broken entry must lie on a line marked
//! with its kind, and at least one on a line marked without `also` (which stands for what may be reported besides). The two sides
//! of a race, or an access and the copy it should have waited for, must lie on one line marked `a` and one marked `b`, which can
//! be the same.
//! An entry without marks is clean: nothing may be reported.

mod compiled;

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const KINDS: [&str; 8] = [
    "out-of-bounds",
    "misaligned",
    "uninitialised",
    "shared-race",
    "global-race",
    "unwaited-copy",
    "divergent-barrier",
    "deadlock",
];
/// A run of an entry takes milliseconds; one that is not back by then is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a line may be reported for.
#[derive(Debug)]
struct Mark {
    line: u64,
    kind: String,
    /// It may be reported, besides another fault that must be.
    also: bool,
    /// Which sides of a pair the line is: some of "ab", or nothing.
    sides: String,
}

#[derive(Debug)]
struct Entry {
    name: String,
    grid: String,
    block: String,
    shared: Option<String>,
    args: Vec<String>,
    twin: Option<String>,
    marks: Vec<Mark>,
}

/// The entries of `tests/kernels/FILE.cu`.
fn entries(file: &str) -> Vec<Entry> {
    let path = compiled::source(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut entries: Vec<Entry> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(run) = text.strip_prefix("// run: ") {
            entries.push(entry(run).unwrap_or_else(|word| panic!("{file}.cu:{line}: cannot read `{word}`")));
        }
        let Some(entry) = entries.last_mut() else { continue };
        if let Some((_, after)) = text.split_once("__global__ void ") {
            assert!(entry.name.is_empty(), "{file}.cu:{line}: no `// run:` above this entry");
            entry.name = after.split('(').next().unwrap_or_default().to_owned();
        }
        if let Some((_, items)) = text.split_once("// fault: ") {
            let marks = items.split(", ").map(|item| mark(line, item));
            entry.marks.extend(marks.map(|mark| mark.unwrap_or_else(|word| panic!("{file}.cu:{line}: cannot read `{word}`"))));
        }
    }
    assert!(entries.iter().all(|entry| !entry.name.is_empty()), "{file}.cu: a `// run:` without an entry below it");
    entries
}

fn entry(run: &str) -> Result<Entry, String> {
    let mut entry = Entry {
        name: String::new(),
        grid: String::new(),
        block: String::new(),
        shared: None,
        args: Vec::new(),
        twin: None,
        marks: Vec::new(),
    };
    for word in run.split_whitespace() {
        match word.split_once('=').ok_or(word)? {
            ("grid", value) => entry.grid = value.to_owned(),
            ("block", value) => entry.block = value.to_owned(),
            ("shared", value) => entry.shared = Some(value.to_owned()),
            ("args", value) => entry.args = value.split(',').map(str::to_owned).collect(),
            ("twin", value) => entry.twin = Some(value.to_owned()),
            _ => return Err(word.to_owned()),
        }
    }
    if entry.grid.is_empty() || entry.block.is_empty() { Err(run.to_owned()) } else { Ok(entry) }
}

fn mark(line: u64, item: &str) -> Result<Mark, String> {
    let (also, words) = match item.strip_prefix("also ") {
        Some(words) => (true, words),
        None => (false, item),
    };
    let mut words = words.split_whitespace();
    let kind = words.next().filter(|kind| KINDS.contains(kind)).ok_or(item)?.to_owned();
    let sides: String = words.collect();
    if sides.chars().all(|side| "ab".contains(side)) { Ok(Mark { line, kind, also, sides }) } else { Err(item.to_owned()) }
}

/// Runs one entry with one seed.
///
/// # Errors
/// What is wrong with the outcome, and all that was reported.
fn run(file: &str, ptx: &Path, entry: &Entry, seed: u32) -> Result<(), String> {
    let log = ptx.with_file_name(format!("{file}.{}.{seed}.log", entry.name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptxsim"));
    command.arg("run").arg(ptx).args(["--entry", &entry.name, "--grid", &entry.grid, "--block", &entry.block]);
    command.args(["--seed", &seed.to_string()]);
    if let Some(shared) = &entry.shared {
        command.args(["--shared", shared]);
    }
    for arg in &entry.args {
        command.args(["--arg", arg]);
    }
    let code = exit_code(&mut command, &log)?;
    let reports = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    fs::remove_file(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let wanted = if entry.marks.is_empty() { 0 } else { 4 };
    if code != Some(wanted) {
        return Err(format!("exit code {code:?}, not {wanted}:\n{reports}"));
    }
    judge(file, entry, &reports).map_err(|wrong| format!("{wrong}:\n{reports}"))
}

/// The exit code of `command`, whose stderr goes to the file `log`.
fn exit_code(command: &mut Command, log: &Path) -> Result<Option<i32>, String> {
    let stderr = fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().map_err(|error| error.to_string())?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.code());
        }
        if start.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
            return Err(format!("not back after {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Compares what was reported with the marks.
fn judge(file: &str, entry: &Entry, reports: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut expected = entry.marks.is_empty();
    for (number, text) in (1..).zip(reports.lines()) {
        let report: Value = serde_json::from_str(text).map_err(|error| format!("report {number} is not JSON: {error}"))?;
        let report = report.as_object().ok_or_else(|| format!("report {number} is not an object"))?;
        let mark = judge_one(file, entry, report).map_err(|wrong| format!("report {number}: {wrong}"))?;
        expected |= !mark.also;
        let place = |side: &Map<String, Value>| side.get("ptx_line").and_then(Value::as_u64);
        let other = report["other"].as_object().and_then(place);
        let pair = (place(report).min(other), place(report).max(other));
        if !seen.insert((mark.kind.clone(), pair)) {
            return Err(format!("report {number} says again what another has said"));
        }
    }
    if expected { Ok(()) } else { Err("nothing that must be reported is".to_owned()) }
}

/// The mark that one report is for.
fn judge_one<'a>(file: &str, entry: &'a Entry, report: &Map<String, Value>) -> Result<&'a Mark, String> {
    let text = |key: &str| report.get(key).and_then(Value::as_str).ok_or(format!("no string `{key}`"));
    let kind = text("kind")?;
    if text("kernel")? != entry.name {
        return Err("the wrong kernel".to_owned());
    }
    if text("message")?.len() < 10 {
        return Err("no message".to_owned());
    }
    let address = text("address")?;
    if address.strip_prefix("0x").is_none_or(|digits| u64::from_str_radix(digits, 16).is_err()) {
        return Err(format!("address `{address}` is not hexadecimal"));
    }
    let line = line(file, entry, report)?;
    let other = report.get("other").and_then(Value::as_object).ok_or("no object `other`")?;
    if kind.ends_with("-race") && other.is_empty() {
        return Err("a race without its other side".to_owned());
    }
    let marks = |line: u64| entry.marks.iter().filter(move |mark| mark.kind == kind && mark.line == line);
    if other.is_empty() || !marks(line).any(|mark| !mark.sides.is_empty()) {
        return marks(line).next().ok_or(format!("line {line} is not marked {kind}"));
    }
    let other = self::line(file, entry, other).map_err(|wrong| format!("other: {wrong}"))?;
    for (near, far) in marks(line).flat_map(|near| marks(other).map(move |far| (near, far))) {
        let opposite = |one: char, two: char| near.sides.contains(one) && far.sides.contains(two);
        if opposite('a', 'b') || opposite('b', 'a') {
            return Ok(near);
        }
    }
    Err(format!("lines {line} and {other} are not marked as the two sides of a {kind}"))
}

/// The line of the suite's file that an access stands on: where a function of a header was inlined, if the access is in one.
fn line(file: &str, entry: &Entry, place: &Map<String, Value>) -> Result<u64, String> {
    let number = |of: &Map<String, Value>, key: &str| of.get(key).and_then(Value::as_u64).ok_or(format!("no number `{key}`"));
    if number(place, "ptx_line")? == 0 {
        return Err("no line of the PTX".to_owned());
    }
    let axis = |of: &str| of.split(',').map(|part| part.parse::<u64>().unwrap_or(1)).chain([1, 1]).take(3).collect::<Vec<_>>();
    let grid = axis(&entry.grid);
    let block: Vec<u64> = place.get("block").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect();
    if block.len() != 3 || block.iter().zip(&grid).any(|(block, grid)| block >= grid) {
        return Err(format!("block {block:?} is not in the grid {grid:?}"));
    }
    let threads: u64 = axis(&entry.block).iter().product();
    if number(place, "warp")? * 32 + number(place, "lane")? >= threads || number(place, "lane")? >= 32 {
        return Err(format!("no such warp and lane in {threads} threads"));
    }
    let here =
        |of: &Map<String, Value>| of.get("file").and_then(Value::as_str).is_some_and(|at| at.ends_with(&format!("{file}.cu")));
    match place.get("inlined_at").and_then(Value::as_object) {
        _ if here(place) => number(place, "line"),
        Some(user) if here(user) => number(user, "line"),
        _ => Err(format!("not in {file}.cu")),
    }
}

/// Runs all entries of a file with some seeds.
fn check(file: &str, seeds: Range<u32>) {
    let ptx = compiled::ptx(file);
    let mut wrong = Vec::new();
    for entry in entries(file) {
        // The first wrong seed is enough to see what is wrong.
        let failure = seeds.clone().find_map(|seed| run(file, &ptx, &entry, seed).err().map(|error| (seed, error)));
        if let Some((seed, error)) = failure {
            wrong.push(format!("{file}.cu, {} with seed {seed}: {error}", entry.name));
        }
    }
    assert!(wrong.is_empty(), "{} entries are not judged right:\n\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! files {
    ($($file:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($file)),*];
        mod few_seeds {
            $(#[test] fn $file() { super::check(stringify!($file), 0..8); })*
        }
        mod many_seeds {
            $(#[test] #[ignore = "takes minutes"] fn $file() { super::check(stringify!($file), 8..200); })*
        }
    };
}

files!(
    alignment,
    async_copies,
    barrier_counts,
    barriers,
    bounds,
    deadlocks,
    divergence,
    endless_loops,
    exits,
    global_races,
    hand_overs,
    idioms,
    named_barriers,
    pipelines,
    uninitialised,
    warp,
);

#[test]
fn every_broken_entry_has_a_clean_twin() {
    let (mut broken, mut clean, mut kinds) = (0, 0, BTreeSet::new());
    for file in FILES {
        let entries = entries(file);
        let names: BTreeSet<_> = entries.iter().map(|entry| &entry.name).collect();
        assert_eq!(names.len(), entries.len(), "{file}.cu: two entries of one name");
        for entry in &entries {
            let name = &entry.name;
            kinds.extend(entry.marks.iter().filter(|mark| !mark.also).map(|mark| mark.kind.clone()));
            let Some(twin) = &entry.twin else {
                clean += 1;
                assert!(entry.marks.is_empty(), "{file}.cu: {name} is broken and has no twin");
                continue;
            };
            broken += 1;
            assert!(entry.marks.iter().any(|mark| !mark.also), "{file}.cu: {name} has a twin and no fault");
            let twin = entries.iter().find(|other| other.name == *twin).unwrap_or_else(|| panic!("{file}.cu: no {twin}"));
            assert!(twin.marks.is_empty(), "{file}.cu: {}, the twin of {name}, is broken too", twin.name);
        }
    }
    assert!(broken >= 30 && clean >= broken, "{broken} broken entries, {clean} clean ones");
    assert_eq!(kinds.len(), KINDS.len(), "only faults of the kinds {kinds:?}");
}

#[test]
fn every_file_is_run() {
    let folder = compiled::source("any");
    let files = fs::read_dir(folder.parent().unwrap()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let entries = files.filter_map(|file| file.strip_suffix(".cu").map(str::to_owned)).filter(|file| !entries(file).is_empty());
    assert_eq!(entries.collect::<BTreeSet<_>>(), FILES.iter().map(|file| (*file).to_owned()).collect());
}
