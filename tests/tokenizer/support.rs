//! Tokenizer folders for tests: CLIP's own vocabulary, and the settings that a golden file describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use syntic::tensor::DType;
use syntic::weights::{Arch, write_model_folder};
use tempfile::TempDir;

/// CLIP's `vocab.json` and `merges.txt`.
pub struct ClipVocabulary {
    pub vocab: String,
    pub merges: String,
}

/// The vocabulary that `syntic random-model` writes.
pub fn clip_vocabulary() -> &'static ClipVocabulary {
    static CLIP: LazyLock<ClipVocabulary> = LazyLock::new(|| {
        let temporary = TempDir::new().unwrap();
        let folder = random_tokenizer(&temporary, Arch::Tiny);
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        ClipVocabulary { vocab: read("vocab.json"), merges: read("merges.txt") }
    });
    &CLIP
}

/// Writes a random model without tensors; returns its tokenizer folder.
pub fn random_tokenizer(parent: &TempDir, arch: Arch) -> PathBuf {
    let model = parent.path().join(arch.name());
    write_model_folder(&model, arch, DType::F32, 0, &|_, _| Ok(Vec::new())).unwrap();
    model.join("tokenizer")
}

/// Writes a tokenizer folder. A `tokenizer.json` among the settings gets the vocabulary and merges; else they are files.
pub fn write_folder(folder: &Path, clip: &ClipVocabulary, settings: &Map<String, Value>) {
    if !settings.contains_key("tokenizer.json") {
        fs::write(folder.join("vocab.json"), &clip.vocab).unwrap();
        fs::write(folder.join("merges.txt"), &clip.merges).unwrap();
    }
    for (name, content) in settings {
        let mut content = content.clone();
        if name == "tokenizer.json" {
            content["model"]["vocab"] = serde_json::from_str(&clip.vocab).unwrap();
            let pairs = clip.merges.lines().skip(1).map(|merge| json!(merge.split(' ').collect::<Vec<_>>()));
            content["model"]["merges"] = pairs.collect();
        }
        fs::write(folder.join(name), content.to_string()).unwrap();
    }
}
