//! Files that appear under their name only when they are complete.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Buffer for small pieces; larger ones go straight to the file.
const BUFFER: usize = 1 << 18;

/// Writes a file under a temporary name beside it, syncs it, then renames it. On failure the temporary file is removed.
///
/// # Errors
/// [`Error::Io`] with the path and the step that failed.
pub(super) fn write_atomically(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(BUFFER, File::create(&temporary)?);
        content(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()
    };
    let result = write().map_err(Error::io("write", &temporary));
    let result = result.and_then(|()| fs::rename(&temporary, path).map_err(Error::io("rename to", path)));
    if result.is_err() {
        _ = fs::remove_file(&temporary); // the first error is the one to report
    }
    result?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("sync", folder))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, |file| file.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(matches!(error, Err(Error::Io { action: "write", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is left");
    }
}
