//! Checkpoints: memory-mapped safetensors, the Hugging Face folder layout, and the names tensors go by.
//!
//! A model is built by a plain function that asks a [`Loader`] for its tensors by name and shape. [`Checkpoint::load`] runs
//! it twice: first on [`Loader::declare`], to list what the architecture needs and compare that list with the file as a
//! whole, then on the mapped file itself.

// Mapping a file is `unsafe` by nature; every use has its SAFETY line, and the crate denies it elsewhere.
#![allow(unsafe_code)]

mod atomic;
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
mod random;

pub use checkpoint::Checkpoint;
pub use digest::file_sha256;
pub(crate) use file::WeightFile;
pub use json::read_json;
pub(crate) use json::read_text;
pub use loader::Loader;
pub use model_dir::ModelDir;
pub use model_folder::{Arch, write_model_folder};
pub use names::Component;
pub use random::write_safetensors;

use crate::tensor::DType;
use half::{f16, slice::HalfFloatSliceExt};

/// Canonical names and shapes of tensors, in the order in which a model asks for them.
pub type NamedShapes = Vec<(String, Vec<usize>)>;

/// Names and shapes in the bytes of a safetensors file, with every check that opening one makes: the entry of its fuzz target.
///
/// # Errors
/// What is wrong with the file, in words.
#[doc(hidden)]
pub fn parse_safetensors(bytes: &[u8]) -> std::result::Result<NamedShapes, String> {
    Ok(file::parse(bytes)?.into_iter().map(|entry| (entry.key, entry.shape)).collect())
}

/// A tensor of a checkpoint as it lies in the file: row-major, little-endian.
///
/// `bytes` is `None` while a model is only being declared (to check a checkpoint, count parameters or write random weights).
#[derive(Clone, Debug)]
pub struct HostTensor<'a> {
    /// Canonical name, with the component's own prefix: `down_blocks.0.resnets.0.conv1.weight`.
    pub name: String,
    /// Extents as the architecture declares them.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: DType,
    /// Raw bytes, of any alignment.
    pub bytes: Option<&'a [u8]>,
}

impl HostTensor<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no data: the model is only being declared.
    pub fn is_declared(&self) -> bool {
        self.bytes.is_none()
    }

    /// Converts elements `start..start + out.len()` to f32. A tensor that is only declared reads as zeros.
    ///
    /// # Panics
    /// If the range does not lie inside the tensor, as indexing a slice does.
    pub fn copy_f32(&self, start: usize, out: &mut [f32]) {
        let Some(bytes) = self.bytes else { return out.fill(0.0) };
        let size = self.dtype.size();
        let bytes = &bytes[start * size..(start + out.len()) * size];
        match self.dtype {
            DType::F32 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*b);
                }
            }
            DType::BF16 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *x = f32::from_bits((u16::from_le_bytes(*b) as u32) << 16);
                }
            }
            DType::F16 => copy_f16(bytes, out),
            DType::U8 => {
                for (x, &b) in out.iter_mut().zip(bytes) {
                    *x = f32::from(b);
                }
            }
        }
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.copy_f32(0, &mut out);
        out
    }
}

/// Goes through a small aligned block, so that the file may hold the halves at any address and the hardware conversion
/// (F16C, found at run time by `half`) still applies.
fn copy_f16(bytes: &[u8], out: &mut [f32]) {
    const BLOCK: usize = 1024;
    let mut block = [f16::ZERO; BLOCK];
    for (bytes, out) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (h, b) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(*b);
        }
        block[..out.len()].convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn tensor(dtype: DType, bytes: &[u8], len: usize) -> HostTensor<'_> {
        HostTensor { name: "t".into(), shape: vec![len], dtype, bytes: Some(bytes) }
    }

    /// Every conversion, from an odd address, whole and in part, over more than one block of the f16 path.
    #[test]
    fn copies_convert_every_type_at_any_alignment() {
        let values: Vec<f32> = (0..2500).map(|i| (i as f32 - 1250.0) * 0.25).collect();
        let encoded: [(DType, Vec<u8>); 3] = [
            (DType::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (DType::F16, values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (DType::BF16, values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        ];
        for (dtype, data) in encoded {
            let rounded: Vec<f32> = match dtype {
                DType::BF16 => values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
                _ => values.clone(), // quarters up to 312 are exact in f16
            };
            for shift in 0..4 {
                let mut bytes = vec![0xAA; shift];
                bytes.extend(&data);
                let t = tensor(dtype, &bytes[shift..], values.len());
                assert_eq!(t.to_f32(), rounded, "{dtype} shifted by {shift}");
                let mut part = vec![f32::NAN; 1100];
                t.copy_f32(7, &mut part);
                assert_eq!(part, rounded[7..1107], "{dtype} shifted by {shift}, part");
            }
        }
    }

    #[test]
    fn declared_tensors_read_as_zeros() {
        let t = HostTensor { name: "t".into(), shape: vec![2, 3], dtype: DType::F32, bytes: None };
        assert!(t.is_declared() && t.len() == 6);
        assert_eq!(t.to_f32(), [0.0; 6]);
    }
}
