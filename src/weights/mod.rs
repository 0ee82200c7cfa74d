//! Checkpoints: memory-mapped safetensors, the Hugging Face folder layout, and the names tensors go by.

use crate::tensor::DType;

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
