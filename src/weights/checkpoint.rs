//! The weight files of one component, and their comparison with what an architecture declares.

use super::digest::file_sha256;
use super::file::{Entry, Stamp, WeightFile};
use super::names::same_weights;
use super::nearest::nearest;
use super::packed::{self, PackedWeights, Packing};
use super::{Loader, NamedShapes, Naming, layout};
use crate::files::sha256_hex;
use crate::tensor::{DType, PackedLayout, PackedStore};
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Missing tensors for which a nearest name is looked up; when more are missing, the file is of another architecture.
const MAX_SUGGESTIONS: usize = 32;

/// The mapped weights of one component, under canonical names.
pub struct Checkpoint {
    folder: PathBuf,
    naming: Naming,
    files: Vec<WeightFile>,
    /// Canonical name -> where the tensor is.
    tensors: HashMap<String, Place>,
    /// Keys that cannot be told apart.
    problems: Vec<String>,
    /// Prefixes of canonical names that this run does not use.
    skipped: Vec<String>,
}

#[derive(Clone, Copy)]
struct Place {
    file: usize,
    entry: usize,
}

impl Checkpoint {
    /// Opens the weights in a component's folder: a single file, its `fp16` variant, or shards with an index.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing folder; [`Error::Usage`] if it holds no safetensors (with the command that converts pickle
    /// files); [`Error::Format`] for a malformed file or index.
    pub fn open(folder: &Path, naming: impl Into<Naming>) -> Result<Checkpoint> {
        Self::open_variant(folder, naming, None)
    }

    /// Like [`open`](Checkpoint::open), taking the given variant (`fp16`) where the folder has it.
    ///
    /// # Errors
    /// As [`open`](Checkpoint::open).
    pub fn open_variant(folder: &Path, naming: impl Into<Naming>, variant: Option<&str>) -> Result<Checkpoint> {
        let naming = naming.into();
        let files = layout::open_files(folder, naming, variant)?;
        let mut checkpoint = Checkpoint {
            folder: folder.to_path_buf(),
            naming,
            files,
            tensors: HashMap::new(),
            problems: Vec::new(),
            skipped: Vec::new(),
        };
        for (file, weights) in checkpoint.files.iter().enumerate() {
            for (entry, found) in weights.entries().iter().enumerate() {
                let name = naming.canonical(&found.key);
                if let Some(first) = checkpoint.tensors.insert(name, Place { file, entry }) {
                    let first = &checkpoint.files[first.file].entries()[first.entry].key;
                    checkpoint.problems.push(format!("`{first}` and `{}` are two names of one tensor", found.key));
                }
            }
        }
        Ok(checkpoint)
    }

    /// Declares that the tensors under these prefixes of canonical names (`encoder.`) are not used by this run, so that
    /// [`check`](Checkpoint::check) does not call them unexpected.
    pub fn skip(mut self, prefixes: &[&str]) -> Checkpoint {
        self.skipped.extend(prefixes.iter().map(|p| p.to_string()));
        self
    }

