//! Checkpoints: memory-mapped safetensors, the Hugging Face folder layout, and the names tensors go by.
//!
//! A model is built by a plain function that asks a [`Loader`] for its tensors by name and shape. [`Checkpoint::load`] runs
//! it twice: first on [`Loader::declare`], to list what the architecture needs and compare that list with the file as a
//! whole, then on the mapped file itself.

// Mapping a file is `unsafe` by nature; every use has its SAFETY line, and the crate denies it elsewhere.
#![allow(unsafe_code)]

mod builtin;
mod caches;
mod checkpoint;
mod clip_vocab;
mod digest;
mod file;
mod hub;
mod json;
mod layout;
mod loader;
mod model_dir;
mod model_folder;
mod names;
mod nearest;
mod packed;
mod random;

pub use builtin::BUILTIN;
pub use caches::{Cache, caches};
pub use checkpoint::Checkpoint;
pub use digest::file_sha256;
pub(crate) use file::WeightFile;
pub use json::read_json;
pub(crate) use json::read_text;
pub use loader::Loader;
pub use model_dir::{ModelDir, find_model};
pub use model_folder::{Arch, write_model_folder};
pub use names::{Component, Naming};
pub use packed::{PackedFolder, Packing, packed_weights};
pub use random::write_safetensors;

/// What a [`Loader`] hands out.
pub use crate::tensor::HostTensor;

/// Canonical names and shapes of tensors, in the order in which a model asks for them.
pub type NamedShapes = Vec<(String, Vec<usize>)>;

/// Names and shapes in the bytes of a safetensors file, with every check that opening one makes: the entry for fuzzing.
///
/// # Errors
/// What is wrong with the file, in words.
#[doc(hidden)]
pub fn parse_safetensors(bytes: &[u8]) -> std::result::Result<NamedShapes, String> {
    Ok(file::parse(bytes)?.into_iter().map(|entry| (entry.key, entry.shape)).collect())
}
