//! Files of shards in progress: written at their end, never through a link.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result, files};

/// Reads a small text file, refusing one larger than `cap` bytes.
pub(super) fn read_small(path: &Path, cap: u64) -> Result<String> {
    files::read_text(File::open(path).map_err(Error::io("open", path))?, path, cap)
}

/// Whether something is at `path`, a dangling link included.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("look at", path)(e)),
    }
}

/// Refuses to go on if `path` is a symbolic link: writing through it would change a file elsewhere.
pub(super) fn refuse_symlink(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_symlink() => Err(Error::usage(
            format!("{} is a symbolic link: not writing through it", path.display()),
            "remove the link, or choose another output folder",
        )),
        _ => Ok(()),
    }
}

/// Opens `path` for reading and writing, created if missing, never truncated, never through a link.
pub(super) fn open_read_write(path: &Path) -> Result<File> {
    refuse_symlink(path)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(Error::io("open for writing", path))
}

/// Renames `from` to `to`, replacing it.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to", to))
}

/// A file that grows at its end. A failed append leaves the logical end where it was, so it can simply be repeated.
#[derive(Debug)]
pub(super) struct AppendFile {
    path: PathBuf,
    file: File,
    end: u64,
    /// Bytes that still fit on the pretended disk.
    #[cfg(test)]
    pub room: Option<u64>,
}

impl AppendFile {
    /// Appends to `file`, which is at `path`, from offset `end` on; what lies behind is overwritten.
    pub fn new(file: File, path: &Path, end: u64) -> AppendFile {
        AppendFile {
            path: path.to_path_buf(),
            file,
            end,
            #[cfg(test)]
            room: None,
        }
    }

    /// Bytes that count; the file may hold the rest of a failed append behind them.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end;
        let write = |file: &mut File, bytes: &[u8]| {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(bytes)
        };
        #[cfg(test)]
        if let Some(room) = &mut self.room {
            let fits = bytes.len().min(*room as usize);
            *room -= fits as u64;
            if fits < bytes.len() {
                let full = write(&mut self.file, &bytes[..fits]).and(Err(std::io::ErrorKind::StorageFull.into()));
                return full.map_err(Error::io("write", &self.path));
            }
        }
        write(&mut self.file, bytes).map_err(Error::io("write", &self.path))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// The next `length` bytes behind the logical end, or `None` if the file ends before.
    pub fn read_next(&mut self, length: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut read = || {
            self.file.seek(SeekFrom::Start(self.end))?;
            (&self.file).take(length).read_to_end(&mut bytes)
        };
        let n = read().map_err(Error::io("read", &self.path))?;
        Ok((n as u64 == length).then_some(bytes))
    }

    /// Counts what is already in the file, up to `end`.
    pub fn advance(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Takes back the last append: the logical end is `end` again.
    pub fn rewind(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    /// Cuts what lies behind the logical end and makes the content durable.
    pub fn trim_and_sync(&mut self) -> Result<()> {
        self.file.set_len(self.end).map_err(Error::io("truncate", &self.path))?;
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }
}