    /// The component's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Paths of the weight files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(WeightFile::path)
    }

    /// Builds a model: lists what its constructor asks for, compares that with the files as a whole, then reads.
    ///
    /// # Errors
    /// [`Error::Weights`] with every tensor that does not fit, or the constructor's own error.
    pub fn load<M>(&self, new: impl Fn(&Loader<'_>) -> Result<M>) -> Result<M> {
        self.load_packed(None, new).map(|(model, _)| model)
    }

    /// As [`load`](Checkpoint::load), for a GPU that wants its weights in this layout: what was packed once is kept in a file, from which the
    /// next load takes it.
    ///
    /// # Errors
    /// As [`load`](Checkpoint::load). That nothing can be kept is none: [`Packing::problem`].
    pub fn load_packed<M>(&self, layout: Option<PackedLayout>, new: impl Fn(&Loader<'_>) -> Result<M>) -> Result<(M, Packing)> {
        let folder = layout.and_then(|layout| Some((layout, packed::folder().transpose()?)));
        self.load_packed_in(folder, new)
    }

    pub(super) fn load_packed_in<M>(
        &self,
        packed: Option<(PackedLayout, Result<PathBuf>)>,
        new: impl Fn(&Loader<'_>) -> Result<M>,
    ) -> Result<(M, Packing)> {
        let declared = self.declared_by(&new)?;
        let packed = packed.map(|(layout, folder)| PackedWeights::open(folder, self, layout, &declared));
        let reading = Loader::read_packed(self, packed.as_ref().map(|packed| packed as &dyn PackedStore));
        let model = new(&reading)?;
        reading.finish()?;
        drop(reading);
        self.release();
        Ok((model, packed.map_or_else(|| Ok(Packing::default()), |packed| packed.finish(self))?))
    }

    /// Lists what a model's constructor asks for, and [`check`](Checkpoint::check)s the files against that. Reads no values.
    ///
    /// # Errors
    /// As [`load`](Checkpoint::load).
    pub fn check_model<M>(&self, new: impl Fn(&Loader<'_>) -> Result<M>) -> Result<()> {
        self.declared_by(&new).map(drop)
    }

    fn declared_by<M>(&self, new: &impl Fn(&Loader<'_>) -> Result<M>) -> Result<NamedShapes> {
        let declaring = Loader::declare();
        new(&declaring)?;
        declaring.finish()?;
        let declared = declaring.declared();
        self.check(&declared)?;
        Ok(declared)
    }

    /// Compares the files with the names and shapes an architecture declares: each tensor used once, none left over.
    ///
    /// # Errors
    /// [`Error::Weights`] with one line for each tensor that is missing, unexpected, of the wrong shape or type.
    pub fn check(&self, declared: &[(String, Vec<usize>)]) -> Result<()> {
        let wanted: HashSet<&str> = declared.iter().map(|(name, _)| name.as_str()).collect();
        let mut unexpected: Vec<&str> =
            self.tensors.keys().map(String::as_str).filter(|n| self.is_unexpected(n, &wanted)).collect();
        unexpected.sort_unstable();

        let mut problems = self.problems.clone();
        let mut suggestions = MAX_SUGGESTIONS;
        for (name, shape) in declared {
            let Err(mut problem) = self.find(name, shape) else { continue };
            if !self.tensors.contains_key(name) && suggestions > 0 {
                suggestions -= 1;
                if let Some(near) = nearest(name, &unexpected) {
                    problem += &format!("; the nearest unused name is `{}`", self.key(near));
                }
            }
            problems.push(problem);
        }
        for name in unexpected {
            let (file, entry) = self.at(self.tensors[name]);
            problems.push(format!(
                "unexpected `{}` {:?} in {}: no such tensor in this architecture",
                entry.key,
                entry.shape,
                file.name()
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Weights { path: self.folder.clone(), problems }) }
    }

    fn is_unexpected(&self, name: &str, wanted: &HashSet<&str>) -> bool {
        !wanted.contains(name) && !self.naming.ignores(name) && !self.skipped.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Type and bytes of the tensor with this canonical name, or one line on why it cannot be used.
    pub(super) fn find(&self, name: &str, shape: &[usize]) -> std::result::Result<(DType, &[u8]), String> {
        let Some(&place) = self.tensors.get(name) else {
            return Err(format!("missing `{name}`, expected shape {shape:?}"));
        };
        let (file, entry) = self.at(place);
        if !same_weights(&entry.shape, shape) {
            let (key, found) = (&entry.key, &entry.shape);
            return Err(format!("wrong shape of `{key}` in {}: expected {shape:?}, found {found:?}", file.name()));
        }
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let (key, file) = (&entry.key, file.name());
                return Err(format!("element type {other} of `{key}` in {file} is not supported: save it as F32, F16 or BF16"));
            }
        };
        Ok((dtype, file.bytes(entry)))
    }

    fn at(&self, place: Place) -> (&WeightFile, &Entry) {
        let file = &self.files[place.file];
        (file, &file.entries()[place.entry])
    }

    /// The key of a canonical name, as it stands in its file.
    fn key(&self, name: &str) -> &str {
        self.tensors.get(name).map_or("", |&place| &self.at(place).1.key)
    }

    /// Canonical names and shapes as stored, sorted by name.
    pub fn tensors(&self) -> NamedShapes {
        let mut all: Vec<_> = self.tensors.iter().map(|(name, &place)| (name.clone(), self.at(place).1.shape.clone())).collect();
        all.sort();
        all
    }

    /// Prefixes of tensors that are not used.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Paths of the weight files, and what they were when they were opened.
    pub(super) fn stamps(&self) -> impl Iterator<Item = (&Path, &Stamp)> {
        self.files.iter().map(|file| (file.path(), file.stamp()))
    }

    /// True if the files are those that were opened, and none was written less than `ago`.
    pub(super) fn is_unchanged(&self, ago: Duration) -> bool {
        self.files.iter().all(|file| file.is_unchanged(ago))
    }

    /// A file whose time is later than it is now.
    pub(super) fn newer_than_now(&self) -> Option<&Path> {
        self.files.iter().find(|file| file.is_newer_than_now()).map(WeightFile::path)
    }

    /// Gives mapped pages that were read so far back to the system, so that a packed model and its file are not both
    /// resident. Bytes already handed out stay valid: they are read again from the file when touched.
    pub fn release(&self) {
        self.files.iter().for_each(WeightFile::release);
    }

    /// SHA-256 of the weights, in hexadecimal: of the file, or for shards of the lines `HASH  NAME` that `sha256sum` prints
    /// for them in order of their names. Reads everything: seconds for a full model.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read.
    pub fn hash(&self) -> Result<String> {
        let mut lines = Vec::new();
        for file in &self.files {
            lines.push((file.name(), file_sha256(file.path())?));
        }
        lines.sort();
        Ok(match lines.as_slice() {
            [(_, hash)] => hash.clone(),
            many => {
                let text: String = many.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
                sha256_hex(text.as_bytes())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Component;
    use safetensors::tensor::TensorView;

    fn write(path: &Path, tensors: &[(&str, &[usize], f32)]) {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(key, shape, value)| {
                let n: usize = shape.iter().product();
                (key.to_string(), shape.to_vec(), value.to_le_bytes().repeat(n))
            })
            .collect();
        let views = data.iter().map(|(k, s, d)| (k, TensorView::new(Dtype::F32, s.clone(), d).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn loads_through_either_naming_and_shape() {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder.path().join("diffusion_pytorch_model.safetensors"),
            &[("mid.attentions.0.query.weight", &[4, 2, 1, 1], 2.0), ("mid.attentions.0.query.bias", &[4], 3.0)],
        );
        let checkpoint = Checkpoint::open(folder.path(), Component::Vae).unwrap();
        let (weight, bias) = checkpoint
            .load(|loader| {
                let q = loader.scope("mid.attentions").scope(0).scope("to_q");
                Ok((q.tensor("weight", &[4, 2]).to_f32(), q.tensor("bias", &[4]).to_f32()))
            })
            .unwrap();
        assert_eq!((weight, bias), (vec![2.0; 8], vec![3.0; 4]));
    }
}
