//! `_run/`: what made the shards of a folder, so that a second run continues the first or is refused.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::disk;
use super::layout::{ShardPaths, shard_id_of};
use crate::{Error, Result, files};

/// Sub-folder of the output folder: img2dataset's reader takes every json at the top for the stats of a shard.
pub(super) const RUN_DIR: &str = "_run";

const CONFIG_FILE: &str = "config.json";

/// Largest configuration that is read.
const MAX_CONFIG: u64 = 64 << 20;

/// One of the processes that share a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// From 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Default for Worker {
    /// The only one.
    fn default() -> Worker {
        Worker { index: 0, count: 1 }
    }
}

/// The configuration of a folder, and this process's right to write there, which ends when it is dropped or the process dies.
#[derive(Debug)]
pub struct RunManifest {
    config: Value,
    config_sha256: String,
    _worker_lock: File,
}

impl RunManifest {
    /// Claims folder `dir` for `config`, every setting that has an influence on the bytes of the shards. The first run
    /// records it in `_run/config.json`; later runs must come with the same. `runtime`, the settings that do not change the
    /// bytes (batch, threads, device), is recorded beside it for information.
    ///
    /// # Errors
    /// If the folder was made with another configuration (each difference is listed), holds tars that this program did not
    /// write, is in use by a process with the same worker index, cannot be written, or if `_run` is or holds a symbolic link.
    pub fn open(dir: &Path, config: &Value, runtime: &Value, worker: Worker) -> Result<RunManifest> {
        let run = dir.join(RUN_DIR);
        disk::refuse_symlink(&run)?;
        let config_path = run.join(CONFIG_FILE);
        if !disk::exists(&config_path)? {
            refuse_foreign_shards(dir, true)?;
        }
        fs::create_dir_all(&run).map_err(Error::io("create folder", &run))?;
        let name = format!("worker-{}-of-{}", worker.index, worker.count);
        let worker_lock = lock_worker(&run.join(format!("{name}.lock")), worker)?;
        record(&config_path, config)?;
        refuse_foreign_shards(dir, false)?;
        let runtime_path = run.join(format!("{name}.json"));
        disk::refuse_symlink(&runtime_path)?;
        files::write_atomic(&runtime_path, &pretty(&runtime_path, runtime)?)?;
        let config_sha256 = config_sha256(config);
        Ok(RunManifest { config: config.clone(), config_sha256, _worker_lock: worker_lock })
    }

    /// The same checks as [`open`](RunManifest::open), without writing anything.
    pub fn check(dir: &Path, config: &Value) -> Result<()> {
        disk::refuse_symlink(&dir.join(RUN_DIR))?;
        if !disk::exists(dir)? {
            return Ok(());
        }
        let path = dir.join(RUN_DIR).join(CONFIG_FILE);
        let known = read_config(&path)?;
        if let Some(known) = &known {
            same(&path, known, config)?;
        }
        refuse_foreign_shards(dir, known.is_none())
    }

    /// The configuration recorded in folder `dir`, or `None` if no run has been there.
    pub fn read(dir: &Path) -> Result<Option<Value>> {
        read_config(&dir.join(RUN_DIR).join(CONFIG_FILE))
    }

    /// The configuration of the folder.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// SHA-256 of the configuration, in hexadecimal: see [`config_sha256`].
    pub fn config_sha256(&self) -> &str {
        &self.config_sha256
    }
}

