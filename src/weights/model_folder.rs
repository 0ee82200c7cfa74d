//! Whole model folders with random weights: for measuring and testing where nothing can be downloaded.

use super::clip_vocab::write_tokenizer;
use super::random::write_safetensors;
use super::{Component, NamedShapes};
use crate::files::{sync_folder, write_atomic};
use crate::tensor::DType;
use crate::{Error, Result};
use std::fs;
use std::path::Path;

/// An architecture that random models are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Stable Diffusion 1.5: 512x512 pixels, epsilon prediction.
    Sd15,
    /// Stable Diffusion 2.1: 768x768 pixels, v-prediction.
    Sd21,
    /// The structure of 1.5 at a few hundred thousand parameters and 64x64 pixels, with CLIP's real vocabulary.
    Tiny,
}

/// The configuration files of one architecture.
struct Configs {
    model_index: &'static str,
    text_encoder: &'static str,
    unet: &'static str,
    vae: &'static str,
    scheduler: &'static str,
    /// Token that fills up short captions.
    pad: &'static str,
}

macro_rules! configs {
    ($folder:literal, $pad:literal) => {
        Configs {
            model_index: include_str!(concat!("assets/", $folder, "/model_index.json")),
            text_encoder: include_str!(concat!("assets/", $folder, "/text_encoder.json")),
            unet: include_str!(concat!("assets/", $folder, "/unet.json")),
            vae: include_str!(concat!("assets/", $folder, "/vae.json")),
            scheduler: include_str!(concat!("assets/", $folder, "/scheduler.json")),
            pad: $pad,
        }
    };
}

impl Arch {
    /// All architectures.
    pub const ALL: [Arch; 3] = [Arch::Sd15, Arch::Sd21, Arch::Tiny];

    /// Name in flags: `sd15`, `sd21`, `tiny`.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Sd15 => "sd15",
            Arch::Sd21 => "sd21",
            Arch::Tiny => "tiny",
        }
    }

    fn configs(self) -> Configs {
        match self {
            Arch::Sd15 => configs!("sd15", "<|endoftext|>"),
            Arch::Sd21 => configs!("sd21", "!"),
            Arch::Tiny => configs!("tiny", "<|endoftext|>"),
        }
    }

    /// Text of a component's `config.json`.
    pub fn config(self, component: Component) -> &'static str {
        let configs = self.configs();
        match component {
            Component::TextEncoder => configs.text_encoder,
            Component::Unet => configs.unet,
            Component::Vae => configs.vae,
        }
    }

    /// Text of `scheduler_config.json`.
    pub fn scheduler_config(self) -> &'static str {
        self.configs().scheduler
    }
}

/// Writes a model folder as diffusers does, with seeded random weights. `tensors` gives the names and shapes of a component, whose
/// `config.json` is by then in the folder it is passed. The folder appears under its name when it is complete.
///
/// # Errors
/// [`Error::Usage`] if `out` holds something already; [`Error::Io`] if a file cannot be written; errors of `tensors`.
pub fn write_model_folder(
    out: &Path,
    arch: Arch,
    dtype: DType,
    seed: u64,
    tensors: &dyn Fn(Component, &Path) -> Result<NamedShapes>,
) -> Result<()> {
    let out = &std::path::absolute(out).map_err(Error::io("find", out))?; // `.` has no name to put `.tmp` behind
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        return Err(Error::usage(format!("{} exists and is not empty", out.display()), "choose another folder, or remove it"));
    }
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let draft = out.with_file_name(name);

    let configs = arch.configs();
    for component in Component::ALL {
        let folder = draft.join(component.folder());
        make_folder(&folder)?;
        write_text(&folder.join("config.json"), arch.config(component))?;
        let weights = folder.join(format!("{}.safetensors", component.naming().file_stem()));
        write_safetensors(&weights, &tensors(component, &folder)?, dtype, seed)?;
    }
    make_folder(&draft.join("scheduler"))?;
    write_text(&draft.join("scheduler/scheduler_config.json"), configs.scheduler)?;
    make_folder(&draft.join("tokenizer"))?;
    write_tokenizer(&draft.join("tokenizer"), configs.pad)?;
    write_text(&draft.join("model_index.json"), configs.model_index)?;

    fs::rename(&draft, out).map_err(Error::io("rename to", out))?;
    sync_folder(out.parent().unwrap_or(Path::new(".")))
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, text.as_bytes())
}
