//! `NNNNN_stats.json`: img2dataset's counts, plus what is needed to check the files of the shard.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk;
use super::layout::ShardPaths;
use crate::{Error, Result, files};

/// Counts, times and digests of a finished shard. The first eight fields are img2dataset's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardStats {
    /// Samples, failures included.
    pub count: u64,
    /// Samples with an image.
    pub successes: u64,
    /// Always 0 here; img2dataset's tools expect the field.
    pub failed_to_download: u64,
    /// Always 0 here; img2dataset's tools expect the field.
    pub failed_to_resize: u64,
    /// Seconds of work, the time between an interruption and the restart left out.
    pub duration: f64,
    /// When the shard was begun, seconds since 1970.
    pub start_time: f64,
    /// When the shard was finished, seconds since 1970.
    pub end_time: f64,
    /// Samples by outcome: "success", or the reason of the failure.
    pub status_dict: BTreeMap<String, u64>,
    /// Samples without an image.
    pub failed_to_generate: u64,
    /// Size of the tar in bytes.
    pub tar_size: u64,
    /// SHA-256 of the tar.
    pub tar_sha256: String,
    /// Size of the parquet in bytes.
    pub parquet_size: u64,
    /// SHA-256 of the parquet.
    pub parquet_sha256: String,
    /// Samples per full shard; sets the digits of the keys.
    pub shard_size: u64,
    /// SHA-256 of the configuration that made the shard, as in the run manifest.
    pub config_sha256: String,
    /// Version of the program that wrote the shard.
    pub syntic_version: String,
}

/// Largest stats file that is read.
const MAX_STATS: u64 = 16 << 20;

/// The stats of shard `shard_id` of folder `dir`, or `None` if it is not done.
pub fn shard_stats(dir: &Path, shard_id: u32) -> Result<Option<ShardStats>> {
    read_stats(&ShardPaths::new(dir, shard_id).stats)
}

/// The stats at `path`, or `None` if there is no such file.
pub(super) fn read_stats(path: &Path) -> Result<Option<ShardStats>> {
    if !disk::exists(path)? {
        return Ok(None);
    }
    parse_stats(path, &disk::read_small(path, MAX_STATS)?).map(Some)
}

/// Parses the content of the stats file at `path`.
pub(super) fn parse_stats(path: &Path, text: &str) -> Result<ShardStats> {
    serde_json::from_str(text)
        .map_err(|e| Error::format(path, format!("line {}", e.line()), format!("not stats of a shard: {e}")))
}

/// Writes `stats` to `path` in one step.
pub(super) fn write_stats(path: &Path, stats: &ShardStats) -> Result<()> {
    let text = serde_json::to_vec_pretty(stats)
        .map_err(|e| Error::Internal { op: "shards", message: format!("stats cannot be written as JSON: {e}") })?;
    files::write_atomic(path, &text)
}