/// SHA-256, in hexadecimal, of `config` as compact JSON with the keys of every object sorted.
pub fn config_sha256(config: &Value) -> String {
    files::sha256_hex(canonical(config).to_string().as_bytes())
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// Writes `config` to `path` if there is none yet; otherwise they must be equal. Workers that start together take turns.
fn record(path: &Path, config: &Value) -> Result<()> {
    let lock_path = path.with_extension("lock");
    let lock = disk::open_read_write(&lock_path)?;
    files::lock(&lock, &lock_path)?;
    disk::refuse_symlink(path)?;
    match read_config(path)? {
        Some(known) => same(path, &known, config),
        None => {
            let document = json!({
                "syntic_version": crate::VERSION,
                "config_sha256": config_sha256(config),
                "config": config,
            });
            files::write_atomic(path, &pretty(path, &document)?)
        }
    }
}

fn read_config(path: &Path) -> Result<Option<Value>> {
    if !disk::exists(path)? {
        return Ok(None);
    }
    parse_config(path, &disk::read_small(path, MAX_CONFIG)?).map(Some)
}

/// The configuration in the text of a `_run/config.json`.
pub(super) fn parse_config(path: &Path, text: &str) -> Result<Value> {
    let mut document: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| Error::format(path, format!("line {}", e.line()), format!("not a run manifest: {e}")))?;
    let config = document.remove("config").ok_or_else(|| Error::format(path, "key `config`", "missing"))?;
    if document.get("config_sha256").and_then(Value::as_str) != Some(&config_sha256(&config)) {
        return Err(Error::format(
            path,
            "key `config_sha256`",
            "does not belong to the configuration beside it: edited by hand?",
        ));
    }
    Ok(config)
}

/// Refuses a configuration that differs from the one in `path`, and says in what.
fn same(path: &Path, known: &Value, config: &Value) -> Result<()> {
    if known == config {
        return Ok(());
    }
    let (mut old, mut new) = (Map::new(), Map::new());
    flatten("", known, &mut old);
    flatten("", config, &mut new);
    let mut differences = Vec::new();
    for (key, value) in &old {
        match new.get(key) {
            Some(other) if other == value => {}
            other => differences.push(format!("{key}: {value} -> {}", other.map_or("(absent)".to_string(), Value::to_string))),
        }
    }
    differences
        .extend(new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(key, value)| format!("{key}: (absent) -> {value}")));
    Err(Error::usage(
        format!("{}: this folder was made with another configuration:\n  {}", path.display(), differences.join("\n  ")),
        "repeat the settings of the first run to go on, or choose another output folder",
    ))
}

/// The leaves of `value` by dotted path: `{"a": {"b": 1}}` becomes `a.b: 1`. Empty containers are leaves.
fn flatten(path: &str, value: &Value, leaves: &mut Map<String, Value>) {
    let join = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(key, value)| flatten(&join(key), value, leaves)),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, value)| flatten(&join(&i.to_string()), value, leaves));
        }
        leaf => {
            leaves.insert(path.to_string(), leaf.clone());
        }
    }
}

fn lock_worker(path: &Path, worker: Worker) -> Result<File> {
    let file = disk::open_read_write(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::usage(
            format!("worker {} of {} is already running in this folder ({})", worker.index, worker.count, path.display()),
            "wait for it, or give each process its own --worker-index",
        )),
        // Some network file systems have no locks: there the user must not start a worker twice.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// Refuses a folder with tars that this program did not write: all tars if `unclaimed`, else those without stats or journal.
fn refuse_foreign_shards(dir: &Path, unclaimed: bool) -> Result<()> {
    if !disk::exists(dir)? {
        return Ok(());
    }
    match foreign_tars(dir, unclaimed)?.first() {
        None => Ok(()),
        Some(path) => Err(Error::usage(
            format!("{} was not written by a run in this folder", path.display()),
            "move it away, or choose another output folder",
        )),
    }
}

/// Tars at the top of `dir` that are neither finished shards nor shards in progress, in order of name.
pub(super) fn foreign_tars(dir: &Path, unclaimed: bool) -> Result<Vec<PathBuf>> {
    let mut tars = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".tar") {
            continue;
        }
        let ours = match shard_id_of(&name, ".tar") {
            Some(id) if !unclaimed => {
                let paths = ShardPaths::new(dir, id);
                // In this order: the journal goes when the stats are there.
                disk::exists(&paths.journal)? || disk::exists(&paths.stats)?
            }
            _ => false,
        };
        if !ours {
            tars.push(path);
        }
    }
    tars.sort();
    Ok(tars)
}

fn pretty(path: &Path, value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Error::format(path, "", format!("cannot be written as JSON: {e}")))
}
