//! The local cache of the Hugging Face Hub: `org/name[@revision]` -> folder, without ever calling the network.
//!
//! Layout (Hub documentation, "Local cache"): `models--ORG--NAME/refs/REVISION` holds the text of a commit, whose files are
//! in `models--ORG--NAME/snapshots/COMMIT`, as links into `models--ORG--NAME/blobs`.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A model on the Hub: `org/name` and a branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelId {
    repository: String,
    revision: Option<String>,
}

impl ModelId {
    /// Parses `org/name` or `org/name@revision`; `None` if the text cannot be a model id.
    pub fn parse(text: &str) -> Option<ModelId> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (organisation, name) = repository.split_once('/')?;
        let valid = is_name(organisation) && is_name(name) && revision.is_none_or(|r| r.split('/').all(is_name));
        valid.then(|| ModelId { repository: repository.into(), revision: revision.map(Into::into) })
    }

    /// The snapshot of this model under a cache root.
    ///
    /// # Errors
    /// [`Error::Usage`], with the command that downloads it, if the cache does not have it; [`Error::Format`] for a broken ref.
    pub fn find(&self, cache: &Path) -> Result<PathBuf> {
        let folder = cache.join(format!("models--{}", self.repository.replace('/', "--")));
        let revision = self.revision.as_deref().unwrap_or("main");
        let reference = folder.join("refs").join(revision);
        let commit = match fs::read_to_string(&reference) {
            Ok(text) => text.trim().to_string(),
            Err(_) => revision.to_string(), // a commit is its own name
        };
        if !is_name(&commit) {
            return Err(Error::format(&reference, "", "does not hold the name of a commit: download the model again"));
        }
        let snapshot = folder.join("snapshots").join(commit);
        if snapshot.is_dir() {
            return Ok(snapshot);
        }
        let what = match &self.revision {
            Some(revision) => format!("revision {revision} of {}", self.repository),
            None => self.repository.clone(),
        };
        Err(Error::usage(format!("{what} is neither a folder nor in the Hugging Face cache {}", cache.display()), self.advice()))
    }

    /// The command that fills the cache.
    pub fn advice(&self) -> String {
        let revision = self.revision.as_ref().map(|r| format!(" --revision {r}")).unwrap_or_default();
        format!("check the path, or download the model: hf download {}{revision}", self.repository)
    }
}

/// True for a path segment that is a plain name, as the Hub allows them: letters, digits, `.`, `_` and `-`, not starting with a dot or dash.
fn is_name(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    plain && !text.is_empty() && !text.starts_with(['.', '-'])
}

/// Root of the cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in the user's cache folder.
pub(super) fn cache_root() -> PathBuf {
    cache_root_from(|name| std::env::var_os(name))
}

fn cache_root_from(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = path("HOME").or_else(|| path("USERPROFILE")).unwrap_or_default();
    let expand = |path: PathBuf| path.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(path.clone());
    if let Some(cache) = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")) {
        return expand(cache);
    }
    let huggingface = path("HF_HOME").unwrap_or_else(|| match path("XDG_CACHE_HOME") {
        Some(cache) => cache.join("huggingface"),
        None => home.join(".cache/huggingface"),
    });
    expand(huggingface).join("hub")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_plain_names() {
        let id = ModelId::parse("stabilityai/stable-diffusion-2-1@refs/pr/7").unwrap();
        assert_eq!((id.repository.as_str(), id.revision.as_deref()), ("stabilityai/stable-diffusion-2-1", Some("refs/pr/7")));
        for bad in ["sd15", "a/b/c", "../x", "a/..", "/a/b", "a/b@", "a/b@../c", "a/b c", "~/x", "./x", "-f/x"] {
            assert_eq!(ModelId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_cache_is_where_the_hub_library_puts_it() {
        let root = |set: &[(&str, &str)]| {
            cache_root_from(|name| {
                let home = [("HOME", "/home/u")];
                set.iter().chain(&home).find(|(n, _)| *n == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(root(&[]), Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(root(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(root(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), Path::new("/home/u/hf/hub"));
        assert_eq!(root(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")]), Path::new("/cache"));
        assert_eq!(root(&[("HF_HUB_CACHE", "")]), Path::new("/home/u/.cache/huggingface/hub"));
    }
}
