//! What a kernel did wrong, and where.

use serde_json::{Map, Value, json};
use std::fmt;

/// Kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// An access outside every allocation, or outside a block's shared memory.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of bytes that nobody wrote.
    Uninitialised,
    /// Two threads of a block touch the same shared bytes with nothing that orders them; one writes.
    SharedRace,
    /// The same in global memory, within a block or between blocks.
    GlobalRace,
    /// An access to bytes that an asynchronous copy, not yet waited for, may still write.
    UnwaitedCopy,
    /// A barrier or warp-wide operation that not all the threads it needs execute together.
    DivergentBarrier,
    /// No thread can go on.
    Deadlock,
}

impl FaultKind {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            FaultKind::OutOfBounds => "out-of-bounds",
            FaultKind::Misaligned => "misaligned",
            FaultKind::Uninitialised => "uninitialised",
            FaultKind::SharedRace => "shared-race",
            FaultKind::GlobalRace => "global-race",
            FaultKind::UnwaitedCopy => "unwaited-copy",
            FaultKind::DivergentBarrier => "divergent-barrier",
            FaultKind::Deadlock => "deadlock",
        }
    }
}

/// An instruction, executed by a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// CUDA file, where the PTX names it; else empty.
    pub file: String,
    /// CUDA line; 0 where the PTX has none.
    pub line: u32,
    /// Where the function that holds the line was inlined.
    pub inlined_at: Option<(String, u32)>,
    /// Line of the PTX text, from 1.
    pub ptx_line: u32,
    /// Block in the grid.
    pub block: [u32; 3],
    /// Warp in the block.
    pub warp: u32,
    /// Lane of the warp: one of those concerned.
    pub lane: u32,
}

impl Place {
    fn fill(&self, out: &mut Map<String, Value>) {
        out.insert("file".into(), json!(self.file));
        out.insert("line".into(), json!(self.line));
        if let Some((file, line)) = &self.inlined_at {
            out.insert("inlined_at".into(), json!({"file": file, "line": line}));
        }
        out.insert("ptx_line".into(), json!(self.ptx_line));
        out.insert("block".into(), json!(self.block));
        out.insert("warp".into(), json!(self.warp));
        out.insert("lane".into(), json!(self.lane));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.is_empty() {
            true => write!(f, "PTX line {}", self.ptx_line)?,
            false => write!(f, "{}:{} (PTX line {})", self.file, self.line, self.ptx_line)?,
        }
        let [x, y, z] = self.block;
        write!(f, ", block ({x},{y},{z}) warp {} lane {}", self.warp, self.lane)
    }
}

/// Something a kernel did wrong. Reported once for each pair of instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Name of the entry.
    pub kernel: String,
    /// Where it showed.
    pub place: Place,
    /// The address concerned: a generic one, or an offset in shared memory. 0 for barriers.
    pub address: u64,
    /// The other side of a race, or what a thread that waits is waiting for.
    pub other: Option<Place>,
    /// The whole story in a sentence.
    pub message: String,
}

impl Fault {
    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), json!(self.kind.name()));
        out.insert("kernel".into(), json!(self.kernel));
        self.place.fill(&mut out);
        out.insert("address".into(), json!(format!("{:#x}", self.address)));
        let mut other = Map::new();
        if let Some(place) = &self.other {
            place.fill(&mut other);
        }
        out.insert("other".into(), Value::Object(other));
        out.insert("message".into(), json!(self.message));
        Value::Object(out)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}, at {}", self.kind.name(), self.kernel, self.message, self.place)?;
        match &self.other {
            Some(other) => write!(f, "; the other side: {other}"),
            None => Ok(()),
        }
    }
}
