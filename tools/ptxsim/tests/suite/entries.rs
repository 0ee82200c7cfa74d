//! What the files `tests/kernels/*.cu` say of themselves.

use crate::compiled;
use ptxsim::{FaultKind, Launch};
use std::fs;

pub const KINDS: [FaultKind; 8] = [
    FaultKind::OutOfBounds,
    FaultKind::Misaligned,
    FaultKind::Uninitialised,
    FaultKind::SharedRace,
    FaultKind::GlobalRace,
    FaultKind::UnwaitedCopy,
    FaultKind::DivergentBarrier,
    FaultKind::Deadlock,
];

/// What a line must be reported for.
#[derive(Clone, Debug)]
pub struct Mark {
    pub line: u32,
    pub kind: FaultKind,
    /// At least one of the lines that are so marked must be, not each.
    pub either: bool,
    /// Which sides of a pair the line is: some of "ab", or nothing.
    pub sides: String,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Stem of its file.
    pub file: &'static str,
    pub name: String,
    pub shape: Launch,
    /// As `ptxsim run --arg` takes them.
    pub arguments: Vec<String>,
    /// The clean counterpart of a broken entry.
    pub twin: Option<String>,
    /// Whether its output depends on the order of its threads.
    pub order: bool,
    /// Whether nothing is expected of its output.
    pub unchecked: bool,
    pub marks: Vec<Mark>,
}

impl Entry {
    pub fn blocks(&self) -> u32 {
        self.shape.grid.iter().product()
    }

    pub fn is_clean(&self) -> bool {
        self.marks.is_empty()
    }
}

/// The entries of `tests/kernels/FILE.cu`.
pub fn entries(file: &'static str) -> Vec<Entry> {
    let path = compiled::source(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut entries: Vec<Entry> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let unread = |word: &str| -> ! { panic!("{file}.cu:{line}: cannot read `{word}`") };
        if let Some(run) = text.strip_prefix("// run: ") {
            entries.push(entry(file, run).unwrap_or_else(|word| unread(word)));
        }
        let Some(entry) = entries.last_mut() else { continue };
        entry.order |= text.strip_prefix("// order: ").is_some_and(|reason| !reason.trim().is_empty());
        entry.unchecked |= text.strip_prefix("// unchecked: ").is_some_and(|reason| !reason.trim().is_empty());
        if let Some((_, after)) = text.split_once("__global__ void ") {
            assert!(entry.name.is_empty(), "{file}.cu:{line}: no `// run:` above this entry");
            entry.name = after.split('(').next().unwrap_or_default().to_owned();
        }
        if let Some((_, items)) = text.split_once("// fault: ") {
            entry.marks.extend(items.split(", ").map(|item| mark(line, item).unwrap_or_else(|| unread(item))));
        }
    }
    assert!(entries.iter().all(|entry| !entry.name.is_empty()), "{file}.cu: a `// run:` without an entry below it");
    entries
}

/// # Errors
/// The word that cannot be read.
fn entry<'a>(file: &'static str, run: &'a str) -> Result<Entry, &'a str> {
    let shape = Launch { grid: [0; 3], block: [0; 3], shared: 0 };
    let mut entry = Entry {
        file,
        name: String::new(),
        shape,
        arguments: Vec::new(),
        twin: None,
        order: false,
        unchecked: false,
        marks: Vec::new(),
    };
    for word in run.split_whitespace() {
        match word.split_once('=').ok_or(word)? {
            ("grid", value) => entry.shape.grid = extents(value).ok_or(word)?,
            ("block", value) => entry.shape.block = extents(value).ok_or(word)?,
            ("shared", value) => entry.shape.shared = value.parse().map_err(|_| word)?,
            ("args", value) => entry.arguments = value.split(',').map(str::to_owned).collect(),
            ("twin", value) => entry.twin = Some(value.to_owned()),
            _ => return Err(word),
        }
    }
    if entry.shape.grid[0] == 0 || entry.shape.block[0] == 0 { Err(run) } else { Ok(entry) }
}

fn extents(text: &str) -> Option<[u32; 3]> {
    let mut extents = [1; 3];
    for (i, part) in text.split(',').enumerate() {
        *extents.get_mut(i)? = part.parse().ok()?;
    }
    Some(extents)
}

fn mark(line: u32, item: &str) -> Option<Mark> {
    let (either, item) = item.strip_prefix("either ").map_or((false, item), |item| (true, item));
    let mut words = item.split_whitespace();
    let name = words.next()?;
    let kind = KINDS.into_iter().find(|kind| kind.name() == name)?;
    let sides: String = words.collect();
    sides.chars().all(|side| "ab".contains(side)).then_some(Mark { line, kind, either, sides })
}
