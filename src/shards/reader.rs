//! Reading shards from anywhere, without trusting them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ustar::{BLOCK, Header, MAX_NAME, Pax};
use crate::{Error, Result};

/// What a shard may ask of the reader.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Largest member in bytes.
    pub max_member: u64,
    /// Most members in one shard.
    pub max_members: usize,
}

impl Default for ReadLimits {
    /// Members of 128 MiB, and a million of them.
    fn default() -> ReadLimits {
        ReadLimits { max_member: 128 << 20, max_members: 1_000_000 }
    }
}

/// Largest block of PAX records.
const MAX_PAX: u64 = 1 << 16;

/// The adjacent members of a shard that share a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSample {
    /// Path of the members up to the first dot of the file name.
    pub key: String,
    /// What follows that dot, with the content, in the order of the archive.
    pub parts: Vec<(String, Vec<u8>)>,
}

impl StoredSample {
    /// The content of member `KEY.extension`.
    pub fn part(&self, extension: &str) -> Option<&[u8]> {
        self.parts.iter().find(|(name, _)| name == extension).map(|(_, content)| content.as_slice())
    }

    /// Extension and content of the image: `jpg`, `jpeg`, `png` or `webp`.
    pub fn image(&self) -> Option<(&str, &[u8])> {
        let image = self.parts.iter().find(|(name, _)| matches!(name.as_str(), "jpg" | "jpeg" | "png" | "webp"));
        image.map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    /// The caption: `KEY.txt` if it is there and UTF-8.
    pub fn caption(&self) -> Option<&str> {
        self.part("txt").and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The fields of `KEY.json` if it is there and an object.
    pub fn fields(&self) -> Option<Map<String, Value>> {
        self.part("json").and_then(|bytes| serde_json::from_slice(bytes).ok())
    }
}

/// Streams the samples of a tar; each item is a sample or the error after which there are no more.
///
/// Refused: names that are absolute, hold `..`, an odd character or a dot before the extension; anything but regular files;
/// members over the limits, checked before memory is taken; a key or name that comes twice; PAX sizes that contradict the
/// header; sparse files; an archive without its end, or with something behind it.
#[derive(Debug)]
pub struct ShardReader<R> {
    input: R,
    path: PathBuf,
    limits: ReadLimits,
    members: usize,
    keys: HashSet<String>,
    /// First member of the next sample.
    pending: Option<(String, String, Vec<u8>)>,
    finished: bool,
}

/// Opens the tar at `path` with the default limits.
pub fn read_shard(path: &Path) -> Result<ShardReader<BufReader<File>>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    Ok(ShardReader::new(BufReader::new(file), path, ReadLimits::default()))
}

impl<R: Read> ShardReader<R> {
    /// Reads a tar from `input`; `path` is for messages only.
    pub fn new(input: R, path: &Path, limits: ReadLimits) -> ShardReader<R> {
        let path = path.to_path_buf();
        ShardReader { input, path, limits, members: 0, keys: HashSet::new(), pending: None, finished: false }
    }

    /// The next sample, or `None` at the end of the archive.
    fn next_sample(&mut self) -> Result<Option<StoredSample>> {
        let first = match self.pending.take() {
            Some(member) => Some(member),
            None => self.next_member()?,
        };
        let Some((key, extension, content)) = first else { return Ok(None) };
        if !self.keys.insert(key.clone()) {
            return Err(self.malformed(format!("the members of key {key} are not adjacent")));
        }
        let mut sample = StoredSample { key, parts: vec![(extension, content)] };
        while let Some((key, extension, content)) = self.next_member()? {
            if key != sample.key {
                self.pending = Some((key, extension, content));
                break;
            }
            if sample.part(&extension).is_some() {
                return Err(self.malformed(format!("two members are called {key}.{extension}")));
            }
            sample.parts.push((extension, content));
        }
        Ok(Some(sample))
    }

