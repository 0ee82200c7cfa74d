//! Image-text pairs on disk: WebDataset shards as img2dataset writes them, made so that they can be trusted.
//!
//! | file | content |
//! |---|---|
//! | `NNNNN.tar` | ustar; `KEY.jpg` (or `png`, `webp`), `KEY.txt`, `KEY.json` of each successful sample, adjacent |
//! | `NNNNN.parquet` | the fields of the json, one row per sample, failures included (`status`, `error_message`) |
//! | `NNNNN_stats.json` | counts, duration, size and SHA-256 of the two files above; written last: its presence means "done" |
//! | `_run/` | the configuration that made the folder, and the locks of the workers |
//! | `.NNNNN.*` | a shard in progress; hidden, and gone when the shard is done |
//!
//! `NNNNN` is the shard id, `KEY` the shard id followed by the index in the shard ([`sample_key`]).
//! [`ShardWriter`] makes one shard and continues it after a crash; [`RunManifest`] refuses to mix two configurations in a
//! folder; [`ShardReader`] reads shards from anywhere without trusting them; [`verify`] checks a folder; [`gallery`] and
//! [`contact_sheet`] show it. The bytes of tar and parquet are a function of the samples alone.

mod decode;
mod disk;
mod encode;
mod font;
mod gallery;
mod journal;
mod layout;
mod reader;
mod run;
mod sample;
mod sheet;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod ustar;
mod verify;
mod writer;

pub use decode::{MAX_PIXELS, MAX_SIDE, decode_image, image_fault};
pub use encode::{ImageFormat, encode_image};
pub use gallery::{GalleryOptions, gallery};
pub use layout::{sample_key, shard_name};
pub use reader::{ReadLimits, ShardReader, StoredSample, read_shard};
pub use run::{RunManifest, Worker, config_sha256};
pub use sample::{Column, ColumnKind, Outcome, Sample};
pub use sheet::{SheetOptions, Tile, contact_sheet, write_contact_sheet};
pub use stats::{ShardStats, shard_stats};
pub use verify::{Problem, Report, verify};
pub use writer::{Shard, ShardSettings, ShardWriter, finished_shard};
