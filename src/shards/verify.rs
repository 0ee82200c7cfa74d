//! Checking a folder of shards: every file against the stats, every sample against its image, json and table row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use super::layout::{ShardPaths, sample_key, shard_id_of, shard_name};
use super::reader::{StoredSample, read_shard};
use super::run::{RunManifest, config_sha256};
use super::sample::{SUCCESS, has_failed};
use super::stats::{ShardStats, read_stats};
use super::{decode_image, disk, image_fault, table};
use crate::{Error, Result, files};

/// Something wrong in a folder of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Name of the file in the folder.
    pub file: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

/// What [`verify`] found. Serialises to the JSON that `verify --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Finished shards.
    pub shards: u64,
    /// Samples in them, failures included.
    pub samples: u64,
    /// Samples without an image.
    pub failed: u64,
    /// How often samples failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Everything that is wrong, by file.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether nothing is wrong. Samples that are recorded as failed are not wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report as lines for people: one per problem, one per reason of failure, and a summary.
    pub fn lines(&self) -> Vec<String> {
        let problems = self.problems.iter().map(|problem| format!("{}: {}", problem.file, problem.message));
        let failures = self.failures.iter().map(|(reason, count)| format!("failed samples: {count} x {reason}"));
        let verdict = match self.problems.len() {
            0 => "no problems".to_string(),
            1 => "1 problem".to_string(),
            n => format!("{n} problems"),
        };
        let summary = format!("{} shards, {} samples, {} failed: {verdict}", self.shards, self.samples, self.failed);
        problems.chain(failures).chain([summary]).collect()
    }
}

/// Checks the folder `dir`: sizes and digests, keys, images, that json, caption, table and tar agree, counts, and that
/// nothing is unfinished, left over, missing in between, or from elsewhere.
///
/// # Errors
/// Only if the folder cannot be listed or holds no shard; whatever is wrong with a file is in the report.
pub fn verify(dir: &Path) -> Result<Report> {
    let names = file_names(dir)?;
    let ids: BTreeSet<u32> = names.iter().filter_map(|name| shard_id(name)).collect();
    let Some((&first, &last)) = ids.first().zip(ids.last()) else {
        return Err(Error::usage(
            format!("{} holds no shards", dir.display()),
            "give the folder that `syntic generate --out` wrote",
        ));
    };
    let mut report = Report { problems: stray_files(&names), ..Report::default() };
    let config = match RunManifest::read(dir) {
        Ok(Some(config)) => {
            report.problems.extend(missing_ends(&config, first, last));
            Some(config_sha256(&config))
        }
        Ok(None) => None,
        Err(error) => {
            report.problems.push(Problem { file: "_run/config.json".into(), message: without_path(&error) });
            None
        }
    };
    let ids: Vec<u32> = ids.into_iter().collect();
    for pair in ids.windows(2).filter(|pair| pair[1] - pair[0] > 1) {
        let missing = format!("no shard between this one and {}: run the same command again", shard_name(pair[1]));
        report.problems.push(Problem { file: shard_name(pair[0]), message: missing });
    }
    let checks: Vec<ShardCheck> = ids.par_iter().map(|&id| ShardCheck::run(dir, id, config.as_deref())).collect();
    let full_size = |stats: &ShardStats| stats.count == stats.shard_size || stats.count == 0;
    for (check, id) in checks.into_iter().zip(&ids) {
        if let Some(stats) = check.stats {
            report.shards += 1;
            report.samples += stats.count;
            report.failed += stats.failed_to_generate;
            stats.status_dict.iter().filter(|(reason, _)| *reason != SUCCESS).for_each(|(reason, count)| {
                *report.failures.entry(reason.clone()).or_insert(0) += count;
            });
            if *id != first && *id != last && !full_size(&stats) {
                let message = format!("{} samples, where shards before the last have {}", stats.count, stats.shard_size);
                report.problems.push(Problem { file: file_name(&ShardPaths::new(dir, *id).stats), message });
            }
        }
        report.problems.extend(check.problems);
    }
    report.problems.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(report)
}

/// The shards before `first` and behind `last` that the run makes, if its configuration tells their number.
fn missing_ends(config: &Value, first: u32, last: u32) -> Vec<Problem> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let Some((samples, size)) = number("samples").zip(number("shard_size").filter(|&size| size > 0)) else { return Vec::new() };
    let count = samples.div_ceil(size);
    let (first, last) = (u64::from(first), u64::from(last));
    let missing = |from: u64, to: u64| {
        let message = format!("missing, with all up to {to:05}: the run makes {count} shards; run the same command again");
        (from <= to).then(|| Problem { file: format!("{from:05}"), message })
    };
    let before = first.checked_sub(1).and_then(|to| missing(0, to));
    let behind = count.checked_sub(1).and_then(|to| missing(last + 1, to));
    before.into_iter().chain(behind).collect()
}

