//! Tokenizer folders for tests: CLIP's own vocabulary, and the settings that a golden file describes.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// CLIP's `vocab.json` and `merges.txt`.
pub struct ClipVocabulary {
    pub vocab: String,
    pub merges: String,
}

pub fn clip_vocabulary() -> ClipVocabulary {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clip-vocab");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"));
    ClipVocabulary { vocab: read("vocab.json"), merges: read("merges.txt") }
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
