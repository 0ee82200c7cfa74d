//! Tests of whole shards and folders. The small ones live with their modules.

mod hostile;
mod resume;
mod run;
mod show;
mod verify;

use std::path::Path;

use serde_json::{Value, json};

use super::{Column, ColumnKind, ImageFormat, Outcome, Sample, Shard, ShardSettings, ShardStats, ShardWriter, encode_image};

/// Settings of the shards of these tests: 10 samples a shard, 8x8 images.
fn settings(format: ImageFormat) -> ShardSettings {
    let columns = vec![
        Column::new("seed", ColumnKind::UInt),
        Column::new("width", ColumnKind::Int),
        Column::new("height", ColumnKind::Int),
        Column::new("guidance", ColumnKind::Float),
        Column::new("karras", ColumnKind::Bool),
        Column::new("sampler", ColumnKind::Text),
    ];
    ShardSettings { shard_size: 10, format, columns, config_sha256: "c0ffee".into() }
}

/// An image that differs for each `index`.
fn picture(format: ImageFormat, index: usize) -> Vec<u8> {
    let pixels: Vec<u8> = (0..8 * 8 * 3).map(|i| (i * (index + 3) % 251) as u8).collect();
    encode_image(format, 95, 8, 8, &pixels).unwrap()
}

/// Sample `index` of the tests: every third fails.
fn sample(format: ImageFormat, index: usize) -> Sample {
    let outcome = if index % 3 == 1 { Outcome::Failed("black image".into()) } else { Outcome::Image(picture(format, index)) };
    let extent = if index % 3 == 1 { Value::Null } else { json!(8) };
    let meta = json!({
        "seed": u64::MAX - index as u64, "width": extent, "height": extent, "guidance": 7.5,
        "karras": index.is_multiple_of(2), "sampler": "ddim",
    });
    let Value::Object(meta) = meta else { unreachable!() };
    Sample { index, caption: format!("a «caption» {index} with \"quotes\", a\ttab and <b>tags</b>"), outcome, meta }
}

fn open(dir: &Path, shard_id: u32, settings: &ShardSettings) -> ShardWriter {
    match ShardWriter::open(dir, shard_id, settings).unwrap() {
        Shard::Open(writer) => *writer,
        Shard::Done(stats) => panic!("already done: {stats:?}"),
    }
}

/// Writes the shard in one go.
fn write_shard(dir: &Path, shard_id: u32, count: usize, format: ImageFormat) -> ShardStats {
    let mut writer = open(dir, shard_id, &settings(format));
    for index in writer.completed()..count {
        writer.push(&sample(format, index)).unwrap();
    }
    writer.finish().unwrap()
}

/// Names of everything in `dir`, hidden files included.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