/// Names of the files of `dir`, folders left out.
fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        if !entry.file_type().map_err(Error::io("look at", entry.path()))?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The shard that the file `name` belongs to, finished or in progress.
fn shard_id(name: &str) -> Option<u32> {
    let visible = [".tar", ".parquet", "_stats.json"].iter().find_map(|suffix| shard_id_of(name, suffix));
    visible.or_else(|| shard_id_of(name.strip_prefix('.')?, ".journal"))
}

/// Files that no shard needs and that confuse readers: tars and json from elsewhere, what a crash left behind.
fn stray_files(names: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let in_progress = |name: &str| {
        let id = shard_id_of(name.trim_start_matches('.'), ".tar.part");
        id.is_some_and(|id| names.contains(&format!(".{}.journal", shard_name(id))))
    };
    for name in names.iter().filter(|name| shard_id(name).is_none() && !in_progress(name)) {
        let message = if name.ends_with(".tar") {
            "a tar from elsewhere: move it away"
        } else if name.ends_with(".json") {
            "readers of shards take every json here for the stats of a shard: move it away"
        } else if name.starts_with('.') && (name.ends_with(".tmp") || name.ends_with(".part")) {
            "left over from a crash: remove it"
        } else {
            continue;
        };
        problems.push(Problem { file: name.clone(), message: message.into() });
    }
    problems
}

/// The check of one shard.
struct ShardCheck<'a> {
    id: u32,
    paths: ShardPaths,
    config: Option<&'a str>,
    stats: Option<ShardStats>,
    problems: Vec<Problem>,
}

impl ShardCheck<'_> {
    fn run<'a>(dir: &Path, id: u32, config: Option<&'a str>) -> ShardCheck<'a> {
        let mut check = ShardCheck { id, paths: ShardPaths::new(dir, id), config, stats: None, problems: Vec::new() };
        if let Err(error) = check.files() {
            let stats = check.paths.stats.clone();
            check.problem(&stats, without_path(&error));
        }
        check
    }

    fn problem(&mut self, file: &Path, message: impl Into<String>) {
        self.problems.push(Problem { file: file_name(file), message: message.into() });
    }

    /// The files as wholes, and then the samples.
    fn files(&mut self) -> Result<()> {
        let paths = self.paths.clone();
        let in_progress = disk::exists(&paths.journal)?;
        let Some(stats) = read_stats(&paths.stats)? else {
            if in_progress {
                self.problem(&paths.journal, "the shard is not finished: run the same command again");
            } else {
                let file = if disk::exists(&paths.tar)? { &paths.tar } else { &paths.parquet };
                self.problem(file, "no stats file: not finished, or from elsewhere");
            }
            return Ok(());
        };
        if in_progress {
            self.problem(&paths.journal, "left over from a crash: remove it");
        }
        if self.config.is_some_and(|config| config != stats.config_sha256) {
            self.problem(&paths.stats, "made with another configuration than that in _run/config.json");
        }
        self.digest(&paths.tar, stats.tar_size, &stats.tar_sha256);
        let table_intact = self.digest(&paths.parquet, stats.parquet_size, &stats.parquet_sha256);
        let rows = if table_intact { table::decode_table(&paths.parquet).map(Some) } else { Ok(None) };
        let rows = rows.unwrap_or_else(|error| {
            self.problem(&paths.parquet, without_path(&error));
            None
        });
        self.stats = Some(stats.clone());
        if let Some(rows) = &rows {
            self.rows(rows, &stats);
        }
        self.samples(rows.as_deref(), &stats);
        Ok(())
    }

    /// Whether the file at `path` is the one that the stats describe.
    fn digest(&mut self, path: &Path, size: u64, sha256: &str) -> bool {
        let message = match files::file_digest(path) {
            Ok((found, _)) if found != size => format!("{found} bytes, where the stats say {size}: cut off or changed"),
            Ok((_, found)) if found != sha256 => format!("SHA-256 {found}, where the stats say {sha256}: changed"),
            Ok(_) => return true,
            Err(error) => without_path(&error),
        };
        self.problem(path, message);
        false
    }

    /// The table: keys in order, and the counts of the stats.
    fn rows(&mut self, rows: &[Map<String, Value>], stats: &ShardStats) {
        let path = self.paths.parquet.clone();
        for (index, row) in rows.iter().enumerate() {
            let key = sample_key(self.id, index, stats.shard_size as usize);
            if text(row, "key") != Some(&key) {
                self.problem(&path, format!("row {index}: key {:?}, expected {key}", text(row, "key")));
            }
            if has_failed(row) == text(row, "error_message").is_none() {
                self.problem(&path, format!("row {index}: status and error_message contradict each other"));
            }
        }
        let failed = rows.iter().filter(|row| has_failed(row)).count() as u64;
        let mut status_dict = BTreeMap::new();
        for row in rows {
            *status_dict.entry(text(row, "error_message").unwrap_or(SUCCESS).to_string()).or_insert(0) += 1;
        }
        let found = (rows.len() as u64, rows.len() as u64 - failed, failed, status_dict);
        if found != (stats.count, stats.successes, stats.failed_to_generate, stats.status_dict.clone()) {
            self.problem(&path, format!("{} rows, {failed} failed: the counts in the stats differ", rows.len()));
        }
    }

    /// The tar, sample by sample, and that it holds just the successful rows.
    fn samples(&mut self, rows: Option<&[Map<String, Value>]>, stats: &ShardStats) {
        let path = self.paths.tar.clone();
        let samples = match read_shard(&path) {
            Ok(samples) => samples,
            Err(error) => return self.problem(&path, without_path(&error)),
        };
        let mut expected = rows.map(|rows| rows.iter().filter(|row| !has_failed(row)));
        let mut count = 0;
        for sample in samples {
            match sample {
                Ok(sample) => {
                    count += 1;
                    let row = expected.as_mut().map(|rows| rows.next());
                    for message in sample_faults(&path, &sample, row) {
                        self.problem(&path, format!("{}: {message}", sample.key));
                    }
                }
                Err(error) => return self.problem(&path, without_path(&error)),
            }
        }
        if count != stats.successes {
            self.problem(&path, format!("{count} samples, where the stats say {}", stats.successes));
        }
    }
}

