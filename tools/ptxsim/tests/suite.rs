//! Broken kernels that must be reported, and clean ones that must not and whose results must be right.
//!
//! The files `tests/kernels/*.cu` describe themselves. Above an entry stands how it is run, in the words of `ptxsim run`:
//! ```text
//! // run: grid=4 block=128 shared=512 args=buf:f32:512:undef,buf:f32:512:rand,u32:512
//! ```
//! Random content is the same in every run, and such that sums are exact in any order ([`buffers`]).
//!
//! A broken entry also names its clean counterpart (`twin=NAME`) and marks its faulty lines, up to the next `// run:`, with
//! comments `// fault: ITEM, ITEM...`. An ITEM is `[either] KIND [a] [b]`. All lines that a report names must be marked with its
//! kind, and every mark must be reported in every run; of those with `either`, one at least. The two sides of a race, or an
//! access and the copy it should have waited for, must lie on one line marked `a` and one marked `b`, which can be the same.
//!
//! An entry without marks is clean: nothing may be reported, and [`expected`] says what it leaves in its buffers. The bytes must
//! be the same in every run, unless a line `// order: REASON` above the entry says why not. If there is nothing to expect,
//! `// unchecked: REASON` says why.

mod compiled;
mod nvcc;

#[path = "suite/buffers.rs"]
mod buffers;
#[path = "suite/entries.rs"]
mod entries;
#[path = "suite/expected.rs"]
mod expected;
#[path = "suite/judge.rs"]
mod judge;

use buffers::{Arguments, Outcome};
use entries::{Entry, KINDS, Mark, entries};
use expected::{EXPECTED, Expectation};
use judge::judge;
use ptxsim::{Kernel, Memory, Options, Report};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

/// A run of an entry takes milliseconds; one that is not back by then is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

fn expectation(entry: &Entry) -> Option<Expectation> {
    EXPECTED.iter().find(|(name, _)| *name == entry.name).map(|(_, expectation)| *expectation)
}

/// What an entry finds in its buffers, and what it must leave there.
fn outcome(entry: &Entry) -> (Arguments, Option<Outcome>) {
    let before = Arguments::parse(&entry.arguments);
    let expected = expectation(entry).map(|expectation| {
        let mut outcome = Outcome::of(&before);
        expectation(&mut outcome);
        outcome
    });
    (before, expected)
}

