//! A report on a launch, to be read in a terminal.

use std::collections::HashMap;
use std::fmt::Write;

use super::chip::Chip;
use super::roofline::{Bound, Resource, bound, site_seconds};
use super::{Class, Counts, Site, SiteCounts};

/// Lines with a smaller share of every bound, and no shared-memory conflict or global access, are summed up in one.
const SMALLEST_SHARE: f64 = 0.001;

/// The classes in the order of the instruction mix, with their names.
const CLASSES: [(Class, &str); 14] = [
    (Class::Tensor, "tensor"),
    (Class::Float, "float"),
    (Class::Half, "half"),
    (Class::Double, "double"),
    (Class::Integer, "integer"),
    (Class::Convert, "convert"),
    (Class::Special, "special"),
    (Class::Global, "global"),
    (Class::Shared, "shared"),
    (Class::Atomic, "atomic"),
    (Class::Collective, "collective"),
    (Class::Sync, "sync"),
    (Class::Control, "control"),
    (Class::Constant, "constant"),
];

/// The report on one launch of the kernel `name`, for each of `chips`.
///
/// Bounds, instruction mix, traffic, and a table of source lines sorted by their share of the first chip's bound.
pub fn report(name: &str, sites: &[Site], counts: &Counts, chips: &[&Chip]) -> String {
    let bounds: Vec<(&Chip, Bound)> = chips.iter().map(|&chip| (chip, bound(sites, counts, chip))).collect();
    let mut out = format!(
        "{name}: {} blocks of {} threads, {} B of shared memory a block\n\n",
        counts.blocks, counts.block_threads, counts.shared_bytes
    );
    out += &bounds_section(&bounds);
    out += &mix_section(sites, counts);
    out += &traffic_section(sites, counts);
    out += &lines_section(sites, counts, &bounds);
    out
}

/// A number with a prefix: three digits or a few more, as `12.3M`.
fn short(number: f64) -> String {
    let (scaled, prefix) = match number.abs() {
        0.0..1e4 => return if number.fract() == 0.0 { format!("{number}") } else { format!("{number:.1}") },
        1e4..1e6 => (number / 1e3, "k"),
        1e6..1e9 => (number / 1e6, "M"),
        1e9..1e12 => (number / 1e9, "G"),
        _ => (number / 1e12, "T"),
    };
    format!("{scaled:.1}{prefix}")
}