/// What is wrong with a sample of the tar at `path`. `row` is its row of the table (`Some(None)`: the table has none left).
fn sample_faults(path: &Path, sample: &StoredSample, row: Option<Option<&Map<String, Value>>>) -> Vec<String> {
    let mut faults = Vec::new();
    let Some((extension, image)) = sample.image() else { return vec!["no image".into()] };
    let Some(fields) = sample.fields() else { return vec!["KEY.json is missing or not an object".into()] };
    let extensions: Vec<&str> = sample.parts.iter().map(|(extension, _)| extension.as_str()).collect();
    if extensions != [extension, "txt", "json"] {
        faults.push(format!("members {extensions:?}, expected {:?}", [extension, "txt", "json"]));
    }
    if text(&fields, "key") != Some(&sample.key) || text(&fields, "status") != Some(SUCCESS) {
        faults.push("key or status in the json is not that of the sample".into());
    }
    if sample.caption().is_none() || text(&fields, "caption") != sample.caption() {
        faults.push("KEY.txt differs from the caption in the json".into());
    }
    if text(&fields, "sha256") != Some(&files::sha256_hex(image)) {
        faults.push("the image is not the one whose SHA-256 is in the json".into());
    }
    match decode_image(path, "image", image) {
        Ok(decoded) => {
            for (name, extent) in [("width", decoded.width()), ("height", decoded.height())] {
                if fields.get(name).is_some_and(|value| value.as_u64() != Some(u64::from(extent))) {
                    faults.push(format!("the image's {name} is {extent}, in the json it is {}", fields[name]));
                }
            }
            faults.extend(image_fault(decoded.as_raw(), true).map(|fault| format!("{fault}, though marked as a success")));
        }
        Err(error) => faults.push(format!("the image cannot be decoded: {}", without_path(&error))),
    }
    match row {
        Some(None) => faults.push("not in the parquet as a success".into()),
        Some(Some(row)) if !same_row(row, &fields) => faults.push("the row of the parquet differs from the json".into()),
        _ => {}
    }
    faults
}

/// Whether a row of the table and a json hold the same; 7 and 7.0 are the same number.
fn same_row(row: &Map<String, Value>, fields: &Map<String, Value>) -> bool {
    let same = |a: &Value, b: &Value| a == b || ((a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64());
    row.len() == fields.len() && row.iter().all(|(name, value)| fields.get(name).is_some_and(|other| same(value, other)))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| PathBuf::from(path), PathBuf::from).to_string_lossy().into_owned()
}

/// The message of `error` without the path, which a [`Problem`] has already.
fn without_path(error: &Error) -> String {
    match error {
        Error::Format { place, message, .. } if place.is_empty() => message.clone(),
        Error::Format { place, message, .. } => format!("{place}: {message}"),
        Error::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        other => other.to_string(),
    }
}
