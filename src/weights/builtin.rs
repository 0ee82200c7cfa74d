//! The model compiled into the program: unpacked once into the user's cache, and from there a model folder like any other.
//!
//! | file | trained by |
//! |---|---|
//! | `model_index.json`, `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/` | `tools/tinyworld/train.py`, on the pictures of [`tinyworld`](crate::tinyworld) |
//! | `clip/` | the same; its text tower is the text encoder |

use crate::{Error, Result, files};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What the user calls the built-in model, wherever a model or a CLIP is asked for.
pub const BUILTIN: &str = "builtin";

macro_rules! embedded {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_bytes!(concat!("assets/builtin/", $name)))),+] };
}

/// Relative path and content of every file.
const FILES: &[(&str, &[u8])] = embedded![
    "model_index.json",
    "training.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "clip/config.json",
    "clip/merges.txt",
    "clip/model.safetensors",
    "clip/preprocessor_config.json",
    "clip/special_tokens_map.json",
    "clip/tokenizer_config.json",
    "clip/vocab.json",
];

/// The folder of the built-in model, unpacked if it is not there, or not whole. `SYNTIC_CACHE` moves it.
///
/// # Errors
/// [`Error::Usage`] if there is no cache folder, or it cannot be written.
pub(super) fn unpacked() -> Result<PathBuf> {
    unpack(&cache_folder(|name| std::env::var_os(name))?)
}

/// Where the built-in model is, or will be, unpacked.
///
/// # Errors
/// As [`unpacked`].
pub(super) fn folder() -> Result<PathBuf> {
    Ok(folder_in(&cache_folder(|name| std::env::var_os(name))?))
}

fn folder_in(cache: &Path) -> PathBuf {
    cache.join(format!("{BUILTIN}-{}", &IDENTITY[..16]))
}

/// The unpacked model under `cache`. Processes that start together take turns; files in use are replaced, not written to.
fn unpack(cache: &Path) -> Result<PathBuf> {
    let folder = folder_in(cache);
    if damaged(&folder).next().is_none() {
        return Ok(folder);
    }
    let written = (|| {
        fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        let lock_path = folder.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        files::lock(&lock, &lock_path)?; // where there are no locks, two first starts at once may leave a torn file: the next mends it
        for (path, content) in damaged(&folder) {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::io("create folder", parent))?;
            }
            files::write_atomic(&path, content)?;
        }
        Ok(())
    })();
    written.map_err(|cause: Error| {
        Error::usage(
            format!("the built-in model cannot be unpacked: {cause}"),
            "set SYNTIC_CACHE to a folder that can be written (16 MiB)",
        )
    })?;
    Ok(folder)
}

/// Files of the folder that are missing or differ from what is built in.
fn damaged(folder: &Path) -> impl Iterator<Item = (PathBuf, &'static [u8])> {
    let files = FILES.iter().map(|&(name, content)| (folder.join(name), content));
    files.filter(|(path, content)| !fs::read(path).is_ok_and(|found| found == *content))
}

/// SHA-256 of all names and contents, in hexadecimal: versions of the program with different models do not share a folder.
static IDENTITY: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = Sha256::new();
    for (name, content) in FILES {
        hasher.update(format!("{name} {}\n", content.len()));
        hasher.update(content);
    }
    files::hex(&hasher.finalize())
});

/// `SYNTIC_CACHE`, else `syntic` in the user's cache folder.
///
/// # Errors
/// [`Error::Usage`] if there is no such folder.
pub(super) fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("SYNTIC_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("syntic")))
        .or_else(|| path("LOCALAPPDATA").map(|cache| cache.join("syntic")))
        .or_else(|| path("HOME").map(|home| home.join(".cache/syntic")))
        .ok_or_else(|| {
            Error::usage("there is no cache folder for the built-in model and packed weights", "set SYNTIC_CACHE to a folder")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_folder_is_built_in_and_small_enough() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/weights/assets/builtin");
        let mut there = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    there.insert(path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"));
                }
            }
        }
        assert_eq!(there, FILES.iter().map(|(name, _)| name.to_string()).collect());
        let bytes: usize = FILES.iter().map(|(_, content)| content.len()).sum();
        assert!(bytes <= 16 << 20, "{bytes} bytes");
    }

    #[test]
    fn unpacking_mends_what_is_missing_or_damaged_and_leaves_the_rest() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack(cache.path()).unwrap();
        let config = folder.join("unet/config.json");
        let (index, written) = (folder.join("model_index.json"), fs::metadata(&config).unwrap().modified().unwrap());
        fs::write(&index, "torn").unwrap();
        fs::remove_dir_all(folder.join("vae")).unwrap();
        assert_eq!(damaged(&folder).count(), 3);
        assert_eq!(unpack(cache.path()).unwrap(), folder);
        assert_eq!(damaged(&folder).count(), 0);
        assert_eq!(fs::metadata(&config).unwrap().modified().unwrap(), written, "a whole file was written again");
    }

    #[test]
    fn threads_that_unpack_together_all_find_it_whole() {
        let cache = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| unpack(cache.path()).map(|folder| damaged(&folder).count()))).collect();
            workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap().unwrap(), 0));
        });
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_named_with_the_way_out() {
        let cache = tempfile::NamedTempFile::new().unwrap();
        let error = unpack(cache.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(&*cache.path().to_string_lossy()), "{error}");
        assert!(error.hint().unwrap().contains("SYNTIC_CACHE"));
    }

    #[test]
    fn the_cache_is_where_the_user_says_or_where_caches_are() {
        let folder = |set: &[(&str, &str)]| {
            cache_folder(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).ok()
        };
        let home = ("HOME", "/home/u");
        assert_eq!(folder(&[home]), Some("/home/u/.cache/syntic".into()));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/x")]), Some("/x/syntic".into()));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/x"), ("SYNTIC_CACHE", "/s")]), Some("/s".into()));
        assert_eq!(folder(&[("SYNTIC_CACHE", "")]), None);
    }
}
