//! Writing one shard, sample by sample, so that it can be continued after a crash at any moment.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::disk::{self, AppendFile};
use super::encode::ImageFormat;
use super::journal::{self, Entry, Header, Journal};
use super::layout::{ShardPaths, sample_key, shard_name};
use super::sample::{self, Column, Outcome, Sample};
use super::stats::{self, ShardStats};
use super::{table, ustar};
use crate::{Error, Result, files};

/// What all shards of a folder have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSettings {
    /// Samples in a full shard; sets the digits of the keys. The last shard may hold fewer.
    pub shard_size: usize,
    /// Format of the images; sets the extension of the members.
    pub format: ImageFormat,
    /// Columns of json and parquet beside `key`, `caption`, `status`, `error_message` and `sha256`.
    pub columns: Vec<Column>,
    /// [`RunManifest::config_sha256`](super::RunManifest::config_sha256): a shard begun under another one is not continued.
    pub config_sha256: String,
}

/// A shard as [`ShardWriter::open`] finds it.
#[derive(Debug)]
pub enum Shard {
    /// Finished by an earlier run.
    Done(ShardStats),
    /// To be written, from sample [`ShardWriter::completed`] on.
    Open(Box<ShardWriter>),
}

/// Writes one shard. Dropping it before [`finish`](ShardWriter::finish) keeps the complete samples for the next run.
#[derive(Debug)]
pub struct ShardWriter {
    dir: PathBuf,
    paths: ShardPaths,
    shard_id: u32,
    settings: ShardSettings,
    pub(super) tar: AppendFile,
    tar_hasher: Sha256,
    /// Also carries the lock that keeps other processes from this shard.
    pub(super) journal: AppendFile,
    rows: Vec<Map<String, Value>>,
    start_time: f64,
    /// Seconds of work of earlier runs.
    seconds_before: f64,
    opened: Instant,
}

impl ShardWriter {
    /// Opens shard `shard_id` of folder `dir`, creating both if need be, and recovers the samples already in it.
    ///
    /// # Errors
    /// If another process is writing the shard, if it was begun under another configuration, if files with its names are
    /// there that this program did not write, or if the folder cannot be written.
    pub fn open(dir: &Path, shard_id: u32, settings: &ShardSettings) -> Result<Shard> {
        fs::create_dir_all(dir).map_err(Error::io("create folder", dir))?;
        let paths = ShardPaths::new(dir, shard_id);
        if let Some(stats) = finished(&paths, settings)? {
            return Ok(Shard::Done(stats));
        }
        let mut journal_file = disk::open_read_write(&paths.journal)?;
        lock(&journal_file, &paths.journal, shard_id)?;
        // Another process may have finished it between the first look and the lock.
        if let Some(stats) = finished(&paths, settings)? {
            return Ok(Shard::Done(stats));
        }
        let mut bytes = Vec::new();
        journal_file.read_to_end(&mut bytes).map_err(Error::io("read", &paths.journal))?;
        let journal = Journal::parse(&bytes, shard_id);
        if let Some(header) = &journal.header {
            same_configuration(&paths.journal, &header.config_sha256, settings)?;
        }
        Self::recover(dir, paths, shard_id, settings, journal_file, journal).map(|writer| Shard::Open(Box::new(writer)))
    }

    /// Finds the complete samples of the partial tar and cuts everything behind them.
    fn recover(
        dir: &Path,
        paths: ShardPaths,
        shard_id: u32,
        settings: &ShardSettings,
        journal_file: File,
        journal: Journal,
    ) -> Result<ShardWriter> {
        reclaim_final_names(&paths, &journal)?;
        let tar_file = disk::open_read_write(&paths.partial_tar)?;
        let mut writer = ShardWriter {
            dir: dir.to_path_buf(),
            shard_id,
            settings: settings.clone(),
            tar_hasher: Sha256::new(),
            rows: Vec::new(),
            start_time: journal.header.as_ref().map_or_else(now, |header| header.start_time),
            seconds_before: 0.0,
            opened: Instant::now(),
            tar: AppendFile::new(tar_file, &paths.partial_tar, 0),
            journal: AppendFile::new(journal_file, &paths.journal, 0),
            paths,
        };
        if journal.header.is_some() {
            writer.journal.advance(journal.header_end);
            for (entry, journal_end) in journal.entries {
                if !writer.accept(entry)? {
                    break;
                }
                writer.journal.advance(journal_end);
            }
        } else {
            let header = Header::new(shard_id, &writer.settings.config_sha256, writer.start_time);
            writer.journal.append(&journal::line(&writer.paths.journal, &header)?)?;
        }
        writer.tar.trim_and_sync()?;
        writer.journal.trim_and_sync()?;
        files::sync_folder(dir)?;
        Ok(writer)
    }

