//! JSON files of a model folder, and the rule for links that keeps reads inside a Hugging Face cache.

use crate::{Error, Result, files};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Largest JSON file that is read: configurations are kilobytes, an index or a vocabulary a few megabytes.
const MAX_JSON_BYTES: u64 = 32 << 20;

/// Reads a JSON file of at most 32 MiB.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Format`] with the line if it is too large or not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = read_text(path, MAX_JSON_BYTES)?;
    serde_json::from_str(&text).map_err(|e| Error::format(path, format!("line {}", e.line()), format!("not valid JSON: {e}")))
}

/// Reads a UTF-8 file of a model folder, of at most `limit` bytes, without the byte order mark that some editors write.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is larger, not UTF-8, or a link out of its repository.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let file = File::open(resolve(path)?).map_err(Error::io("read", path))?;
    let text = files::read_text(file, path, limit)?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_string).unwrap_or(text))
}

/// The real path of a regular file. In a snapshot of a Hugging Face cache files are links, which may lead into the same repository's
/// `blobs/` or stay in the snapshot, and nowhere else.
///
/// # Errors
/// [`Error::Io`] for a missing file or dangling link, [`Error::Format`] for a folder or device, or a link that leaves its repository.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(Error::io("read", path))?;
    if !real.is_file() {
        return Err(Error::format(path, "", "not a regular file"));
    }
    let Some((repository, snapshot)) = cache_position(path) else { return Ok(real) };
    let allowed = [repository.join("blobs"), snapshot];
    if allowed.iter().any(|root| root.canonicalize().is_ok_and(|root| real.starts_with(root))) {
        return Ok(real);
    }
    Err(Error::format(path, "", format!("a link that leaves its repository in the cache, to {}", real.display())))
}

/// Repository folder and snapshot folder of a path like `.../models--ORG--NAME/snapshots/COMMIT/...`, links not followed.
fn cache_position(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let path = std::path::absolute(path).ok()?;
    let name = |p: &Path| Some(p.file_name()?.to_string_lossy().into_owned());
    path.ancestors().find_map(|snapshot| {
        let snapshots = snapshot.parent()?;
        let repository = snapshots.parent()?;
        let matches = name(snapshots)? == "snapshots" && name(repository)?.starts_with("models--");
        matches.then(|| (repository.to_path_buf(), snapshot.to_path_buf()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_recognised_anywhere_in_a_path() {
        let (repository, snapshot) = cache_position(Path::new("/c/hub/models--a--b/snapshots/123/unet/x.json")).unwrap();
        assert_eq!(repository, Path::new("/c/hub/models--a--b"));
        assert_eq!(snapshot, Path::new("/c/hub/models--a--b/snapshots/123"));
        assert!(cache_position(Path::new("/models/sd15/unet/x.json")).is_none());
    }

    #[test]
    fn broken_json_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "{\n \"a\": 1,\n}").unwrap();
        assert!(read_json(&path).unwrap_err().to_string().contains("line 3"));
        std::fs::write(&path, "\u{FEFF}{\"a\": 1}").unwrap();
        assert_eq!(read_json(&path).unwrap()["a"], 1);
        assert!(matches!(read_json(&folder.path().join("none.json")), Err(Error::Io { .. })));
    }
}