    /// Key, extension and content of the next member, or `None` at the end of the archive.
    fn next_member(&mut self) -> Result<Option<(String, String, Vec<u8>)>> {
        let mut pax = Pax::default();
        loop {
            if self.finished {
                return Ok(None);
            }
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block).map_err(|e| self.truncated(e))?;
            match Header::parse(&block).map_err(|message| self.malformed(message))? {
                Header::End => {
                    self.finished = true;
                    self.expect_only_zeros()?;
                }
                Header::Pax { size, global } => {
                    let records = self.content(size, MAX_PAX, "PAX records")?;
                    let parsed = Pax::parse(&records).map_err(|message| self.malformed(message))?;
                    if !global {
                        pax = parsed;
                    } else if parsed != Pax::default() {
                        return Err(self.malformed("a global PAX record that renames or resizes every member".into()));
                    }
                }
                Header::File { name, size } => {
                    let name = pax.path.take().unwrap_or(name);
                    if pax.size.is_some_and(|other| other != size) {
                        return Err(self.malformed(format!("{name:?} has two different sizes")));
                    }
                    let (key, extension) = split_name(&name).map_err(|why| self.malformed(format!("member {name:?}: {why}")))?;
                    self.members += 1;
                    if self.members > self.limits.max_members {
                        return Err(self.malformed(format!("more than {} members", self.limits.max_members)));
                    }
                    let content = self.content(size, self.limits.max_member, &name)?;
                    return Ok(Some((key.to_string(), extension.to_string(), content)));
                }
            }
        }
    }

    /// The `size` bytes behind a header, without their padding. Memory grows with what is really there.
    fn content(&mut self, size: u64, limit: u64, name: &str) -> Result<Vec<u8>> {
        if size > limit {
            return Err(self.malformed(format!("{name}: {size} bytes, more than the {limit} allowed")));
        }
        let mut content = Vec::new();
        let padded = size.next_multiple_of(BLOCK as u64);
        let read = (&mut self.input).take(padded).read_to_end(&mut content).map_err(Error::io("read", &self.path))?;
        if read as u64 != padded {
            return Err(self.truncated(io::ErrorKind::UnexpectedEof.into()));
        }
        content.truncate(size as usize);
        Ok(content)
    }

    /// Reads the padding behind the end: anything else there would be hidden from other readers.
    fn expect_only_zeros(&mut self) -> Result<()> {
        let mut buffer = [0; 1 << 13];
        loop {
            match self.input.read(&mut buffer).map_err(Error::io("read", &self.path))? {
                0 => return Ok(()),
                n if buffer[..n].iter().all(|&byte| byte == 0) => {}
                _ => return Err(self.malformed("data behind the end of the archive".into())),
            }
        }
    }

    fn truncated(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed("the archive is cut off".into()),
            _ => Error::io("read", &self.path)(error),
        }
    }

    fn malformed(&self, message: String) -> Error {
        Error::format(&self.path, format!("member {}", self.members), message)
    }
}

impl<R: Read> Iterator for ShardReader<R> {
    type Item = Result<StoredSample>;

    fn next(&mut self) -> Option<Result<StoredSample>> {
        let sample = self.next_sample();
        if sample.is_err() {
            (self.finished, self.pending) = (true, None);
        }
        sample.transpose()
    }
}

/// Splits the name of a member at the first dot of its last component, as WebDataset does; the error says what is wrong.
fn split_name(name: &str) -> std::result::Result<(&str, &str), &'static str> {
    if name.len() > MAX_NAME {
        return Err("longer than 100 bytes");
    }
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.').ok_or("no extension")? + base;
    let (key, extension) = (&name[..dot], &name[dot + 1..]);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if key.split('/').any(|part| part.is_empty() || !part.bytes().all(plain)) {
        return Err("a key may have letters, digits, - and _, in parts separated by /");
    }
    if extension.is_empty() || !extension.bytes().all(|byte| plain(byte) || byte == b'.') {
        return Err("an extension may have letters, digits, -, _ and dots");
    }
    Ok((key, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(split_name("00000001.jpg"), Ok(("00000001", "jpg")));
        assert_eq!(split_name("train/a_b-c.seg.png"), Ok(("train/a_b-c", "seg.png")));
        for bad in
            ["", "a", ".jpg", "a.", "/a.jpg", "../a.jpg", "a/../b.jpg", "./a.jpg", "a//b.jpg", "a b.jpg", "a\n.jpg", "é.jpg"]
        {
            assert!(split_name(bad).is_err(), "{bad:?}");
        }
        assert!(split_name(&format!("{}.jpg", "a".repeat(97))).is_err());
    }
}
