//! Finds the format of a caption file from its name and its first bytes.

use std::path::Path;

use serde_json::{Map, Value};

use super::Format;

/// The extension decides, except between the formats that share `.json`. `head` is the start of the file.
pub(super) fn format(path: &Path, head: &[u8]) -> Format {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("txt") => return Format::Txt,
        Some("tsv") => return Format::Tsv,
        Some("csv") => return Format::Csv,
        Some("jsonl" | "ndjson") => return Format::Jsonl,
        _ => {}
    }
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    if extension.as_deref() == Some("json") || matches!(first, Some(b'{' | b'[')) {
        return json(head);
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    if line.contains(&b'\t') { Format::Tsv } else { Format::Txt }
}

/// Karpathy's files name the sentences of their first image early on. A file whose first line is a whole object, with more
/// after it, is JSON lines under another name.
fn json(head: &[u8]) -> Format {
    let contains = |key: &[u8]| head.windows(key.len()).any(|window| window == key);
    if contains(b"\"sentences\"") || contains(b"\"sentids\"") {
        return Format::Karpathy;
    }
    let mut lines = head.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    match (lines.next(), lines.next()) {
        (Some(first), Some(_)) if serde_json::from_slice::<Map<String, Value>>(first).is_ok() => Format::Jsonl,
        _ => Format::Coco,
    }
}
