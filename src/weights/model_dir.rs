//! A model as the user names it: a diffusers folder, a model in the Hugging Face cache, or the built-in one.

use super::builtin::{self, BUILTIN};
use super::hub::{ModelId, cache_root};
use super::{Checkpoint, Component, layout, read_json};
use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A folder with `model_index.json` and one subfolder for each component.
#[derive(Clone, Debug)]
pub struct ModelDir {
    root: PathBuf,
    index: Value,
}

impl ModelDir {
    /// Finds a model: [`BUILTIN`], a folder, or `org/name[@revision]` in the Hugging Face cache. Never calls the network.
    ///
    /// # Errors
    /// [`Error::Usage`] for a model that is not there (with the command that downloads it) or that is a single file;
    /// [`Error::Format`] or [`Error::Io`] for a `model_index.json` that is missing or broken.
    pub fn open(model: &str) -> Result<ModelDir> {
        Self::open_in(model, &cache_root())
    }

    /// Like [`open`](ModelDir::open), with the root of the cache given.
    ///
    /// # Errors
    /// As [`open`](ModelDir::open).
    pub fn open_in(model: &str, cache: &Path) -> Result<ModelDir> {
        let path = Path::new(model);
        if is_checkpoint(path) {
            return Err(refuse_checkpoint(path));
        }
        let root = find_in(model, cache)?;
        let index = root.join("model_index.json");
        if !index.exists() {
            return Err(no_index(&root, ModelId::parse(model).filter(|_| !path.is_dir())));
        }
        let json = read_json(&index)?;
        if !json.is_object() {
            return Err(Error::format(&index, "", "not a JSON object"));
        }
        Ok(ModelDir { root, index: json })
    }

    /// The model's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pipeline class that wrote the folder: `StableDiffusionPipeline`.
    pub fn pipeline_class(&self) -> Option<&str> {
        self.index.get("_class_name")?.as_str()
    }

    /// Class of a component (`PNDMScheduler` for `scheduler`), if the model has it: `[null, null]` means that it has not.
    pub fn class(&self, name: &str) -> Option<&str> {
        self.index.get(name)?.get(1)?.as_str()
    }

    /// Folder of a component: `unet`, `vae`, `text_encoder`, `tokenizer`, `scheduler`.
    ///
    /// # Errors
    /// [`Error::Config`] if `model_index.json` does not list it; [`Error::Io`] if the folder is missing.
    pub fn component(&self, name: &str) -> Result<PathBuf> {
        if self.class(name).is_none() {
            let message = "not a component of this model; expected [library, class]";
            return Err(Error::config(self.root.join("model_index.json"), name, message));
        }
        let folder = self.root.join(name);
        match folder.metadata() {
            Ok(found) if found.is_dir() => Ok(folder),
            Ok(_) => Err(Error::format(folder, "", "a file where the folder of a component is expected")),
            Err(source) => Err(Error::Io { action: "read", path: folder, source }),
        }
    }

    /// Maps the weights of a component.
    ///
    /// # Errors
    /// As [`component`](ModelDir::component) and [`Checkpoint::open`].
    pub fn checkpoint(&self, component: Component) -> Result<Checkpoint> {
        Checkpoint::open(&self.component(component.folder())?, component)
    }
}

/// The folder of a model: the one given, or that of `org/name[@revision]` in the Hugging Face cache. Never calls the network, and looks
/// at nothing inside the folder.
///
/// # Errors
/// [`Error::Usage`] for a model that is not there (with the command that downloads it) or that is a file.
pub fn find_model(model: &str) -> Result<PathBuf> {
    find_in(model, &cache_root())
}

fn find_in(model: &str, cache: &Path) -> Result<PathBuf> {
    const ADVICE: &str = "give the model's folder, org/name of a model in the Hugging Face cache, or `builtin`";
    if model == BUILTIN {
        return builtin::unpacked();
    }
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.exists() {
        return Err(Error::usage(format!("{model} is a file, not a model"), ADVICE));
    }
    match ModelId::parse(model) {
        Some(id) => id.find(cache),
        None => {
            let message = format!("there is no folder {model}, and it is not a model id of the form org/name[@revision]");
            Err(Error::usage(message, ADVICE))
        }
    }
}

/// True for a single file that holds a whole pipeline.
fn is_checkpoint(path: &Path) -> bool {
    let name = path.to_string_lossy();
    path.is_file() && (name.ends_with(".safetensors") || layout::is_pickle(&name))
}

fn refuse_checkpoint(path: &Path) -> Error {
    let name = path.to_string_lossy();
    let quoted = format!("{name:?}");
    Error::usage(
        format!("{name} is a single-file checkpoint; only folders as diffusers saves them are supported"),
        format!(
            "convert it once, in Python with diffusers: \
             StableDiffusionPipeline.from_single_file({quoted}).save_pretrained(\"FOLDER\", safe_serialization=True)"
        ),
    )
}

/// The folder is there, but is not a model.
fn no_index(root: &Path, id: Option<ModelId>) -> Error {
    let advice = match id {
        Some(id) => id.advice(),
        None => "give the folder that holds model_index.json, as diffusers saves it: the parent of unet/ and vae/".into(),
    };
    Error::usage(format!("{} has no model_index.json", root.display()), advice)
}
