//! Compares what was reported with the marks.

use crate::entries::{Entry, Mark};
use ptxsim::{Fault, FaultKind, Place};
use std::collections::BTreeSet;

/// # Errors
/// What is wrong: a report without a mark, a mark without a report, or a report that cannot be.
pub fn judge(entry: &Entry, faults: &[Fault]) -> Result<(), String> {
    let (mut reported, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for fault in faults {
        let (line, other) = lines(entry, fault).map_err(|wrong| format!("{wrong}: {fault}"))?;
        if !seen.insert((fault.kind, other.map_or(line, |other| line.min(other)), other.map(|other| line.max(other)))) {
            return Err(format!("said before: {fault}"));
        }
        let marks = marks(entry, fault.kind, line, other);
        if marks.is_empty() {
            return Err(format!("not marked: {fault}"));
        }
        reported.extend(marks);
    }
    for (i, mark) in entry.marks.iter().enumerate() {
        let instead = |k: &usize| mark.either && entry.marks[*k].either && entry.marks[*k].kind == mark.kind;
        if !reported.contains(&i) && !reported.iter().any(instead) {
            return Err(format!("line {} is marked {} and not reported", mark.line, mark.kind.name()));
        }
    }
    Ok(())
}

/// Which marks a report of a line, and of the other side's if there is one, is for.
fn marks(entry: &Entry, kind: FaultKind, line: u32, other: Option<u32>) -> BTreeSet<usize> {
    let at = |line: u32| entry.marks.iter().enumerate().filter(move |(_, mark)| mark.kind == kind && mark.line == line);
    let Some(other) = other else { return at(line).filter(|(_, mark)| mark.sides.is_empty()).map(|(i, _)| i).collect() };
    let opposite = |near: &Mark, far: &Mark| {
        let sides = |one, two| near.sides.contains(one) && far.sides.contains(two);
        near.sides.is_empty() && far.sides.is_empty() || sides('a', 'b') || sides('b', 'a')
    };
    let pairs = at(line).flat_map(|near| at(other).map(move |far| (near, far)));
    pairs.filter(|((_, near), (_, far))| opposite(near, far)).flat_map(|((i, _), (k, _))| [i, k]).collect()
}

/// The lines of the suite's file that a report names: of the access, and of its other side if it has one.
fn lines(entry: &Entry, fault: &Fault) -> Result<(u32, Option<u32>), String> {
    if fault.kernel != entry.name || fault.message.len() < 10 {
        return Err("the wrong kernel, or no message".to_owned());
    }
    if fault.other.is_none() && matches!(fault.kind, FaultKind::SharedRace | FaultKind::GlobalRace | FaultKind::UnwaitedCopy) {
        return Err("without its other side".to_owned());
    }
    Ok((line(entry, &fault.place)?, fault.other.as_ref().map(|other| line(entry, other)).transpose()?))
}

/// The line of the suite's file that an access stands on: where a function of a header was inlined, if the access is in one.
fn line(entry: &Entry, place: &Place) -> Result<u32, String> {
    let threads: u32 = entry.shape.block.iter().product();
    let inside = place.block.iter().zip(entry.shape.grid).all(|(&at, extent)| at < extent);
    if !inside || place.lane >= 32 || place.warp * 32 + place.lane >= threads || place.ptx_line == 0 {
        return Err("no such thread or line".to_owned());
    }
    let file = format!("{}.cu", entry.file);
    match &place.inlined_at {
        _ if place.file.ends_with(&file) => Ok(place.line),
        Some((user, line)) if user.ends_with(&file) => Ok(*line),
        _ => Err(format!("not in {file}")),
    }
}
