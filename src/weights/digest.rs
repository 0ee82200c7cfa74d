//! SHA-256 of files and of models: what made an image, in one line.

use super::{Component, ModelDir};
use crate::{Error, Result};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(Error::io("read", path))? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&block[..read]),
        }
    }
}

/// SHA-256 of a text, in hexadecimal.
pub(super) fn text_sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
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
        Ok(text_sha256(&lines.concat()))
    }
}