    /// The time that is recorded for the shard counts from now on, for a shard that was opened ahead of its work.
    pub fn restart_clock(&mut self) {
        self.opened = Instant::now();
    }

    /// Takes over a sample of an earlier run, if the tar really holds it.
    fn accept(&mut self, entry: Entry) -> Result<bool> {
        let key = self.key(self.rows.len());
        let start = self.tar.end();
        let plausible = self.rows.len() < self.settings.shard_size
            && entry.end >= start
            && entry.row.get("key").and_then(Value::as_str) == Some(&key)
            && sample::fits(&entry.row, &self.settings.columns);
        if !plausible {
            return Ok(false);
        }
        let Some(bytes) = self.tar.read_next(entry.end - start)? else { return Ok(false) };
        if files::sha256_hex(&bytes) != entry.sha256 {
            return Ok(false);
        }
        self.tar.advance(entry.end);
        self.tar_hasher.update(&bytes);
        self.seconds_before = entry.seconds;
        self.rows.push(entry.row);
        Ok(true)
    }

    /// Samples already in the shard: the index of the next one to push.
    pub fn completed(&self) -> usize {
        self.rows.len()
    }

    /// Id of the shard.
    pub fn shard_id(&self) -> u32 {
        self.shard_id
    }

    /// Key of the sample at `index` of this shard.
    pub fn key(&self, index: usize) -> String {
        sample_key(self.shard_id, index, self.settings.shard_size)
    }

    /// Adds the next sample. When this returns, the sample survives the death of the process.
    ///
    /// # Errors
    /// If it cannot be written; the shard is then as it was before, and the same sample can be pushed again.
    pub fn push(&mut self, sample: &Sample) -> Result<()> {
        let index = self.rows.len();
        if sample.index != index || index >= self.settings.shard_size {
            let message = format!("sample {} of shard {} pushed where {index} was due", sample.index, self.shard_id);
            return Err(Error::Internal { op: "shards", message });
        }
        let key = self.key(index);
        let row = sample::row(sample, &key, &self.settings.columns)?;
        let members = self.members(sample, &key, &row)?;
        let (tar_end, seconds) = (self.tar.end(), self.seconds_before + self.opened.elapsed().as_secs_f64());
        let entry = Entry { end: tar_end + members.len() as u64, sha256: files::sha256_hex(&members), seconds, row };
        let line = journal::line(&self.paths.journal, &entry)?;
        self.tar.append(&members)?;
        if let Err(error) = self.journal.append(&line) {
            self.tar.rewind(tar_end);
            return Err(error);
        }
        self.tar_hasher.update(&members);
        self.rows.push(entry.row);
        Ok(())
    }

    /// What `sample` adds to the tar: image, caption and json; nothing if it failed.
    fn members(&self, sample: &Sample, key: &str, row: &Map<String, Value>) -> Result<Vec<u8>> {
        let Outcome::Image(image) = &sample.outcome else { return Ok(Vec::new()) };
        let json = pretty_json(&self.paths.tar, row)?;
        let mut members = Vec::with_capacity(image.len() + json.len() + sample.caption.len() + 6 * ustar::BLOCK);
        let contents =
            [(self.settings.format.extension(), image.as_slice()), ("txt", sample.caption.as_bytes()), ("json", &json)];
        for (extension, content) in contents {
            if !ustar::append_member(&mut members, &format!("{key}.{extension}"), content) {
                return Err(Error::format(&self.paths.tar, format!("{key}.{extension}"), "too large for a tar member"));
            }
        }
        Ok(members)
    }

    /// Gives the files their final names, the stats last, and removes what was kept for a restart.
    pub fn finish(mut self) -> Result<ShardStats> {
        // The journal must be durable before the tar gets its name: it is what proves the tar ours after a crash in between.
        self.journal.trim_and_sync()?;
        self.tar.append(&ustar::END)?;
        self.tar_hasher.update(ustar::END);
        self.tar.trim_and_sync()?;
        let columns = sample::all_columns(&self.settings.columns);
        let parquet = table::encode_table(&self.paths.parquet, &columns, &self.rows)?;
        files::write_atomic(&self.paths.parquet, &parquet)?;
        disk::rename(&self.paths.partial_tar, &self.paths.tar)?;
        files::sync_folder(&self.dir)?;
        let stats = self.stats(&parquet);
        stats::write_stats(&self.paths.stats, &stats)?;
        files::remove_if_there(&self.paths.journal)?;
        files::sync_folder(&self.dir)?;
        Ok(stats)
    }

