//! One image-text pair, and the columns that describe it.

use serde_json::{Map, Value};

use crate::files::sha256_hex;
use crate::{Error, Result};

/// Type of a column, in the json and in the parquet. Every column can also be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// Signed 64-bit integer.
    Int,
    /// Unsigned 64-bit integer.
    UInt,
    /// 64-bit float; must be finite.
    Float,
    /// True or false.
    Bool,
}

/// A field of the per-sample json, and a column of the parquet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the field.
    pub name: String,
    /// Its type.
    pub kind: ColumnKind,
}

impl Column {
    /// A column called `name` that holds values of `kind` or null.
    pub fn new(name: impl Into<String>, kind: ColumnKind) -> Column {
        Column { name: name.into(), kind }
    }
}

/// What became of a caption.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The encoded image, in the format of the shard.
    Image(Vec<u8>),
    /// No image: a short reason without varying parts ("black image"), so that reasons can be counted.
    Failed(String),
}

/// A caption, its image or the reason there is none, and what made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Index in the shard, from 0, without gaps.
    pub index: usize,
    /// The caption, exactly as read.
    pub caption: String,
    /// The image or why there is none.
    pub outcome: Outcome,
    /// Values of the columns of [`ShardSettings::columns`](super::ShardSettings::columns); a missing one is null.
    pub meta: Map<String, Value>,
}

/// Columns that every sample has, before those of the settings.
const BASE_COLUMNS: [(&str, ColumnKind); 5] = [
    ("key", ColumnKind::Text),
    ("caption", ColumnKind::Text),
    ("status", ColumnKind::Text),
    ("error_message", ColumnKind::Text),
    ("sha256", ColumnKind::Text),
];

/// Status of a sample with an image, as img2dataset calls it.
pub(super) const SUCCESS: &str = "success";

/// Status of a sample without one.
pub(super) const FAILED: &str = "failed_to_generate";

/// All columns of a shard: those of every sample, then `extra`.
pub(super) fn all_columns(extra: &[Column]) -> Vec<Column> {
    BASE_COLUMNS.iter().map(|&(name, kind)| Column::new(name, kind)).chain(extra.iter().cloned()).collect()
}

/// The sample as a flat record: a value, or null, for each column of [`all_columns`], in that order.
pub(super) fn row(sample: &Sample, key: &str, extra: &[Column]) -> Result<Map<String, Value>> {
    let (status, error, digest) = match &sample.outcome {
        Outcome::Image(bytes) => (SUCCESS, Value::Null, Value::from(sha256_hex(bytes))),
        Outcome::Failed(reason) => (FAILED, Value::from(reason.as_str()), Value::Null),
    };
    let base = [Value::from(key), Value::from(sample.caption.as_str()), Value::from(status), error, digest];
    let mut row: Map<String, Value> = BASE_COLUMNS.iter().map(|(name, _)| (*name).to_string()).zip(base).collect();
    if let Some(unknown) = sample.meta.keys().find(|name| !extra.iter().any(|column| column.name == **name)) {
        return Err(mismatch(key, format!("field `{unknown}` is not among the columns of the shard")));
    }
    for column in extra {
        let value = sample.meta.get(&column.name).cloned().unwrap_or(Value::Null);
        if !holds(column.kind, &value) {
            return Err(mismatch(key, format!("field `{}` must be {:?}, not {value}", column.name, column.kind)));
        }
        row.insert(column.name.clone(), value);
    }
    Ok(row)
}

/// Whether `row` has exactly the columns of a shard, with values that they can hold.
pub(super) fn fits(row: &Map<String, Value>, extra: &[Column]) -> bool {
    let columns = all_columns(extra);
    row.len() == columns.len()
        && columns.iter().all(|column| row.get(&column.name).is_some_and(|value| holds(column.kind, value)))
}

/// Whether `row` is that of a sample without an image.
pub(super) fn has_failed(row: &Map<String, Value>) -> bool {
    row.get("status").and_then(Value::as_str) != Some(SUCCESS)
}

/// Whether a column of `kind` can hold `value`.
pub(super) fn holds(kind: ColumnKind, value: &Value) -> bool {
    value.is_null()
        || match kind {
            ColumnKind::Text => value.is_string(),
            ColumnKind::Int => value.is_i64(),
            ColumnKind::UInt => value.is_u64(),
            ColumnKind::Float => value.is_number(),
            ColumnKind::Bool => value.is_boolean(),
        }
}

fn mismatch(key: &str, message: String) -> Error {
    Error::Internal { op: "shards", message: format!("sample {key}: {message}") }
}
