//! Checkpoints on disk: well formed, malformed and hostile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architectures;
mod check;
mod files;
mod layout;
mod models;
mod random;

use std::path::Path;
use syntic::weights::{Checkpoint, Component};

/// A safetensors file from a literal header and data.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A valid safetensors file: keys with type, shape and one value that fills the tensor. The header is not padded, so data may
/// start at an odd address.
fn file(tensors: &[(&str, &str, &[usize], f32)]) -> Vec<u8> {
    let mut header = Vec::new();
    let mut data = Vec::new();
    for (key, dtype, shape, value) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            match *dtype {
                "F32" => data.extend(value.to_le_bytes()),
                "F16" => data.extend(half::f16::from_f32(*value).to_le_bytes()),
                "BF16" => data.extend(half::bf16::from_f32(*value).to_le_bytes()),
                "F64" => data.extend(f64::from(*value).to_le_bytes()),
                "I64" => data.extend((*value as i64).to_le_bytes()),
                other => panic!("no such type {other}"),
            }
        }
        header.push(format!(r#""{key}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{}]}}"#, data.len()));
    }
    raw(&format!("{{{}}}", header.join(",")), &data)
}

/// Reads one tensor of a component's folder as f32.
fn read(folder: &Path, component: Component, name: &str, shape: &[usize]) -> syntic::Result<Vec<f32>> {
    Checkpoint::open(folder, component)?.load(|loader| Ok(loader.tensor(name, shape).to_f32()))
}

/// Checks that a message holds all the parts a reader needs.
#[track_caller]
fn assert_says(message: impl ToString, parts: &[&str]) {
    let message = message.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// Everything the user sees of an error.
fn shown(error: &syntic::Error) -> String {
    format!("{error}\n{}", error.hint().unwrap_or_default())
}
