//! The journal of a shard in progress: which samples of the partial tar are complete.
//!
//! One JSON document a line: a header, then one entry per sample, written after the sample's bytes. After a crash the last
//! line, and the tail of the partial tar, may be torn, and after a power cut either file may have lost more; so an entry
//! counts only if the tar really holds the bytes whose digest it gives.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Version of the journal; a journal of another version is not continued.
const VERSION: u32 = 1;

/// First line: what is being made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    version: u32,
    pub shard_id: u32,
    pub config_sha256: String,
    /// When the shard was begun, seconds since 1970.
    pub start_time: f64,
}

impl Header {
    pub fn new(shard_id: u32, config_sha256: &str, start_time: f64) -> Header {
        Header { version: VERSION, shard_id, config_sha256: config_sha256.to_string(), start_time }
    }
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Length of the tar once the sample is in it.
    pub end: u64,
    /// SHA-256 of what the sample added to the tar, in hexadecimal.
    pub sha256: String,
    /// Seconds of work on the shard so far.
    pub seconds: f64,
    /// The json of the sample.
    pub row: Map<String, Value>,
}

/// One line, with its line feed.
pub(super) fn line(path: &Path, document: &impl Serialize) -> Result<Vec<u8>> {
    let mut line =
        serde_json::to_vec(document).map_err(|e| Error::format(path, "", format!("cannot be written as JSON: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// What could be read of a journal.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Journal {
    /// `None` if not even the first line is whole, or it is about another shard.
    pub header: Option<Header>,
    /// Length of the header line in bytes.
    pub header_end: u64,
    /// Each entry with the length of the journal up to and including it.
    pub entries: Vec<(Entry, u64)>,
}

impl Journal {
    /// Reads the journal of shard `shard_id`: whole lines up to the first that is torn or damaged.
    pub fn parse(bytes: &[u8], shard_id: u32) -> Journal {
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let Some(first) = lines.next() else { return Journal::default() };
        let header = serde_json::from_slice::<Header>(first).ok();
        let Some(header) = header.filter(|header| header.version == VERSION && header.shard_id == shard_id) else {
            return Journal::default();
        };
        let mut journal = Journal { header: Some(header), header_end: first.len() as u64, entries: Vec::new() };
        let mut end = journal.header_end;
        for line in lines {
            let Ok(entry) = serde_json::from_slice(line) else { break };
            end += line.len() as u64;
            journal.entries.push((entry, end));
        }
        journal
    }
}
