//! SHA-256 of files and of models: what made an image, in one line.

use super::{Component, ModelDir};
use crate::files::{file_digest, sha256_hex};
use crate::{Error, Result};
use rayon::prelude::*;
use std::path::Path;

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    file_digest(path).map(|(_, hash)| hash)
}

impl ModelDir {
    /// SHA-256 over the model: weights, configuration and tokenizer files, whatever the folder is called. Reads everything,
    /// which takes seconds for a full model.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, and the errors of [`ModelDir::checkpoint`].
    pub fn sha256(&self) -> Result<String> {
        let weights = Component::ALL.par_iter().map(|&component| {
            let config = self.component(component.folder())?.join("config.json");
            let hashes = [self.checkpoint(component)?.hash()?, file_sha256(&config)?];
            Ok(format!("{} {} {}\n", component.folder(), hashes[0], hashes[1]))
        });
        let mut lines: Vec<String> = weights.collect::<Result<_>>()?;
        for name in ["scheduler", "tokenizer"] {
            let folder = self.component(name)?;
            let mut files: Vec<_> = std::fs::read_dir(&folder)
                .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
                .map_err(Error::io("read", &folder))?
                .into_iter()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|e| e == "json" || e == "txt"))
                .collect();
            files.sort();
            for file in files {
                let file_name = file.file_name().unwrap_or_default().to_string_lossy();
                lines.push(format!("{name}/{file_name} {}\n", file_sha256(&file)?));
            }
        }
        Ok(sha256_hex(lines.concat().as_bytes()))
    }
}
