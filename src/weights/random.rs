//! Seeded random weights, written as safetensors without ever holding a model in memory.
//!
//! Value `i` of a tensor is a function of (seed, tensor name, i) in integer arithmetic, so a file is the same on every machine
//! and with every number of threads.

use crate::files::write_atomic_from;
use crate::rng::SplitMix64;
use crate::tensor::DType;
use crate::{Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

/// Elements made in parallel, then written.
const BATCH: usize = 1 << 20;

/// Elements one thread makes at a time.
const CHUNK: usize = 1 << 14;

/// Headers are padded to this, so that every tensor of an even length starts aligned.
const HEADER_ALIGNMENT: usize = 8;

/// Writes the tensors, in the order given, with weights scaled so that activations stay finite: std 1/sqrt(inputs) for matrices
/// and convolutions, 0.02 for embeddings and biases, norms near 1. The file appears under its name when it is complete.
///
/// # Errors
/// [`Error::Io`] if it cannot be written; [`Error::Usage`] for a type that weights are not stored in; [`Error::Internal`] for
/// names that repeat or sizes that overflow.
pub fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>)], dtype: DType, seed: u64) -> Result<()> {
    let header = header(tensors, dtype, seed)?;
    write_atomic_from(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut bytes = Vec::new();
        for (name, shape) in tensors {
            let distribution = Distribution::of(name, shape);
            let key = tensor_key(seed, name);
            let len: usize = shape.iter().product();
            for start in (0..len).step_by(BATCH) {
                bytes.resize(BATCH.min(len - start) * dtype.size(), 0);
                bytes.par_chunks_mut(CHUNK * dtype.size()).enumerate().for_each(|(chunk, out)| {
                    fill(out, dtype, |i| distribution.value(key, (start + chunk * CHUNK + i) as u64));
                });
                file.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// JSON header: type, shape and place of each tensor. transformers insists on the `format`.
fn header(tensors: &[(String, Vec<usize>)], dtype: DType, seed: u64) -> Result<String> {
    let dtype_name = match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::U8 | DType::U32 => {
            return Err(Error::usage(format!("weights cannot be stored as {dtype}"), "use f32, f16 or bf16"));
        }
    };
    let mut entries = Map::new();
    let made_by = format!("syntic {} random-model, seed {seed}", crate::VERSION);
    entries.insert("__metadata__".into(), json!({"format": "pt", "made_by": made_by}));
    let mut offset = 0usize;
    for (name, shape) in tensors {
        let size = shape.iter().try_fold(dtype.size(), |size, &n| size.checked_mul(n));
        let end = size.and_then(|size| offset.checked_add(size));
        let end = end.ok_or_else(|| internal(format!("size of `{name}` {shape:?} overflows")))?;
        let entry = json!({"dtype": dtype_name, "shape": shape, "data_offsets": [offset, end]});
        if entries.insert(name.clone(), entry).is_some() {
            return Err(internal(format!("`{name}` appears twice")));
        }
        offset = end;
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(HEADER_ALIGNMENT) - text.len()));
    Ok(text)
}

fn internal(message: String) -> Error {
    Error::Internal { op: "random weights", message }
}

/// Encodes `value(0), value(1), ...` into `out`.
fn fill(out: &mut [u8], dtype: DType, value: impl Fn(usize) -> f32) {
    match dtype {
        DType::F32 => out.as_chunks_mut().0.iter_mut().enumerate().for_each(|(i, b)| *b = value(i).to_le_bytes()),
        DType::F16 => out.as_chunks_mut().0.iter_mut().enumerate().for_each(|(i, b)| *b = f16::from_f32(value(i)).to_le_bytes()),
        DType::BF16 => {
            out.as_chunks_mut().0.iter_mut().enumerate().for_each(|(i, b)| *b = bf16::from_f32(value(i)).to_le_bytes())
        }
        DType::U8 | DType::U32 => {}
    }
}

/// Mean and spread of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Distribution {
    mean: f32,
    std: f32,
}

impl Distribution {
    /// Chosen by what the tensor is, so that a forward pass of any depth stays finite:
    /// - matrices and convolutions `[O, I, ...]`: std 1/sqrt(inputs of one output), which keeps the variance of a normalised
    ///   input. Residual streams then grow by one variance a block, and every block normalises first;
    /// - tables of embeddings: std 0.02, as CLIP initialises them;
    /// - weights of norms `[C]`: 1 with std 0.1; biases: 0 with std 0.02. Not exactly 1 and 0, so that a result shows whether
    ///   they were applied.
    fn of(name: &str, shape: &[usize]) -> Distribution {
        match shape {
            [_, inputs @ ..] if !inputs.is_empty() && name.ends_with("embedding.weight") => Distribution { mean: 0.0, std: 0.02 },
            [_, inputs @ ..] if !inputs.is_empty() => {
                let fan_in: usize = inputs.iter().product();
                Distribution { mean: 0.0, std: 1.0 / (fan_in.max(1) as f32).sqrt() }
            }
            _ if name.ends_with("weight") => Distribution { mean: 1.0, std: 0.1 },
            _ => Distribution { mean: 0.0, std: 0.02 },
        }
    }

    /// Value `i`: the sum of four uniform 16-bit draws, bell-shaped, within 3.5 standard deviations, and exact.
    fn value(self, key: u64, i: u64) -> f32 {
        const MEAN: i32 = 4 * 65535 / 2;
        // Variance of one draw is (65536^2 - 1) / 12.
        const SCALE: f32 = 2.642_899_8e-5; // 1 / sqrt(4 * (65536^2 - 1) / 12)
        let bits = SplitMix64::output(key, i);
        let sum: i32 = (0..4).map(|k| (bits >> (16 * k)) as u16 as i32).sum();
        self.mean + self.std * ((sum - MEAN) as f32 * SCALE)
    }
}

/// Start of a tensor's own sequence.
fn tensor_key(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    digest.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_follow_the_role() {
        let of = |name, shape: &[usize]| Distribution::of(name, shape);
        assert_eq!(of("conv.weight", &[320, 4, 3, 3]), Distribution { mean: 0.0, std: 1.0 / 6.0 });
        assert_eq!(of("time_embedding.linear_1.weight", &[8, 4]).std, 0.5);
        assert_eq!(of("embeddings.token_embedding.weight", &[49408, 768]).std, 0.02);
        assert_eq!(of("norm.weight", &[320]).mean, 1.0);
        assert_eq!(of("norm.bias", &[320]).mean, 0.0);
    }

    #[test]
    fn values_have_the_moments_asked_for() {
        let d = Distribution { mean: 1.0, std: 0.5 };
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(d.value(tensor_key(7, "w"), i))).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let moment = |k| values.iter().map(|v| ((v - mean) / 0.5).powi(k)).sum::<f64>() / n as f64;
        // Five standard errors of each estimate; the fourth moment of a sum of four uniforms is 2.7.
        assert!((mean - 1.0).abs() < 5.0 * 0.5 / (n as f64).sqrt(), "mean {mean}");
        assert!((moment(2) - 1.0).abs() < 0.015, "variance {}", moment(2));
        assert!((moment(4) - 2.7).abs() < 0.1, "kurtosis {}", moment(4));
    }

    #[test]
    fn names_that_repeat_are_refused() {
        let tensors = vec![("a".to_string(), vec![1]), ("a".to_string(), vec![1])];
        let folder = tempfile::tempdir().unwrap();
        let result = write_safetensors(&folder.path().join("m.safetensors"), &tensors, DType::F32, 0);
        assert!(result.unwrap_err().to_string().contains("`a` appears twice"));
        let huge = vec![("a".to_string(), vec![usize::MAX, 2])];
        assert!(write_safetensors(&folder.path().join("m.safetensors"), &huge, DType::F32, 0).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
