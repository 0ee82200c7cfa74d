//! What the kernels take, as a table, and the refusal of local memory.

use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::folder::Kernel;

/// The line in a `.cu` file that accepts local memory; a reason follows.
const ACCEPTS: &str = "// accepts spills:";

/// One row for each kernel and architecture, in aligned columns.
pub fn resource_table(kernels: &[Kernel]) -> String {
    let head = [
        "file",
        "entry",
        "arch",
        "registers",
        "spill stores",
        "spill loads",
        "stack",
        "static shared",
        "constant",
        "max threads",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for kernel in kernels {
        for e in &kernel.entries {
            let numbers =
                [e.registers, e.spill_stores, e.spill_loads, e.stack, e.static_shared, e.constant].map(|n| n.to_string());
            let [registers, stores, loads, stack, shared, constant] = numbers;
            let threads = e.max_threads.map_or("-".to_owned(), |threads| threads.to_string());
            let (file, entry, arch) = (kernel.name.clone(), e.name.clone(), kernel.arch.clone());
            rows.push([file, entry, arch, registers, stores, loads, stack, shared, constant, threads]);
        }
    }
    let widths: Vec<usize> = (0..head.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut table = String::new();
    for row in rows {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            match column {
                0..=2 => table.push_str(&format!("{gap}{cell:width$}")),
                _ => table.push_str(&format!("{gap}{cell:>width$}")),
            }
        }
        table.push('\n');
    }
    table
}

/// Fails if a kernel uses local memory (spilled registers, or arrays with indices that are not known at compile time), unless its own
/// `.cu` file has a line `// accepts spills: REASON`.
///
/// # Errors
/// [`Error::Spills`] with file, entry, architecture and bytes of each; an io error if a source cannot be read.
pub fn refuse_spills(root: &Path, kernels: &[Kernel]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for kernel in kernels {
        let users: Vec<_> = kernel.entries.iter().filter(|entry| entry.uses_local_memory()).collect();
        if users.is_empty() || accepts_spills(&root.join(&kernel.source))? {
            continue;
        }
        refused.extend(users.into_iter().map(|e| {
            let (file, arch) = (kernel.source.display(), &kernel.arch);
            let (stores, loads) = (e.spill_stores, e.spill_loads);
            format!("{file}: {} for {arch}: {} bytes of stack, {stores} bytes of spill stores, {loads} of loads", e.name, e.stack)
        }));
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::Spills(refused)) }
}

fn accepts_spills(source: &Path) -> Result<bool, Error> {
    let text = fs::read_to_string(source).map_err(Error::io(source))?;
    Ok(text.lines().any(|line| line.trim().strip_prefix(ACCEPTS).is_some_and(|reason| !reason.trim().is_empty())))
}
