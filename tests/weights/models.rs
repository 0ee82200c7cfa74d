//! The model argument: folders, and ids in a Hugging Face cache.

use super::{assert_says, file, shown};
use std::fs;
use std::path::{Path, PathBuf};
use syntic::Error;
use syntic::weights::{Component, ModelDir, read_json};

const INDEX: &str = r#"{"_class_name":"StableDiffusionPipeline","_diffusers_version":"0.6.0","future":7,
    "unet":["diffusers","UNet2DConditionModel"],"vae":["diffusers","AutoencoderKL"],"safety_checker":[null,null],"odd":"x"}"#;

fn open(model: &Path) -> syntic::Result<ModelDir> {
    ModelDir::open_in(model.to_str().unwrap(), Path::new("/nonexistent"))
}

#[test]
fn a_folder_gives_its_components() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model_index.json"), INDEX).unwrap();
    fs::create_dir(folder.path().join("unet")).unwrap();
    let model = open(folder.path()).unwrap();
    assert_eq!(model.pipeline_class(), Some("StableDiffusionPipeline"));
    assert_eq!(model.class("unet"), Some("UNet2DConditionModel"));
    assert_eq!(model.component("unet").unwrap(), folder.path().join("unet"));
    for absent in ["safety_checker", "odd", "future", "scheduler", "_class_name"] {
        assert_eq!(model.class(absent), None, "{absent}");
        assert_says(model.component(absent).unwrap_err(), &["model_index.json", absent, "not a component"]);
    }
    let error = model.component("vae").unwrap_err(); // listed, but the folder is missing
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("vae")), "{error}");
}

#[test]
fn what_is_not_a_model_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    assert_says(shown(&open(folder.path()).unwrap_err()), &["no model_index.json", "the parent of unet/"]);
    for single in ["v1-5.safetensors", "v1-5.ckpt"] {
        let path = folder.path().join(single);
        fs::write(&path, b"").unwrap();
        assert_says(shown(&open(&path).unwrap_err()), &[single, "single-file", "from_single_file", "save_pretrained"]);
    }
    fs::write(folder.path().join("notes.txt"), b"").unwrap();
    assert_says(shown(&open(&folder.path().join("notes.txt")).unwrap_err()), &["is a file, not a model"]);
    assert_says(shown(&open(Path::new("/no/such/folder/anywhere")).unwrap_err()), &["no folder", "org/name"]);
    fs::write(folder.path().join("model_index.json"), "[]").unwrap();
    assert_says(open(folder.path()).unwrap_err(), &["model_index.json", "not a JSON object"]);
}

#[cfg(unix)]
mod cache {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const COMMIT: &str = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14";

    /// A cache with one model, its files as links into `blobs/`.
    struct Cache {
        root: TempDir,
        repository: PathBuf,
    }

    impl Cache {
        fn new() -> Cache {
            let root = tempfile::tempdir().unwrap();
            let repository = root.path().join("models--org--name");
            for folder in ["refs/refs/pr", "blobs", &format!("snapshots/{COMMIT}/unet")] {
                fs::create_dir_all(repository.join(folder)).unwrap();
            }
            for reference in ["refs/main", "refs/refs/pr/3"] {
                fs::write(repository.join(reference), format!("{COMMIT}\n")).unwrap();
            }
            let cache = Cache { root, repository };
            cache.link("model_index.json", INDEX.as_bytes());
            cache.link("unet/diffusion_pytorch_model.safetensors", &file(&[("a.weight", "F32", &[1], 4.0)]));
            cache
        }

        fn snapshot(&self) -> PathBuf {
            self.repository.join("snapshots").join(COMMIT)
        }

        /// Puts a file into the snapshot as the Hub's library does.
        fn link(&self, name: &str, content: &[u8]) {
            let blob = name.replace('/', "-");
            fs::write(self.repository.join("blobs").join(&blob), content).unwrap();
            let up = "../".repeat(2 + name.matches('/').count());
            symlink(format!("{up}blobs/{blob}"), self.snapshot().join(name)).unwrap();
        }

        fn open(&self, id: &str) -> syntic::Result<ModelDir> {
            ModelDir::open_in(id, self.root.path())
        }
    }

    #[test]
    fn ids_are_found_by_branch_pull_request_and_commit() {
        let cache = Cache::new();
        for id in ["org/name", "org/name@main", "org/name@refs/pr/3", &format!("org/name@{COMMIT}")] {
            let model = cache.open(id).expect(id);
            assert_eq!(model.root(), cache.snapshot());
            let value = model.checkpoint(Component::Unet).unwrap().load(|loader| Ok(loader.tensor("a.weight", &[1]).to_f32()[0]));
            assert_eq!(value.unwrap(), 4.0);
        }
    }

    #[test]
    fn missing_models_come_with_the_download_command() {
        let cache = Cache::new();
        assert_says(shown(&cache.open("org/other").unwrap_err()), &["org/other", "hf download org/other"]);
        assert_says(shown(&cache.open("org/name@v2").unwrap_err()), &["revision v2", "hf download org/name --revision v2"]);
        fs::remove_file(cache.snapshot().join("model_index.json")).unwrap();
        assert_says(shown(&cache.open("org/name").unwrap_err()), &["model_index.json", "hf download org/name"]);
    }

    #[test]
    fn a_ref_cannot_lead_out_of_the_cache() {
        let cache = Cache::new();
        for content in ["../../elsewhere", "", "/etc", "a/b"] {
            fs::write(cache.repository.join("refs/main"), content).unwrap();
            assert_says(cache.open("org/name").unwrap_err(), &["refs/main", "commit"]);
        }
    }

    #[test]
    fn links_out_of_the_repository_are_refused() {
        let cache = Cache::new();
        let outside = cache.root.path().join("outside");
        fs::write(&outside, file(&[("a.weight", "F32", &[1], 5.0)])).unwrap();
        let weights = cache.snapshot().join("unet/diffusion_pytorch_model.safetensors");
        fs::remove_file(&weights).unwrap();
        symlink(&outside, &weights).unwrap();
        let error = cache.open("org/name").unwrap().checkpoint(Component::Unet).err().unwrap();
        assert_says(&error, &["diffusion_pytorch_model.safetensors", "leaves its repository"]);

        let config = cache.snapshot().join("unet/config.json");
        symlink("/etc/hostname", &config).unwrap();
        assert_says(read_json(&config).unwrap_err(), &["config.json", "leaves its repository"]);

        // The same link in a folder of the user's own is the user's choice.
        let own = tempfile::tempdir().unwrap();
        symlink(&outside, own.path().join("diffusion_pytorch_model.safetensors")).unwrap();
        assert!(super::super::read(own.path(), Component::Unet, "a.weight", &[1]).is_ok());
    }

    #[test]
    fn a_dangling_link_names_the_file() {
        let cache = Cache::new();
        fs::remove_file(cache.repository.join("blobs/unet-diffusion_pytorch_model.safetensors")).unwrap();
        let error = cache.open("org/name").unwrap().checkpoint(Component::Unet).err().unwrap();
        assert_says(&error, &["cannot read", "diffusion_pytorch_model.safetensors"]);
    }
}

#[test]
fn oversized_json_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::File::create(&path).unwrap().set_len(40 << 20).unwrap();
    assert_says(read_json(&path).unwrap_err(), &["config.json", "larger than the 33554432 bytes"]);
}
