//! Files and folders: bounded reads, digests, and writes that a crash leaves whole or undone.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Lower-case hexadecimal of a digest.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Size and SHA-256 of the file at `path`, read in pieces.
pub(crate) fn file_digest(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 20], 0u64);
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok((size, hex(&hasher.finalize())));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// The text of `file`, which is at `path`: UTF-8, of at most `limit` bytes.
pub(crate) fn read_text(file: File, path: &Path, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::format(path, "", format!("is larger than the {limit} bytes that such a file can have")));
    }
    String::from_utf8(bytes).map_err(|e| Error::format(path, format!("byte {}", e.utf8_error().valid_up_to()), "is not UTF-8"))
}

/// Waits for the lock of `file`, which is at `path`; held as long as it is open. Some network file systems have no locks: there
/// nothing keeps processes apart.
pub(crate) fn lock(file: &File, path: &Path) -> Result<()> {
    match file.lock() {
        Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(Error::io("lock", path)(e)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Folders cannot be opened on Windows, where renames are journalled anyway.
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync folder", folder))?;
    }
    Ok(())
}

/// Removes `path` if it is there.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Where `path` is written before it gets its name: `.<name>.tmp` beside it.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Writes `bytes` to `path` in one step: temporary name, fsync, rename, fsync of the folder.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_from(path, |file| file.write_all(bytes))
}

/// [`write_atomic`] for content that is written in pieces. If that fails nothing is left behind.
pub(crate) fn write_atomic_from(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    write_atomic_with(path, |file| write(file).map_err(Error::io("write", path)))
}

/// [`write_atomic_from`] for pieces whose making can fail too.
pub(crate) fn write_atomic_with(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let temporary = temporary_path(path);
    remove_if_there(&temporary)?;
    // `create_new`: never through a link.
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(Error::io("create", &temporary))?;
    let mut file = BufWriter::new(file);
    let sync = |mut file: BufWriter<File>| file.flush().and_then(|()| file.get_ref().sync_all());
    let written = write(&mut file).and_then(|()| sync(file).map_err(Error::io("write", path)));
    let named = written.and_then(|()| fs::rename(&temporary, path).map_err(Error::io("rename to", path)));
    if let Err(error) = named {
        _ = remove_if_there(&temporary); // the first error is the one to report
        return Err(error);
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Refuses to go on if something other than a regular file is at `path`, which a rename would replace: a link, a folder, or a
/// device such as `/dev/stdout`.
pub(crate) fn refuse_special(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Error::usage(
            format!("{} is not a regular file: it is not replaced", path.display()),
            "name a file to write, that exists or not",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_from(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(error, Err(Error::Io { action: "write", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let error = write_atomic(folder.path(), b"a folder is in the way");
        assert!(matches!(error, Err(Error::Io { action: "rename to", .. })), "{error:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is left");
        assert!(!temporary_path(folder.path()).exists(), "the temporary file is left");
    }

    #[test]
    fn digests_are_those_of_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2
        assert_eq!(file_digest(&path).unwrap(), (3, expected.to_string()));
        assert_eq!(sha256_hex(b"abc"), expected);
    }

    #[test]
    fn texts_are_bounded_and_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_text(File::open(&path).unwrap(), &path, 4).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"four"), Ok("four".into()));
        assert!(read(b"fiver").unwrap_err().contains("larger than the 4 bytes"));
        assert!(read(b"ab\xff").unwrap_err().contains("byte 2"));
    }
}