/// A time: `12.3 us`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s.is_infinite() => "cannot run".into(),
        0.0 => "0".into(),
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Lines up columns: the first and those whose header starts with `<` to the left, others to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).map_or("", |cell| cell.trim_start_matches('<')).to_string();
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0)).collect();
    let left: Vec<bool> =
        (0..columns).map(|column| column == 0 || rows[0].get(column).is_some_and(|header| header.starts_with('<'))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for column in 0..columns {
            let (text, width) = (cell(row, column), widths[column]);
            line += &if left[column] { format!(" {text:<width$} ") } else { format!(" {text:>width$} ") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

fn bounds_section(bounds: &[(&Chip, Bound)]) -> String {
    let shown: Vec<Resource> =
        Resource::ALL.into_iter().filter(|&resource| bounds.iter().any(|(_, bound)| bound.part(resource) > 0.0)).collect();
    let mut header = strings(["chip", "bound", "<by"]);
    header.extend(shown.iter().map(|resource| format!("{}{}", resource.name(), if resource.binds() { "" } else { "*" })));
    let mut rows = vec![header];
    for (chip, bound) in bounds {
        let mut row = vec![chip.name.to_string(), time(bound.seconds), bound.binding.name().to_string()];
        row.extend(shown.iter().map(|&resource| {
            let estimate = if chip.estimates.contains(&resource) && bound.part(resource) > 0.0 { "~" } else { "" };
            format!("{estimate}{}", time(bound.part(resource)))
        }));
        rows.push(row);
    }
    let mut out = String::from("The kernel cannot take less than\n");
    out += &table(&rows);
    out += "  * counted in PTX, or as if L1 were empty: the machine may need less, so these do not bind. ~ the rate is an estimate.\n";
    out += "  memory: as if nothing were in L2 at the start.\n\n";
    out
}

fn mix_section(sites: &[Site], counts: &Counts) -> String {
    let all: u64 = counts.sites.iter().map(|site| site.warps).sum();
    let mut rows = vec![strings(["class", "warp instructions", "share", "active lanes"])];
    for (class, name) in CLASSES {
        let own = || sites.iter().zip(&counts.sites).filter(|(site, _)| site.class == class).map(|(_, counts)| counts);
        let (warps, lanes) = (own().map(|site| site.warps).sum::<u64>(), own().map(|site| site.lanes).sum::<u64>());
        if warps > 0 {
            let share = format!("{:.1} %", 100.0 * warps as f64 / all as f64);
            rows.push(vec![name.into(), short(warps as f64), share, format!("{:.1}", lanes as f64 / warps as f64)]);
        }
    }
    rows.push(strings(["all", &short(all as f64), "", ""]));
    format!("Instructions\n{}\n", table(&rows))
}

fn traffic_section(sites: &[Site], counts: &Counts) -> String {
    let total = sum(counts.sites.iter());
    let global = sum(sites.iter().zip(&counts.sites).filter(|(_, counts)| counts.sectors > 0).map(|(_, counts)| counts));
    let flops: u64 = sites
        .iter()
        .zip(&counts.sites)
        .filter(|(site, _)| site.class == Class::Tensor)
        .map(|(site, counts)| site.flops * counts.warps)
        .sum();
    let mut out = String::from("Work\n");
    let unique = counts.unique_read + counts.unique_written;
    let mut rows = vec![];
    if flops > 0 {
        let intensity = if unique > 0 { format!("{:.1} FLOP/B of memory", flops as f64 / unique as f64) } else { String::new() };
        rows.push(vec!["tensor FLOP".into(), short(flops as f64), format!("<{intensity}")]);
    }
    if global.sectors > 0 {
        let efficiency = format!("<{} of the bytes of {} sectors", efficiency(&global), short(global.sectors as f64));
        rows.push(vec!["global bytes asked for".into(), short(global.bytes as f64), efficiency]);
        let split = format!("<{} read, {} written", short(counts.unique_read as f64), short(counts.unique_written as f64));
        rows.push(vec!["distinct bytes".into(), short(unique as f64), split]);
    }
    if total.wavefronts > 0 {
        let conflicts = format!("<{} without bank conflicts ({})", short(total.ideal_wavefronts as f64), conflict(&total));
        rows.push(vec!["shared-memory wavefronts".into(), short(total.wavefronts as f64), conflicts]);
    }
    if rows.is_empty() {
        return String::new();
    }
    out += &table(&rows);
    out.push('\n');
    out
}

fn sum<'a>(counts: impl Iterator<Item = &'a SiteCounts>) -> SiteCounts {
    let mut total = SiteCounts::default();
    counts.for_each(|own| total.add(own));
    total
}

/// Bytes asked for as a share of the sectors' bytes; over 100 % where lanes share bytes.
fn efficiency(counts: &SiteCounts) -> String {
    if counts.sectors == 0 {
        return String::new();
    }
    format!("{:.0} %", 100.0 * counts.bytes as f64 / (32 * counts.sectors) as f64)
}

/// How many passes a shared-memory access takes for each that it needs: `32-way`.
fn conflict(counts: &SiteCounts) -> String {
    if counts.ideal_wavefronts == 0 {
        return String::new();
    }
    let ways = counts.wavefronts as f64 / counts.ideal_wavefronts as f64;
    match ways {
        w if w < 1.005 => "none".into(),
        w if (w - w.round()).abs() < 0.05 => format!("{w:.0}-way"),
        w => format!("{w:.1}-way"),
    }
}

/// A line of source with all its instructions.
struct Line {
    place: String,
    counts: SiteCounts,
    /// Its share of each chip's bound.
    shares: Vec<f64>,
    /// The instruction that costs most, and what it costs.
    text: String,
    cost: (f64, u64),
}

fn gather(sites: &[Site], counts: &Counts, bounds: &[(&Chip, Bound)]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut index: HashMap<(Option<&str>, u32), usize> = HashMap::new();
    for (site, own) in sites.iter().zip(&counts.sites).filter(|(_, own)| own.warps > 0) {
        let key = site.source.as_ref().map_or((None, site.ptx_line), |(file, line)| (Some(&**file), *line));
        let at = *index.entry(key).or_insert_with(|| {
            let place = match key {
                (Some(file), line) => format!("{}:{line}", file.rsplit('/').next().unwrap_or(file)),
                (None, line) => format!("ptx:{line}"),
            };
            let (cost, text) = ((-1.0, 0), String::new());
            lines.push(Line { place, counts: SiteCounts::default(), shares: vec![0.0; bounds.len()], text, cost });
            lines.len() - 1
        });
        let line = &mut lines[at];
        // The efficiency is that of global memory; wavefronts tell about shared memory.
        let bytes = if own.sectors > 0 { own.bytes } else { 0 };
        line.counts.add(&SiteCounts { bytes, ..*own });
        for (share, (chip, bound)) in line.shares.iter_mut().zip(bounds) {
            if bound.seconds > 0.0 && bound.seconds.is_finite() {
                *share += site_seconds(site, own, counts, chip, bound.binding) / bound.seconds;
            }
        }
        let first = bounds.first().map_or(0.0, |(chip, bound)| site_seconds(site, own, counts, chip, bound.binding));
        if (first, own.warps) > line.cost {
            (line.cost, line.text) = ((first, own.warps), site.text.clone());
        }
    }
    let key = |line: &Line| (line.shares.first().copied().unwrap_or(0.0), line.counts.wavefronts, line.counts.warps);
    lines.sort_by(|a, b| key(b).partial_cmp(&key(a)).unwrap_or(std::cmp::Ordering::Equal));
    lines
}

fn lines_section(sites: &[Site], counts: &Counts, bounds: &[(&Chip, Bound)]) -> String {
    let lines = gather(sites, counts, bounds);
    let mut header = vec!["line".to_string()];
    header.extend(bounds.iter().map(|(chip, _)| chip.name.to_string()));
    header.extend(strings(["warps", "wavefronts", "ideal", "conflict", "sectors", "efficiency", "<costliest instruction"]));
    let mut rows = vec![header];
    let number = |value: u64| if value == 0 { String::new() } else { short(value as f64) };
    let (mut left_out, mut left_out_warps) = (0, 0);
    for line in &lines {
        let counted = line.counts.sectors > 0 || line.counts.wavefronts > 0;
        if !counted && line.shares.iter().all(|&share| share < SMALLEST_SHARE) {
            (left_out, left_out_warps) = (left_out + 1, left_out_warps + line.counts.warps);
            continue;
        }
        let own = &line.counts;
        let mut row = vec![line.place.clone()];
        row.extend(line.shares.iter().map(|share| format!("{:.1} %", 100.0 * share)));
        row.extend([own.warps, own.wavefronts, own.ideal_wavefronts].map(number));
        row.extend([conflict(own), number(own.sectors), efficiency(own), format!("<{}", clip(&line.text))]);
        rows.push(row);
    }
    let mut out = String::from("Lines, by their share of the bound");
    if let Some((chip, bound)) = bounds.first() {
        let _ = write!(out, " on {} ({})", chip.name, bound.binding.name());
    }
    out.push('\n');
    out += &table(&rows);
    if left_out > 0 {
        let _ = writeln!(
            out,
            "  and {left_out} more lines with {} warp instructions and no part in it",
            short(left_out_warps as f64)
        );
    }
    out
}

/// An instruction cut to fit a table.
fn clip(text: &str) -> String {
    const WIDEST: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= WIDEST { line } else { line.chars().take(WIDEST - 3).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests;
