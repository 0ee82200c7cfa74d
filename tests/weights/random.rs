//! Random models: reproducible, loadable, whole or not at all.

use super::{assert_says, shown};
use std::fs;
use std::path::Path;
use syntic::tensor::DType;
use syntic::weights::{Arch, Checkpoint, Component, ModelDir, NamedShapes, read_json, write_model_folder, write_safetensors};
use syntic::{Error, Result};

fn shapes() -> NamedShapes {
    let list: [(&str, &[usize]); 4] =
        [("conv.weight", &[64, 32, 3, 3]), ("conv.bias", &[64]), ("norm.weight", &[5]), ("wide.weight", &[1100, 1000])];
    list.into_iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
}

fn bytes(dtype: DType, seed: u64) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    write_safetensors(&path, &shapes(), dtype, seed).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    fs::read(path).unwrap()
}

#[test]
fn the_bytes_depend_on_the_seed_and_not_on_the_threads() {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let one = pool(1).install(|| bytes(DType::F32, 3));
    assert!(one == pool(3).install(|| bytes(DType::F32, 3)));
    let tail = |bytes: &[u8]| bytes[bytes.len() - 4000..].to_vec(); // values, without the header that names the seed
    assert_ne!(tail(&one), tail(&bytes(DType::F32, 4)));
}

/// Every type holds the same values, rounded, scaled by the number of inputs.
#[test]
fn types_agree_and_scales_are_as_documented() {
    let read = |dtype| -> Vec<Vec<f32>> {
        let folder = tempfile::tempdir().unwrap();
        write_safetensors(&folder.path().join("model.safetensors"), &shapes(), dtype, 9).unwrap();
        let checkpoint = Checkpoint::open(folder.path(), Component::TextEncoder).unwrap();
        checkpoint.load(|loader| Ok(shapes().iter().map(|(name, shape)| loader.tensor(name, shape).to_f32()).collect())).unwrap()
    };
    let full = read(DType::F32);
    for (dtype, step) in [(DType::F16, 2f32.powi(-11)), (DType::BF16, 2f32.powi(-8))] {
        for (a, b) in full.iter().flatten().zip(read(dtype).iter().flatten()) {
            assert!((a - b).abs() <= a.abs() * step + 1e-7, "{dtype}: {a} {b}");
        }
    }
    let std = |v: &[f32]| (v.iter().map(|x| x * x).sum::<f32>() / v.len() as f32).sqrt();
    for (values, expected) in [(&full[0], 1.0 / 288f32.sqrt()), (&full[3], 1.0 / 1000f32.sqrt())] {
        assert!((std(values) / expected - 1.0).abs() < 0.03, "std {} and not {expected}", std(values));
    }
    assert!(full[2].iter().all(|x| (x - 1.0).abs() < 0.4), "{:?}", full[2]);
    assert!(full.iter().flatten().all(|x| x.is_finite()));
    // No value comes from another place of the tensor: pieces of 2^14 elements, batches of 2^20.
    for period in [1 << 14, 1 << 20] {
        assert!(full[3][..100] != full[3][period..period + 100], "values repeat after {period}");
    }
}

fn tiny(component: Component, folder: &Path) -> Result<NamedShapes> {
    assert!(read_json(&folder.join("config.json"))?.is_object());
    Ok(vec![(format!("{}.weight", component.folder()), vec![3, 4])])
}

#[test]
fn a_model_folder_is_complete() {
    let parent = tempfile::tempdir().unwrap();
    for arch in Arch::ALL {
        let out = parent.path().join(arch.name());
        write_model_folder(&out, arch, DType::F16, 1, &tiny).unwrap();
        let model = ModelDir::open(out.to_str().unwrap()).unwrap();
        assert_eq!(model.pipeline_class(), Some("StableDiffusionPipeline"));
        for component in Component::ALL {
            let name = format!("{}.weight", component.folder());
            let values = model.checkpoint(component).unwrap().load(|loader| Ok(loader.tensor(&name, &[3, 4]).to_f32()));
            assert_eq!(values.unwrap().len(), 12);
            let config = read_json(&model.component(component.folder()).unwrap().join("config.json")).unwrap();
            assert!(config.get("_class_name").or(config.get("architectures")).is_some());
        }
        let scheduler = read_json(&model.component("scheduler").unwrap().join("scheduler_config.json")).unwrap();
        assert_eq!(scheduler["_class_name"].as_str(), model.class("scheduler"));
        let prediction = if arch == Arch::Sd21 { Some("v_prediction") } else { None };
        assert_eq!(scheduler.get("prediction_type").and_then(|p| p.as_str()), prediction);

        let tokenizer = model.component("tokenizer").unwrap();
        let vocabulary = read_json(&tokenizer.join("vocab.json")).unwrap();
        assert_eq!(vocabulary.as_object().unwrap().len(), 49408);
        assert_eq!(vocabulary["<|endoftext|>"], 49407);
        let merges = fs::read_to_string(tokenizer.join("merges.txt")).unwrap();
        assert_eq!(merges.lines().count(), 48895);
        let pad = read_json(&tokenizer.join("special_tokens_map.json")).unwrap()["pad_token"].clone();
        assert_eq!(pad, if arch == Arch::Sd21 { "!" } else { "<|endoftext|>" });
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), Arch::ALL.len(), "a draft is left");
}

#[test]
fn existing_folders_are_not_touched() {
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("precious"), "x").unwrap();
    let error = write_model_folder(out.path(), Arch::Tiny, DType::F32, 1, &tiny).unwrap_err();
    assert_says(shown(&error), &["not empty", "choose another folder"]);
    assert_eq!(fs::read_to_string(out.path().join("precious")).unwrap(), "x");
}

/// After a failure nothing is there under the final name, and the next run succeeds.
#[test]
fn a_failed_run_leaves_no_model_and_does_not_block_the_next() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("model");
    let failing = |component: Component, folder: &Path| match component {
        Component::Vae => Err(Error::usage("stop", "")),
        _ => tiny(component, folder),
    };
    assert!(write_model_folder(&out, Arch::Tiny, DType::F32, 1, &failing).is_err());
    assert!(!out.exists());
    write_model_folder(&out, Arch::Tiny, DType::F32, 1, &tiny).unwrap();
    assert!(out.join("model_index.json").exists());
}
