//! Where models are looked for, and which are there.

use super::{builtin, hub};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A folder that keeps models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// "Hugging Face hub" or "built-in model".
    pub name: &'static str,
    /// The folder; none if there is no place for it.
    pub folder: Option<PathBuf>,
    /// What is in it, as `--model` takes it.
    pub models: Vec<String>,
}

/// The folders in which models are looked for. Reads their names, and writes nothing.
pub fn caches() -> Vec<Cache> {
    let (hub, own) = (hub::cache_root(), builtin::folder().ok());
    let unpacked = own.as_ref().is_some_and(|folder| folder.is_dir());
    vec![
        Cache { name: "Hugging Face hub", models: downloaded(&hub), folder: Some(hub) },
        Cache { name: "built-in model", models: unpacked.then(|| builtin::BUILTIN.into()).into_iter().collect(), folder: own },
    ]
}

/// The models of a cache of the hub: `models--ORG--NAME` with a snapshot.
fn downloaded(cache: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let mut models: Vec<String> = entries
        .filter(|entry| entry.path().join("snapshots").is_dir())
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("models--")?.replacen("--", "/", 1)))
        .collect();
    models.sort();
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_hub_are_listed_as_they_are_typed() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["models--b--two--parts/snapshots", "models--a--one/snapshots", "models--c--empty", "datasets--d--x/snapshots"]
        {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        assert_eq!(downloaded(folder.path()), ["a/one", "b/two--parts"]);
        assert_eq!(downloaded(&folder.path().join("none")), [""; 0]);
    }
}
