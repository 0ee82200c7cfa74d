//! Token and position embeddings.

use crate::Result;
use crate::device::{Device, Exec, Tensor};
use crate::weights::HostTensor;

/// A token table `[V, C]` and a position table `[P, C]`.
#[derive(Debug)]
pub struct Embedding {}

impl Embedding {
    /// Takes both tables.
    pub fn prepare(device: &Device, tokens: HostTensor<'_>, positions: HostTensor<'_>) -> Result<Embedding> {
        let _ = (device, tokens, positions);
        Ok(Embedding {})
    }
}

/// ids `[B * T]` -> `[B, T, C]`: `tokens[id] + positions[t]`. Ids outside the table are an error.
pub fn embed<'e>(exec: &'e Exec<'_>, embedding: &Embedding, ids: &[u32], length: usize) -> Result<Tensor<'e>> {
    let _ = (exec, embedding, ids, length);
    unimplemented!()
}
