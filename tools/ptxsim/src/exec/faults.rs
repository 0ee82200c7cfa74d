//! Collects the faults of a launch.

use crate::fault::{Fault, FaultKind, Place};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Where an instruction comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spot {
    pub file: Arc<str>,
    pub line: u32,
    pub inlined_at: Option<(Arc<str>, u32)>,
    pub ptx_line: u32,
}

impl Spot {
    pub(crate) fn place(&self, block: [u32; 3], warp: u32, lane: u32) -> Place {
        let inlined_at = self.inlined_at.as_ref().map(|(file, line)| (file.to_string(), *line));
        Place { file: self.file.to_string(), line: self.line, inlined_at, ptx_line: self.ptx_line, block, warp, lane }
    }
}

/// The line that tells faults apart: CUDA's, with the place it was inlined at, or the PTX's.
type Line = (String, u32, Option<(String, u32)>);

fn line(place: &Place) -> Line {
    if place.file.is_empty() {
        return (String::new(), place.ptx_line, None);
    }
    (place.file.clone(), place.line, place.inlined_at.clone())
}

#[derive(Debug, Default)]
struct Found {
    seen: HashSet<(FaultKind, Line, Option<Line>)>,
    faults: Vec<Fault>,
    dropped: u64,
}

/// The faults of a launch, one for each kind and pair of lines.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Found>);

impl Faults {
    /// Adds a fault unless its like is there already, or there are `most`.
    pub(crate) fn add(&self, fault: Fault, most: usize) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut a, mut b) = (line(&fault.place), fault.other.as_ref().map(line));
        if let Some(other) = b.take_if(|other| *other < a) {
            b = Some(std::mem::replace(&mut a, other));
        }
        if !found.seen.insert((fault.kind, a, b)) {
            return;
        }
        if found.faults.len() < most { found.faults.push(fault) } else { found.dropped += 1 }
    }

    /// The faults, and how many kinds more there were than were kept. A read of unwritten bytes is left out when the same line
    /// takes part in a race or reads an unwaited copy: that says why the bytes were not there.
    pub(crate) fn into_parts(self) -> (Vec<Fault>, u64) {
        let Found { mut faults, dropped, .. } = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let explains = |f: &Fault| matches!(f.kind, FaultKind::SharedRace | FaultKind::GlobalRace | FaultKind::UnwaitedCopy);
        let places = |f: &Fault| [Some(line(&f.place)), f.other.as_ref().map(line)];
        let explained: HashSet<Line> = faults.iter().filter(|f| explains(f)).flat_map(places).flatten().collect();
        faults.retain(|f| f.kind != FaultKind::Uninitialised || !explained.contains(&line(&f.place)));
        (faults, dropped)
    }
}
