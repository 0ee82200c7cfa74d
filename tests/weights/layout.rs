//! Which files of a folder are the weights.

use super::{assert_says, file, read, shown};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use syntic::Result;
use syntic::weights::{Checkpoint, Component};
use tempfile::TempDir;

const STEM: &str = "diffusion_pytorch_model";

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn one(value: f32) -> Vec<u8> {
    file(&[("a.weight", "F16", &[1], value)])
}

fn value(folder: &Path) -> Result<f32> {
    Ok(read(folder, Component::Unet, "a.weight", &[1])?[0])
}

#[test]
fn plain_files_come_first_and_fp16_serves_without_them() {
    let (plain, half) = (format!("{STEM}.safetensors"), format!("{STEM}.fp16.safetensors"));
    assert_eq!(value(folder(&[(&plain, &one(1.0)), (&half, &one(2.0))]).path()).unwrap(), 1.0);
    assert_eq!(value(folder(&[(&half, &one(2.0))]).path()).unwrap(), 2.0);
}

/// A model may have the variant for some components only.
#[test]
fn a_variant_is_taken_where_it_exists() {
    let (plain, half) = (format!("{STEM}.safetensors"), format!("{STEM}.fp16.safetensors"));
    let get = |folder: &TempDir| {
        let checkpoint = Checkpoint::open_variant(folder.path(), Component::Unet, Some("fp16")).unwrap();
        checkpoint.load(|loader| Ok(loader.tensor("a.weight", &[1]).to_f32()[0])).unwrap()
    };
    assert_eq!(get(&folder(&[(&plain, &one(1.0)), (&half, &one(2.0))])), 2.0);
    assert_eq!(get(&folder(&[(&plain, &one(1.0))])), 1.0);
}

/// Two shards and an index under the given name.
fn sharded(index_name: &str, shards: [&str; 2], map: &str) -> TempDir {
    let first = file(&[("a.weight", "F32", &[1], 1.0)]);
    let second = file(&[("b.weight", "F32", &[2], 2.0)]);
    folder(&[
        (shards[0], &first),
        (shards[1], &second),
        (index_name, format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).as_bytes()),
    ])
}

fn read_both(folder: &TempDir) -> Result<Vec<f32>> {
    Checkpoint::open(folder.path(), Component::Unet)?
        .load(|loader| Ok([loader.tensor("b.weight", &[2]).to_f32(), loader.tensor("a.weight", &[1]).to_f32()].concat()))
}