    fn stats(&self, parquet: &[u8]) -> ShardStats {
        let mut status_dict = BTreeMap::new();
        for row in &self.rows {
            let reason = row.get("error_message").and_then(Value::as_str).unwrap_or(sample::SUCCESS);
            *status_dict.entry(reason.to_string()).or_insert(0) += 1;
        }
        let failures = self.rows.iter().filter(|row| sample::has_failed(row)).count() as u64;
        let count = self.rows.len() as u64;
        ShardStats {
            count,
            successes: count - failures,
            failed_to_download: 0,
            failed_to_resize: 0,
            duration: self.seconds_before + self.opened.elapsed().as_secs_f64(),
            start_time: self.start_time,
            end_time: now(),
            status_dict,
            failed_to_generate: failures,
            tar_size: self.tar.end(),
            tar_sha256: files::hex(&self.tar_hasher.clone().finalize()),
            parquet_size: parquet.len() as u64,
            parquet_sha256: files::sha256_hex(parquet),
            shard_size: self.settings.shard_size as u64,
            config_sha256: self.settings.config_sha256.clone(),
            syntic_version: crate::VERSION.to_string(),
        }
    }
}

/// The stats of the shard if it is done, after removing what a crash in the last step of [`ShardWriter::finish`] left.
fn finished(paths: &ShardPaths, settings: &ShardSettings) -> Result<Option<ShardStats>> {
    let Some(stats) = stats::read_stats(&paths.stats)? else { return Ok(None) };
    same_configuration(&paths.stats, &stats.config_sha256, settings)?;
    files::remove_if_there(&paths.journal)?;
    Ok(Some(stats))
}

/// Undoes the last renames of a [`ShardWriter::finish`] that was cut short; refuses files that this program did not write.
fn reclaim_final_names(paths: &ShardPaths, journal: &Journal) -> Result<()> {
    let tar_there = disk::exists(&paths.tar)?;
    if journal.header.is_none() && (tar_there || disk::exists(&paths.parquet)?) {
        files::remove_if_there(&paths.journal)?;
        let theirs = if tar_there { &paths.tar } else { &paths.parquet };
        return Err(foreign(theirs));
    }
    if !tar_there {
        return Ok(());
    }
    let length = fs::metadata(&paths.tar).map_err(Error::io("look at", &paths.tar))?.len();
    let expected = journal.entries.last().map_or(0, |(entry, _)| entry.end).checked_add(ustar::END.len() as u64);
    if disk::exists(&paths.partial_tar)? || Some(length) != expected {
        return Err(foreign(&paths.tar));
    }
    disk::refuse_symlink(&paths.tar)?;
    disk::rename(&paths.tar, &paths.partial_tar)
}

fn foreign(path: &Path) -> Error {
    Error::usage(
        format!("{} is in the way: it has no stats file, so no finished run of syntic wrote it", path.display()),
        "move the file away, or choose another output folder",
    )
}

fn same_configuration(path: &Path, config_sha256: &str, settings: &ShardSettings) -> Result<()> {
    if config_sha256 == settings.config_sha256 {
        return Ok(());
    }
    Err(Error::usage(
        format!("{} was made with another configuration (SHA-256 {config_sha256})", path.display()),
        "choose another output folder, or remove the files of this shard to make it anew",
    ))
}

/// Takes the lock of a shard, held as long as `file` is open. File systems without locks are trusted to have one writer.
fn lock(file: &File, path: &Path, shard_id: u32) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::usage(
            format!("another process is writing shard {} ({})", shard_name(shard_id), path.display()),
            "wait for it, or give each process its own --worker-index",
        )),
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// The json of a sample, indented by 4 as img2dataset does.
fn pretty_json(path: &Path, row: &Map<String, Value>) -> Result<Vec<u8>> {
    let mut json = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"    "));
    row.serialize(&mut serializer).map_err(|e| Error::format(path, "", format!("cannot be written as JSON: {e}")))?;
    Ok(json)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
