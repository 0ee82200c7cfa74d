//! One safetensors file, mapped and checked.

use super::json::resolve;
use crate::{Error, Result};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes before the header: its length as a little-endian u64.
const LENGTH_BYTES: usize = 8;

/// Longest tensor name in bytes; real ones stay below 120.
const MAX_NAME: usize = 1024;

/// A mapped safetensors file whose header has been checked against its length.
#[derive(Debug)]
pub(crate) struct WeightFile {
    /// As the folder names it, links not followed.
    path: PathBuf,
    map: Mmap,
    entries: Vec<Entry>,
    /// As it was when it was opened.
    stamp: Stamp,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Inode, and when it changed in any way, which nobody sets at will.
    inode: Option<(u64, i64, i64)>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let inode = None;
        Stamp { len: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Name in the file.
    pub key: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Bytes from the start of the file; lies inside the map.
    range: Range<usize>,
}

impl WeightFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be mapped; [`Error::Format`] if it is truncated, its header lies about it (overlaps, holes,
    /// sizes), a tensor name appears twice, or it is a link out of its repository in a cache.
    pub fn open(path: &Path) -> Result<WeightFile> {
        let file = File::open(resolve(path)?).map_err(Error::io("read", path))?;
        let stamp = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
        // SAFETY: the map is private and read-only. As with every mapped file, nobody may change it while it is in use: weight
        // files are written once, by tools that replace and do not rewrite them.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let entries = parse(&map).map_err(|message| Error::format(path, "", message))?;
        Ok(WeightFile { path: path.to_path_buf(), map, entries, stamp })
    }

    /// What the file was when it was opened.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// True if the file at this path is still the one that was opened, and was last written at least `ago`: what is written from now on
    /// gives it another [`Stamp`].
    pub fn is_unchanged(&self, ago: Duration) -> bool {
        let now = self.path.metadata().map(|metadata| Stamp::of(&metadata));
        let settled = self.stamp.modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age >= ago);
        settled && now.is_ok_and(|now| now == self.stamp)
    }

    /// True if it was written later than it is now: the clock was set back, or the file copied with the time of another.
    pub fn is_newer_than_now(&self) -> bool {
        self.stamp.modified.is_some_and(|modified| modified > SystemTime::now())
    }

    /// The texts in the header's `__metadata__`.
    pub fn metadata(&self) -> HashMap<String, String> {
        let read = SafeTensors::read_metadata(&self.map).ok();
        read.and_then(|(_, metadata)| metadata.metadata().clone()).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File name, for messages.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of one of this file's entries; empty for an entry that is not.
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        self.map.get(entry.range.clone()).unwrap_or_default()
    }

    /// Gives the pages read so far back to the system; they are read again when touched.
    pub fn release(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is read-only, private and backed by the file, so dropped pages come back with the same content.
            let released = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            drop(released); // only a hint: without it more memory stays resident
        }
    }
}

/// Tensors of a safetensors file, in order of their keys in the header's data.
///
/// Beyond what the `safetensors` crate checks (bounds, overlaps, holes, sizes), refuses tensors that are not aligned inside the
/// data and names that appear twice or that no
/// message could show.
pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Vec<Entry>, String> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err("a Git LFS pointer, not the weights themselves: run `git lfs pull` in its repository".into());
    }
    let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| explain(&e, bytes))?;
    let start = LENGTH_BYTES + header_len;
    check_names(&bytes[LENGTH_BYTES..start])?;
    let mut entries = Vec::new();
    for key in metadata.offset_keys() {
        let Some(info) = metadata.info(&key) else { continue };
        let (begin, end) = info.data_offsets;
        // Other types are refused by name when the tensors are compared with the model's.
        let size = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            _ => 1,
        };
        if !begin.is_multiple_of(size) {
            return Err(format!(
                "tensor `{key}` ({:?}) starts at data offset {begin}, which is not a multiple of {size}",
                info.dtype
            ));
        }
        entries.push(Entry { dtype: info.dtype, shape: info.shape.clone(), range: start + begin..start + end, key });
    }
    Ok(entries)
}

/// The crate's error in words that say what is wrong with the file.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let len = bytes.len();
    let announced = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let reason = match error {
        SafeTensorError::HeaderTooSmall => format!("{len} bytes long, too short for a header"),
        SafeTensorError::HeaderTooLarge => format!("announces a header of {announced} bytes, more than the format allows"),
        SafeTensorError::InvalidHeaderLength => {
            format!("announces a header of {announced} bytes, but the file is only {len} bytes long")
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{name}` overlaps another one, or leaves a hole before it")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("the file is {len} bytes long, and its header describes another length: it is truncated or has extra bytes")
        }
        other => other.to_string(),
    };
    format!("not a valid safetensors file: {reason}; copy or download it again")
}

/// Refuses names that appear twice: serde_json keeps the last, the format forbids them, and tools that keep the first would see
/// another model. Refuses control characters, which would reach the terminal through an error message.
fn check_names(header: &[u8]) -> std::result::Result<(), String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
                if key.len() > MAX_NAME || key.contains(char::is_control) {
                    return Err(serde::de::Error::custom("a tensor name is too long or has control characters"));
                }
                if seen.contains(&key) {
                    return Err(serde::de::Error::custom(format!("tensor `{key}` appears twice")));
                }
                seen.insert(key);
            }
            Ok(())
        }
    }
    let checked = serde_json::Deserializer::from_slice(header).deserialize_map(Names);
    checked.map_err(|e| format!("not a valid safetensors file: {e}"))
}
