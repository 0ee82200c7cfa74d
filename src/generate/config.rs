//! What is recorded of a run: in the folder, and with every sample.

use super::Settings;
use crate::corpus::{Caption, Corpus};
use crate::device::Device;
use crate::shards::{Column, ColumnKind};
use crate::tensor::DType;
use crate::weights::ModelDir;
use crate::{Result, VERSION};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Every setting that has an influence on the bytes of the shards: what may not change between runs into the same folder.
/// `samples` is the number of selected captions, all workers together.
pub(super) fn of_run(
    settings: &Settings,
    (height, width): (usize, usize),
    dtype: DType,
    scheduler: &str,
    model: &ModelDir,
    corpus: &Corpus,
    samples: usize,
) -> Result<Value> {
    let Settings { selection, sampling, output, .. } = settings;
    let init = settings.init_latents.as_deref().map(crate::weights::file_sha256).transpose()?;
    Ok(json!({
        "stage": "generate",
        "syntic_version": VERSION,
        "model": model_name(&settings.model),
        "model_sha256": model.sha256()?,
        "captions_sha256": corpus.hash(),
        "offset": selection.offset,
        "limit": selection.limit,
        "samples": samples,
        "seed": sampling.seed,
        "rng": sampling.rng.name(),
        "scheduler": scheduler,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "negative_prompt": sampling.negative,
        "height": height,
        "width": width,
        "dtype": dtype.name(),
        "init_latents_sha256": init,
        "shard_size": output.shard_size,
        "format": output.format.extension(),
        "quality": output.quality,
    }))
}

/// What this process uses, for information: it changes no byte.
pub(super) fn of_process(settings: &Settings, batch: usize, device: &Device) -> Value {
    json!({
        "model": settings.model,
        "captions": settings.captions,
        "batch": batch,
        "device": device.describe(),
        "worker_index": settings.selection.worker_index,
        "worker_count": settings.selection.worker_count,
    })
}

/// Settings of the run that are repeated with every sample, so that a sample tells alone what made it.
const REPEATED: [(&str, ColumnKind); 13] = [
    ("width", ColumnKind::Int),
    ("height", ColumnKind::Int),
    ("negative_prompt", ColumnKind::Text),
    ("scheduler", ColumnKind::Text),
    ("steps", ColumnKind::Int),
    ("guidance", ColumnKind::Float),
    ("rng", ColumnKind::Text),
    ("dtype", ColumnKind::Text),
    ("model", ColumnKind::Text),
    ("model_sha256", ColumnKind::Text),
    ("captions_sha256", ColumnKind::Text),
    ("init_latents_sha256", ColumnKind::Text),
    ("syntic_version", ColumnKind::Text),
];

/// Fields of a sample's json, and columns of the parquet, beside key, caption, status and error.
pub(super) fn columns() -> Vec<Column> {
    let own = [
        ("index", ColumnKind::UInt),
        ("caption_id", ColumnKind::Text),
        ("image_id", ColumnKind::Text),
        ("seed", ColumnKind::UInt),
        ("caption_cut", ColumnKind::Bool),
    ];
    own.into_iter().chain(REPEATED).map(|(name, kind)| Column::new(name, kind)).collect()
}

/// Values of [`columns`] for one sample.
pub(super) fn sample_fields(config: &Value, caption: &Caption<'_>, seed: u64, cut: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("index".into(), caption.index.into());
    fields.insert("caption_id".into(), caption.id.into());
    fields.insert("image_id".into(), caption.image.into());
    fields.insert("seed".into(), seed.into());
    fields.insert("caption_cut".into(), cut.into());
    for (name, _) in REPEATED {
        fields.insert(name.into(), config[name].clone());
    }
    fields
}

/// A folder's own name, or the id as typed: where it lies on this machine does not matter.
fn model_name(model: &str) -> String {
    let path = Path::new(model);
    match path.canonicalize() {
        Ok(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        Err(_) => model.to_string(),
    }
}