/// Runs a kernel. What was reported, and the buffers afterwards.
///
/// # Errors
/// If it cannot be launched, panics, or does not come back.
fn run(kernel: &Kernel, entry: &Entry, before: &Arguments, options: Options) -> Result<(Report, Arguments), String> {
    let (kernel, before, shape) = (kernel.clone(), before.clone(), entry.shape);
    let launch = move || {
        let memory = Memory::new();
        let (addresses, block) = before.place(&kernel, &memory)?;
        let report = ptxsim::launch(&kernel, &memory, &shape, &block, &options)?;
        Ok((report, before.read(&addresses, &memory)?))
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(launch()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome.map_err(|error: ptxsim::Error| error.to_string()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("not back after {} s", PATIENCE.as_secs())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("panicked".to_owned()),
    }
}

/// Runs an entry with each seed, on the numbers of cores in turn.
///
/// # Errors
/// What is wrong with the first run in which something is.
fn check(kernel: &Kernel, entry: &Entry, cores: &[usize], seeds: Range<u64>) -> Result<(), String> {
    let (before, expected) = outcome(entry);
    let mut first: Option<Arguments> = None;
    for (seed, &threads) in seeds.zip(cores.iter().cycle()) {
        let in_this_run = |wrong: String| format!("{}.cu, {}, seed {seed}, {threads} threads: {wrong}", entry.file, entry.name);
        let options = Options { seed, threads, counters: false, ..Options::default() };
        let (report, after) = run(kernel, entry, &before, options).map_err(in_this_run)?;
        let all = |wrong: String| report.faults.iter().fold(in_this_run(wrong), |all, fault| format!("{all}\n    {fault}"));
        judge(entry, &report.faults).map_err(all)?;
        if !entry.is_clean() {
            continue;
        }
        expected.as_ref().map_or(Ok(()), |expected| expected.agrees(&after)).map_err(in_this_run)?;
        let first = first.get_or_insert_with(|| after.clone());
        if !entry.order {
            first.same(&after).map_err(|wrong| in_this_run(format!("not as in the first run: {wrong}")))?;
        }
    }
    Ok(())
}

/// Checks all entries of a file that are chosen.
fn check_file(file: &'static str, chosen: fn(&Entry) -> bool, cores: &[usize], seeds: Range<u64>) {
    let module = compiled::module(file);
    let check = |entry: &Entry| check(&module.kernel(&entry.name).unwrap(), entry, cores, seeds.clone()).err();
    let wrong: Vec<String> = entries(file).iter().filter(|entry| chosen(entry)).filter_map(check).collect();
    assert!(wrong.is_empty(), "{} entries are wrong:\n\n{}\n", wrong.len(), wrong.join("\n\n"));
}

/// Blocks of an entry that runs on several cores with more seeds; a grid that waits for more blocks takes too long.
const SEVERAL: Range<u32> = 2..64;

macro_rules! files {
    ($($file:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($file)),*];
        mod every_entry {
            $(#[test] fn $file() { super::check_file(stringify!($file), |_| true, &[1, 2], 0..8); })*
        }
        mod entries_of_several_blocks {
            $(#[test] fn $file() { super::check_file(stringify!($file), |entry| super::SEVERAL.contains(&entry.blocks()), &[2, 4], 8..20); })*
        }
        mod many_seeds {
            $(#[test] #[ignore = "takes minutes"] fn $file() { super::check_file(stringify!($file), |_| true, &[1, 2, 4], 20..400); })*
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

fn every_entry() -> Vec<Entry> {
    FILES.iter().flat_map(|file| entries(file)).collect()
}

#[test]
fn every_broken_entry_has_a_clean_twin() {
    let entries = every_entry();
    let mut kinds = BTreeSet::new();
    for entry in &entries {
        let (file, name) = (entry.file, &entry.name);
        kinds.extend(entry.marks.iter().map(|mark| mark.kind));
        let Some(twin) = &entry.twin else {
            assert!(entry.is_clean(), "{file}.cu: {name} is broken and has no twin");
            continue;
        };
        assert!(!entry.is_clean(), "{file}.cu: {name} has a twin and no fault");
        let twin = entries.iter().find(|other| other.file == file && other.name == *twin);
        let twin = twin.unwrap_or_else(|| panic!("{file}.cu: no twin of {name}"));
        assert!(twin.is_clean(), "{file}.cu: {}, the twin of {name}, is broken too", twin.name);
    }
    let clean = entries.iter().filter(|entry| entry.is_clean()).count();
    let broken = entries.len() - clean;
    assert!(broken >= 100 && clean >= 100, "{broken} broken entries, {clean} clean ones");
    assert_eq!(kinds.len(), KINDS.len(), "only faults of the kinds {kinds:?}");
}

#[test]
fn every_clean_entry_has_an_expectation_or_says_why_not() {
    let entries = every_entry();
    let names: BTreeSet<&str> = entries.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names.len(), entries.len(), "two entries of one name");
    for (name, _) in EXPECTED {
        let clean = entries.iter().any(|entry| entry.name == *name && entry.is_clean());
        assert!(clean, "something is expected of {name}, which is no clean entry");
        assert_eq!(EXPECTED.iter().filter(|(other, _)| other == name).count(), 1, "{name} has two rows");
    }
    for entry in entries {
        let at = format!("{}.cu: {}", entry.file, entry.name);
        let expected = outcome(&entry).1;
        assert!(entry.is_clean() || !entry.order && !entry.unchecked, "{at} is broken: its output is not looked at");
        assert_eq!(entry.is_clean(), expected.is_some() || entry.unchecked, "{at}: write down what it leaves in its buffers");
        let Some(expected) = expected else { continue };
        assert!(!entry.unchecked, "{at} is checked, and said not to be");
        assert_eq!(entry.order, expected.depends_on_order(), "{at}: `// order:` says why not all of its output is fixed");
    }
}

/// The comparison of outputs can fail: a wrong element of any buffer is seen, but for the one of which nothing is expected.
#[test]
fn wrong_elements_are_seen() {
    let overlooked = |entry: &Entry| (outcome(entry).1.map_or(0, |expected| expected.overlooked()), entry.name.clone());
    let some: Vec<_> = every_entry().iter().map(overlooked).filter(|(buffers, _)| *buffers > 0).collect();
    assert_eq!(some, [(1, "lock_with_tries".to_owned())]);
}

/// The comparison of reports can fail: no mark is one too many, and each is needed as it is.
#[test]
fn wrong_marks_are_seen() {
    for file in FILES {
        let module = compiled::module(file);
        for entry in entries(file).iter().filter(|entry| !entry.is_clean()) {
            let kernel = module.kernel(&entry.name).unwrap();
            let (report, _) = run(&kernel, entry, &outcome(entry).0, Options { threads: 1, ..Options::default() }).unwrap();
            let judge_with = |change: &dyn Fn(&mut Vec<Mark>)| {
                let mut changed = entry.clone();
                change(&mut changed.marks);
                judge(&changed, &report.faults)
            };
            let must_fail = |what: &str, change: &dyn Fn(&mut Vec<Mark>)| {
                assert!(judge_with(change).is_err(), "{file}.cu, {}: {what}", entry.name);
            };
            assert_eq!(judge_with(&|_| {}), Ok(()), "{file}.cu, {}", entry.name);
            assert!(judge(entry, &[]).is_err(), "{file}.cu, {}: nothing is reported", entry.name);
            for i in (0..entry.marks.len()).filter(|&i| !entry.marks[i].either) {
                must_fail("a mark is missing", &|marks| drop(marks.remove(i)));
                must_fail("a mark is at another line", &|marks| marks[i].line += 1000);
                must_fail("a mark is of another kind", &|marks| {
                    marks[i].kind = KINDS.into_iter().find(|kind| *kind != marks[i].kind).unwrap();
                });
                must_fail("there is one mark more", &|marks| marks.push(Mark { line: 1, ..marks[i].clone() }));
            }
            if entry.marks.iter().any(|mark| !mark.sides.is_empty()) {
                must_fail("all marks are of one side", &|marks| marks.iter_mut().for_each(|mark| mark.sides = "a".to_owned()));
            }
        }
    }
}

#[test]
fn every_file_is_run() {
    let folder = compiled::source("any");
    let files = fs::read_dir(folder.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let described = files.filter(|path| fs::read_to_string(path).unwrap().contains("\n// run: "));
    let stems: BTreeSet<String> = described.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(stems, FILES.iter().map(|file| (*file).to_owned()).collect());
}
