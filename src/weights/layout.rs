//! Which files hold the weights of a component: single, variant, or shards with an index.

use super::Naming;
use super::file::WeightFile;
use super::json::read_json;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Variant that is taken when a folder has no plain files.
const FALLBACK_VARIANT: &str = "fp16";

/// Opens all weight files of a network, in order of their names.
pub(super) fn open_files(folder: &Path, naming: Naming, variant: Option<&str>) -> Result<Vec<WeightFile>> {
    let stem = naming.file_stem();
    let preferred = [variant, None, Some(FALLBACK_VARIANT)];
    for variant in preferred.into_iter().skip(usize::from(variant.is_none())) {
        let single = folder.join(single_name(stem, variant));
        if is_present(&single) {
            return Ok(vec![WeightFile::open(&single)?]);
        }
        for index in index_names(stem, variant) {
            let index = folder.join(index);
            if is_present(&index) {
                return open_shards(folder, &index);
            }
        }
    }
    Err(nothing_found(folder, stem))
}

fn single_name(stem: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{stem}.{variant}.safetensors"),
        None => format!("{stem}.safetensors"),
    }
}

/// diffusers moved the variant behind `index`; both orders are published.
fn index_names(stem: &str, variant: Option<&str>) -> Vec<String> {
    match variant {
        Some(v) => vec![format!("{stem}.safetensors.index.{v}.json"), format!("{stem}.safetensors.{v}.index.json")],
        None => vec![format!("{stem}.safetensors.index.json")],
    }
}

/// True for files and for links, dangling ones included: those deserve their own error.
fn is_present(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Opens the shards of an index, and checks that each key lies in the shard the index names, and nowhere else.
fn open_shards(folder: &Path, index: &Path) -> Result<Vec<WeightFile>> {
    let json = read_json(index)?;
    let bad = |key: &str, message: &str| Error::format(index, format!("key `{}`", key.escape_debug()), message);
    let map = json.get("weight_map").and_then(|m| m.as_object()).ok_or_else(|| bad("weight_map", "missing or not an object"))?;

    // Shard name -> the keys the index places there.
    let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, shard) in map {
        let shard = shard.as_str().ok_or_else(|| bad(key, "the shard's name is not a string"))?;
        if !is_plain_name(shard) {
            return Err(bad(key, &format!("{shard:?} is not a plain name of a .safetensors file beside the index")));
        }
        shards.entry(shard).or_default().insert(key);
    }
    if shards.is_empty() {
        return Err(bad("weight_map", "it is empty"));
    }

    let mut files = Vec::new();
    for (shard, keys) in shards {
        let path = folder.join(shard);
        if !is_present(&path) {
            let message = format!("shard `{shard}` is missing from the folder: copy or download it");
            return Err(Error::format(index, "", message));
        }
        let file = WeightFile::open(&path)?;
        let found: BTreeSet<&str> = file.entries().iter().map(|e| e.key.as_str()).collect();
        if let Some(key) = keys.difference(&found).next() {
            return Err(bad(key, &format!("the index places it in `{shard}`, which does not hold it")));
        }
        if let Some(key) = found.difference(&keys).next() {
            return Err(bad(key, &format!("`{shard}` holds it, but the index places it elsewhere or nowhere")));
        }
        files.push(file);
    }
    Ok(files)
}

/// A file name and nothing else: no separators (of any system), no drive, no parent.
fn is_plain_name(name: &str) -> bool {
    name.ends_with(".safetensors")
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}

/// Why there is nothing to open: no folder, pickle files only, another variant, or an empty folder.
fn nothing_found(folder: &Path, stem: &str) -> Error {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) => return Error::Io { action: "read", path: folder.to_path_buf(), source },
    };
    let mut names: Vec<String> = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    if let Some(pickle) = names.iter().find(|name| is_pickle(name)) {
        return refuse_pickle(&folder.join(pickle), &folder.join(format!("{stem}.safetensors")));
    }
    let weights: Vec<String> = names.into_iter().filter(|n| n.ends_with(".safetensors")).collect();
    let found = if weights.is_empty() { "no weight files".into() } else { weights.join(", ") };
    Error::usage(
        format!(
            "{}: no {stem}.safetensors, {stem}.{FALLBACK_VARIANT}.safetensors or {stem}.safetensors.index.json",
            folder.display()
        ),
        format!("the folder holds {found}: download the missing file, or rename the one you want"),
    )
}

/// True for names of files that are pickles: reading one runs the code inside.
pub(super) fn is_pickle(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    matches!(extension.as_str(), "bin" | "ckpt" | "pt" | "pth" | "pkl")
}

fn refuse_pickle(pickle: &Path, converted: &Path) -> Error {
    const SCRIPT: &str = "import sys, torch, safetensors.torch; t = torch.load(sys.argv[1], map_location='cpu', weights_only=True); \
        t = t.get('state_dict', t); \
        safetensors.torch.save_file({k: v.clone().contiguous() for k, v in t.items()}, sys.argv[2], metadata={'format': 'pt'})";
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    Error::usage(
        format!("{} is a pickle file: reading one can run any code, so it is not supported", pickle.display()),
        format!("convert it once, with torch and safetensors: python3 -c \"{SCRIPT}\" {} {}", quote(pickle), quote(converted)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_shards() {
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for bad in
            ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "c:x.safetensors", "..", "x.bin", ".safetensors"]
        {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }

    #[test]
    fn pickles_are_recognised_by_extension() {
        for name in ["pytorch_model.bin", "v1-5.ckpt", "a.PT", "b.pth"] {
            assert!(is_pickle(name), "{name}");
        }
        assert!(!is_pickle("model.safetensors") && !is_pickle("bin"));
    }
}
