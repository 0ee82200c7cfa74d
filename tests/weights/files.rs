//! Single files: what is accepted, what is refused, and that nothing panics.

use super::{assert_says, file, raw, read};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use syntic::weights::{Checkpoint, Component, parse_safetensors};

/// A valid file with two tensors, as a start for mutations.
fn valid() -> Vec<u8> {
    file(&[("a.weight", "F32", &[2, 3], 1.5), ("b.bias", "BF16", &[5], -2.0)])
}

#[test]
fn malformed_files_are_refused_in_words() {
    let ten = [0; 10];
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("empty", vec![], "too short for a header"),
        ("seven bytes", vec![1; 7], "too short for a header"),
        ("truncated data", valid()[..valid().len() - 1].to_vec(), "truncated"),
        ("truncated header", valid()[..40].to_vec(), "announces a header of"),
        ("trailing bytes", [valid(), vec![0]].concat(), "extra bytes"),
        ("header length beyond the file", [1000u64.to_le_bytes().to_vec(), b"{}".to_vec()].concat(), "only 10 bytes long"),
        (
            "header length of 200 MB",
            [200_000_000u64.to_le_bytes().to_vec(), ten.to_vec()].concat(),
            "more than the format allows",
        ),
        ("header length overflows", [u64::MAX.to_le_bytes().to_vec(), ten.to_vec()].concat(), "more than the format allows"),
        ("not JSON", raw("{\"a\":", b""), "JSON"),
        ("not UTF-8", [2u64.to_le_bytes().to_vec(), vec![0xFF, 0xFE]].concat(), "UTF-8"),
        (
            "overlap",
            raw(
                r#"{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[6],"data_offsets":[4,10]}}"#,
                &ten,
            ),
            "`b` overlaps",
        ),
        (
            "hole",
            raw(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}}"#,
                &ten,
            ),
            "leaves a hole",
        ),
        ("offsets reversed", raw(r#"{"a":{"dtype":"U8","shape":[10],"data_offsets":[10,0]}}"#, &ten), "`a`"),
        ("size of another shape", raw(r#"{"a":{"dtype":"F32","shape":[10],"data_offsets":[0,10]}}"#, &ten), "shape"),
        (
            "shape overflows",
            raw(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,10]}}"#, &ten),
            "overflow",
        ),
        ("negative extent", raw(r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,10]}}"#, &ten), "JSON"),
        ("unknown type", raw(r#"{"a":{"dtype":"Q4","shape":[10],"data_offsets":[0,10]}}"#, &ten), "Q4"),
        (
            "name twice",
            raw(
                r#"{"a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]},"a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]}}"#,
                &ten,
            ),
            "`a` appears twice",
        ),
        (
            "name twice, once escaped",
            raw(
                r#"{"a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]},"\u0061":{"dtype":"U8","shape":[10],"data_offsets":[0,10]}}"#,
                &ten,
            ),
            "`a` appears twice",
        ),
        (
            "escape sequence in a name",
            raw(r#"{"\u001b[2J":{"dtype":"U8","shape":[10],"data_offsets":[0,10]}}"#, &ten),
            "control characters",
        ),
        ("LFS pointer", b"version https://git-lfs pointer\noid sha256:00\n".to_vec(), "git lfs pull"),
    ];
    for (name, bytes, expected) in cases {
        let message = parse_safetensors(bytes).expect_err(name);
        assert!(message.contains(expected), "{name}: `{expected}` is not in: {message}");
    }
}

#[test]
fn the_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), &valid()[..60]).unwrap();
    let error = read(folder.path(), Component::TextEncoder, "a.weight", &[2, 3]).unwrap_err();
    assert_says(&error, &["model.safetensors", "announces a header of"]);
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_folder_in_place_of_the_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(folder.path(), Component::TextEncoder).err().unwrap();
    assert_says(&error, &["model.safetensors", "not a regular file"]);
}

/// Types may be mixed in one file, and data may start at an odd address.
/// Writers before safetensors 0.3 did not pad the header, so the data may start anywhere in the file.
#[test]
fn mixed_types_behind_a_header_of_any_length_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for padding in ["", "x", "xx", "xxx"] {
        let extra = format!("a{padding}.bias");
        let bytes = file(&[("w.weight", "F32", &[2, 2], 1.25), (&extra, "F16", &[3], 0.5), ("v.weight", "BF16", &[4], -3.0)]);
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let checkpoint = Checkpoint::open(folder.path(), Component::TextEncoder).unwrap();
        let values = checkpoint.load(|loader| {
            Ok([loader.tensor(&extra, &[3]), loader.tensor("w.weight", &[2, 2]), loader.tensor("v.weight", &[4])]
                .map(|t| t.to_f32()))
        });
        assert_eq!(values.unwrap(), [vec![0.5; 3], vec![1.25; 4], vec![-3.0; 4]]);
    }
}

#[test]
fn tensors_that_are_not_aligned_in_the_data_are_refused() {
    let bytes = file(&[("a.bias", "F16", &[3], 0.5), ("w.weight", "F32", &[2, 2], 1.25)]);
    let message = parse_safetensors(&bytes).unwrap_err();
    assert!(message.contains("`w.weight` (F32) starts at data offset 6"), "{message}");
}

/// Committed seeds for fuzzing: `ok-*` parse, `bad-*` are refused.
#[test]
fn fuzz_seeds_replay() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds/safetensors");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let result = parse_safetensors(&fs::read(&path).unwrap());
        assert_eq!(result.is_ok(), name.starts_with("ok-"), "{name}: {result:?}");
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} seeds");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = parse_safetensors(&bytes);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in r#"[{}\[\]":,a-c0-9 ]{0,120}"#, data in proptest::collection::vec(any::<u8>(), 0..32)) {
        _ = parse_safetensors(&raw(&header, &data));
    }

    /// Whatever happens to the bytes, what is accepted can be read: every tensor lies inside the file.
    #[test]
    fn mutated_files_are_refused_or_readable(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<Option<prop::sample::Index>>()) {
        let mut bytes = valid();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(tensors) = parse_safetensors(&bytes) {
            let elements: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            prop_assert!(elements <= bytes.len() * 2);
        }
    }
}