#[test]
fn shards_are_read_under_all_index_names() {
    let cases = [
        (format!("{STEM}.safetensors.index.json"), ["-00001-of-00002", "-00002-of-00002"]),
        (format!("{STEM}.safetensors.index.fp16.json"), [".fp16-00001-of-00002", ".fp16-00002-of-00002"]),
        (format!("{STEM}.safetensors.fp16.index.json"), ["-00001-of-00002.fp16", "-00002-of-00002.fp16"]),
    ];
    for (index, parts) in cases {
        let shards = parts.map(|part| format!("{STEM}{part}.safetensors"));
        let map = format!(r#"{{"a.weight":"{}","b.weight":"{}"}}"#, shards[0], shards[1]);
        let folder = sharded(&index, [&shards[0], &shards[1]], &map);
        assert_eq!(read_both(&folder).expect(&index), [2.0, 2.0, 1.0]);
    }
}

#[test]
fn a_lying_index_is_refused() {
    let index = format!("{STEM}.safetensors.index.json");
    let cases = [
        (
            r#"{"a.weight":"../1.safetensors","b.weight":"2.safetensors"}"#,
            vec!["`a.weight`", "\"../1.safetensors\"", "plain name"],
        ),
        (r#"{"a.weight":"/tmp/1.safetensors","b.weight":"2.safetensors"}"#, vec!["`a.weight`", "plain name"]),
        (r#"{"a.weight":"1.safetensors","b.weight":"2.bin"}"#, vec!["`b.weight`", "\"2.bin\"", "plain name"]),
        (r#"{"a\u001b[2J":"1.safetensors\u001b[2J.safetensors"}"#, vec!["a\\u{1b}[2J", "plain name"]),
        (r#"{"a.weight":"1.safetensors","b.weight":"3.safetensors"}"#, vec!["shard `3.safetensors` is missing"]),
        (
            r#"{"a.weight":"1.safetensors","b.weight":"2.safetensors","c.weight":"2.safetensors"}"#,
            vec!["`c.weight`", "`2.safetensors`, which does not hold it"],
        ),
        (r#"{"a.weight":"1.safetensors","b.weight":"1.safetensors"}"#, vec!["`b.weight`", "which does not hold it"]),
        (r#"{"b.weight":"2.safetensors","a.weight":1}"#, vec!["`a.weight`", "not a string"]),
        (r#"{}"#, vec!["weight_map", "empty"]),
        (r#"[]"#, vec!["weight_map", "not an object"]),
    ];
    for (map, expected) in cases {
        let folder = sharded(&index, ["1.safetensors", "2.safetensors"], map);
        assert_says(read_both(&folder).expect_err(map), &[&[index.as_str()], expected.as_slice()].concat());
    }
}

/// The same tensor in two shards, one of which the index does not mention for it.
#[test]
fn a_tensor_in_two_shards_is_refused() {
    let both = file(&[("a.weight", "F32", &[1], 9.0), ("b.weight", "F32", &[2], 9.0)]);
    let index = br#"{"weight_map":{"a.weight":"1.safetensors","b.weight":"2.safetensors"}}"#;
    let folder =
        folder(&[("1.safetensors", &one(1.0)), ("2.safetensors", &both), (&format!("{STEM}.safetensors.index.json"), index)]);
    assert_says(read_both(&folder).unwrap_err(), &["`a.weight`", "`2.safetensors` holds it, but the index places it elsewhere"]);
}

#[test]
fn hashes_are_those_of_sha256sum() {
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let single = folder(&[(&format!("{STEM}.safetensors"), &one(1.0))]);
    assert_eq!(Checkpoint::open(single.path(), Component::Unet).unwrap().hash().unwrap(), hex(&one(1.0)));

    let shards = sharded(
        &format!("{STEM}.safetensors.index.json"),
        ["1.safetensors", "2.safetensors"],
        r#"{"a.weight":"1.safetensors","b.weight":"2.safetensors"}"#,
    );
    let sum = |name: &str| format!("{}  {name}\n", hex(&fs::read(shards.path().join(name)).unwrap()));
    let expected = hex((sum("1.safetensors") + &sum("2.safetensors")).as_bytes());
    assert_eq!(Checkpoint::open(shards.path(), Component::Unet).unwrap().hash().unwrap(), expected);
}

#[test]
fn pickles_are_refused_with_the_command_that_converts_them() {
    for (component, name) in [(Component::TextEncoder, "pytorch_model.bin"), (Component::Unet, "it's.ckpt")] {
        let folder = folder(&[(name, b"\x80\x02}q\x00.")]);
        let error = Checkpoint::open(folder.path(), component).err().unwrap();
        let target = format!("{}.safetensors", component.naming().file_stem());
        assert_says(shown(&error), &[name.split('\'').next().unwrap(), "pickle", "python3 -c", "save_file", &target]);
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn an_empty_or_foreign_folder_says_what_is_there() {
    let error = Checkpoint::open(folder(&[]).path(), Component::Vae).err().unwrap();
    assert_says(shown(&error), &["no diffusion_pytorch_model.safetensors", "no weight files"]);
    let error = Checkpoint::open(folder(&[("other.safetensors", b"")]).path(), Component::Vae).err().unwrap();
    assert_says(shown(&error), &["other.safetensors"]);
    let error = Checkpoint::open(Path::new("/nonexistent/vae"), Component::Vae).err().unwrap();
    assert_says(&error, &["cannot read /nonexistent/vae"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_indexes_never_panic(map in r#"[{}\[\]":,a-c./\\0-9]{0,60}"#, whole in any::<bool>()) {
        let text = if whole { map } else { format!(r#"{{"weight_map":{{"a.weight":"{map}"}}}}"#) };
        let folder = folder(&[(&format!("{STEM}.safetensors.index.json"), text.as_bytes())]);
        prop_assert!(Checkpoint::open(folder.path(), Component::Unet).is_err());
    }
}
