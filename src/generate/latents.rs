//! Latents in and out: safetensors files with one tensor, `latents` [N, C, h, w] f32, in torch's order.

use crate::weights::WeightFile;
use crate::{Error, Result};
use safetensors::Dtype;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const KEY: &str = "latents";

/// Given starting points, read from a memory-mapped file.
#[derive(Debug)]
pub struct InitLatents {
    file: WeightFile,
    sample: usize,
}

impl InitLatents {
    /// Opens `path`, which must hold `latents` of exactly `shape` [N, C, h, w].
    pub fn open(path: &Path, shape: [usize; 4]) -> Result<InitLatents> {
        let file = WeightFile::open(path)?;
        let Some(entry) = file.entries().iter().find(|entry| entry.key == KEY) else {
            let found: Vec<&str> = file.entries().iter().map(|entry| entry.key.as_str()).collect();
            return Err(Error::format(path, format!("key `{KEY}`"), format!("not in the file, which holds {found:?}")));
        };
        if entry.shape != shape || entry.dtype != Dtype::F32 {
            let message = format!(
                "{:?} {:?} found; expected F32 {shape:?}: selected captions, channels, height and width of the latents",
                entry.dtype, entry.shape
            );
            return Err(Error::format(path, format!("key `{KEY}`"), message));
        }
        Ok(InitLatents { file, sample: shape[1..].iter().product() })
    }

    /// Copies sample `i` into `out` [C, h, w].
    pub fn copy(&self, i: usize, out: &mut [f32]) {
        let Some(entry) = self.file.entries().iter().find(|entry| entry.key == KEY) else { return };
        let bytes = &self.file.bytes(entry)[i * self.sample * 4..(i + 1) * self.sample * 4];
        for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
}

/// Final latents, written sample by sample into a file that gets its name when all are there.
///
/// A run that is interrupted leaves `NAME.part`; the next one fills in the rest.
#[derive(Debug)]
pub struct SavedLatents {
    file: File,
    part: PathBuf,
    path: PathBuf,
    data_start: u64,
    sample: usize,
}

impl SavedLatents {
    /// Checks, before any work is done for it, that the file can get its name in the end, and that this is not the name of the
    /// initial latents.
    ///
    /// # Errors
    /// [`Error::Usage`] if the folder is not there, or something that is not a regular file is in the way.
    pub fn check(path: &Path, init: Option<&Path>) -> Result<()> {
        let refuse = |problem: String| Err(Error::usage(problem, "name a file in a folder that exists"));
        let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let (Some(folder), Some(_)) = (folder, path.file_name()) else {
            return refuse(format!("--save-latents {} is not the name of a file", path.display()));
        };
        if !folder.is_dir() {
            return refuse(format!("--save-latents {}: there is no folder {}", path.display(), folder.display()));
        }
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return refuse(format!("--save-latents {} is not a regular file: it is not replaced", path.display()));
        }
        let real = |path: &Path| path.canonicalize().ok();
        if init.and_then(real).is_some_and(|init| real(path) == Some(init)) {
            return refuse(format!("--init-latents and --save-latents are the same file, {}", path.display()));
        }
        Ok(())
    }

    /// Opens or begins the file for `shape` [N, C, h, w]. `samples_done` is the number of samples that earlier runs finished:
    /// their latents must be in the partial file, for they are not computed again.
    pub fn open(path: &Path, shape: [usize; 4], samples_done: u64) -> Result<SavedLatents> {
        let name = path.file_name().unwrap_or_default();
        let part = path.with_file_name(format!("{}.part", name.to_string_lossy()));
        let header = header(shape);
        let bytes = header.len() as u64 + shape.iter().map(|&n| n as u64).product::<u64>() * 4;
        if samples_done > 0 && !part.exists() {
            return Err(Error::usage(
                format!("{samples_done} images were made before, without {}: their latents are gone", part.display()),
                "choose a new --out folder to make them again, or leave out --save-latents",
            ));
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&part).map_err(Error::io("write", &part))?;
        let mut found = vec![0; header.len()];
        let length = file.metadata().map_err(Error::io("read", &part))?.len();
        if length != bytes || file.read_exact(&mut found).is_err() || found != header {
            if samples_done > 0 {
                return Err(Error::format(&part, "", "is of another shape than this run's latents; choose a new --out folder"));
            }
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(Error::io("write", &part))?;
            file.write_all(&header).and_then(|()| file.set_len(bytes)).map_err(Error::io("write", &part))?;
        }
        let sample = shape[1..].iter().product();
        Ok(SavedLatents { file, part, path: path.with_file_name(name), data_start: header.len() as u64, sample })
    }

    /// Writes the latents of sample `i`, [C, h, w].
    pub fn write(&mut self, i: usize, latents: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = latents.iter().flat_map(|value| value.to_le_bytes()).collect();
        let at = self.data_start + (i * self.sample * 4) as u64;
        self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(&bytes)).map_err(Error::io("write", &self.part))
    }

    /// Makes sure that what was written survives a crash of the machine.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.part))
    }

    /// Gives the complete file its name.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.part))?;
        std::fs::rename(&self.part, &self.path).map_err(Error::io("rename to", &self.path))
    }
}

/// Length and JSON of a safetensors file with the one tensor, padded so that the data is aligned to 8 bytes.
fn header(shape: [usize; 4]) -> Vec<u8> {
    let bytes = shape.iter().product::<usize>() * 4;
    let mut json = serde_json::json!({KEY: {"dtype": "F32", "shape": shape, "data_offsets": [0, bytes]}}).to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [(json.len() as u64).to_le_bytes().as_slice(), json.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_latents_can_be_read_as_initial_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (path, shape) = (folder.path().join("latents.safetensors"), [3, 4, 2, 2]);
        let value = |i: usize| (0..16).map(|j| (i * 16 + j) as f32).collect::<Vec<_>>();
        let mut saved = SavedLatents::open(&path, shape, 0).unwrap();
        saved.write(2, &value(2)).unwrap();
        drop(saved);
        assert!(!path.exists(), "an incomplete file has no final name");
        let mut saved = SavedLatents::open(&path, shape, 1).unwrap();
        saved.write(0, &value(0)).unwrap();
        saved.write(1, &value(1)).unwrap();
        saved.finish().unwrap();
        let read = InitLatents::open(&path, shape).unwrap();
        let mut out = [0.0; 16];
        for i in 0..3 {
            read.copy(i, &mut out);
            assert_eq!(out.as_slice(), value(i));
        }
        let wrong = InitLatents::open(&path, [2, 4, 2, 2]).unwrap_err().to_string();
        assert!(wrong.contains("[3, 4, 2, 2] found; expected F32 [2, 4, 2, 2]"), "{wrong}");
    }

    #[test]
    fn latents_of_finished_samples_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = SavedLatents::open(&folder.path().join("l.safetensors"), [1, 4, 2, 2], 1).unwrap_err();
        assert!(error.to_string().contains("latents are gone"), "{error}");
    }
}
