//! Comparing a checkpoint with what an architecture declares.

use super::{assert_says, file};
use std::fs;
use syntic::weights::{Checkpoint, Component, NamedShapes};
use syntic::{Error, Result};

fn declared(tensors: &[(&str, &[usize])]) -> NamedShapes {
    tensors.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
}

/// Checks a one-file checkpoint against a declaration.
fn check(component: Component, tensors: &[(&str, &str, &[usize], f32)], wanted: &[(&str, &[usize])]) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(format!("{}.safetensors", component.naming().file_stem())), file(tensors)).unwrap();
    Checkpoint::open(folder.path(), component)?.check(&declared(wanted))
}

fn problems(result: Result<()>) -> Vec<String> {
    match result {
        Err(Error::Weights { problems, .. }) => problems,
        other => panic!("expected problems with the weights, got {other:?}"),
    }
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let found: &[(&str, &str, &[usize], f32)] = &[
        ("conv_im.weight", "F32", &[8, 4, 3, 3], 0.0),
        ("norm.weight", "F16", &[10], 0.0),
        ("time.bias", "F64", &[2], 0.0),
        ("ema.decay", "F32", &[1], 0.0),
    ];
    let wanted: &[(&str, &[usize])] =
        &[("conv_in.weight", &[8, 4, 3, 3]), ("norm.weight", &[8]), ("time.bias", &[2]), ("mid.resnet.weight", &[1])];
    let problems = problems(check(Component::Unet, found, wanted));
    assert_eq!(problems.len(), 6, "{problems:#?}");
    assert_says(&problems[0], &["missing `conv_in.weight`", "[8, 4, 3, 3]", "nearest unused name is `conv_im.weight`"]);
    let file = "diffusion_pytorch_model.safetensors";
    assert_says(&problems[1], &["wrong shape of `norm.weight`", file, "expected [8]", "found [10]"]);
    assert_says(&problems[2], &["F64", "`time.bias`", file, "not supported"]);
    assert_says(&problems[3], &["missing `mid.resnet.weight`"]);
    assert!(!problems[3].contains("nearest"), "{}", problems[3]);
    assert_says(&problems[4], &["unexpected `conv_im.weight`", "[8, 4, 3, 3]", file]);
    assert_says(&problems[5], &["unexpected `ema.decay`"]);
}

#[test]
fn the_message_has_the_folder_and_every_line() {
    let error = check(Component::Unet, &[("a.weight", "F32", &[1], 0.0)], &[("b.weight", &[1])]).unwrap_err();
    assert_says(&error, &["2 problem(s)", "missing `b.weight`", "unexpected `a.weight`"]);
    assert_eq!(error.exit_code(), 2);
}

/// The key is shown as it stands in the file, also where the canonical name differs.
#[test]
fn accepted_names_are_shown_as_the_file_has_them() {
    let found: &[(&str, &str, &[usize], f32)] = &[("text_model.final_layer_norm.weight", "F32", &[4], 0.0)];
    let problems = problems(check(Component::TextEncoder, found, &[("final_layer_norm.weight", &[8])]));
    assert_says(&problems[0], &["`text_model.final_layer_norm.weight`", "expected [8]", "found [4]"]);
}

#[test]
fn two_names_of_one_tensor_are_refused() {
    let found: &[(&str, &str, &[usize], f32)] = &[("a.query.weight", "F32", &[4], 0.0), ("a.to_q.weight", "F32", &[4], 0.0)];
    let problems = problems(check(Component::Vae, found, &[("a.to_q.weight", &[4])]));
    assert_says(&problems[0], &["a.query.weight", "a.to_q.weight", "two names of one tensor"]);
}

#[test]
fn position_ids_are_ignored_whatever_their_type() {
    let weight: (&str, &str, &[usize], f32) = ("text_model.embeddings.token_embedding.weight", "F32", &[4, 2], 0.0);
    let ids: (&str, &str, &[usize], f32) = ("text_model.embeddings.position_ids", "I64", &[1, 77], 0.0);
    check(Component::TextEncoder, &[weight, ids], &[("embeddings.token_embedding.weight", &[4, 2])]).unwrap();
    // Only there: in a UNet the same key is unexpected.
    let problems = problems(check(Component::Unet, &[("embeddings.position_ids", "I64", &[1], 0.0)], &[]));
    assert_says(&problems[0], &["unexpected `embeddings.position_ids`"]);
}

#[test]
fn skipped_prefixes_are_not_unexpected() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: &[(&str, &str, &[usize], f32)] =
        &[("encoder.conv_in.weight", "F32", &[2], 0.0), ("decoder.conv_in.weight", "F32", &[2], 0.0)];
    fs::write(folder.path().join("diffusion_pytorch_model.safetensors"), file(tensors)).unwrap();
    let open = || Checkpoint::open(folder.path(), Component::Vae).unwrap();
    let wanted = declared(&[("decoder.conv_in.weight", &[2])]);
    assert!(open().check(&wanted).is_err());
    open().skip(&["encoder."]).check(&wanted).unwrap();
}

/// A constructor that asks for one thing while declaring and another while reading is caught too.
#[test]
fn reading_collects_problems_without_a_check() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), file(&[("a.weight", "F32", &[2], 1.0)])).unwrap();
    let checkpoint = Checkpoint::open(folder.path(), Component::TextEncoder).unwrap();
    let loader = syntic::weights::Loader::read(&checkpoint);
    assert!(loader.tensor("b.weight", &[2]).is_declared());
    assert!(loader.tensor("a.weight", &[2]).is_declared(), "no data after the first problem");
    assert_says(loader.finish().unwrap_err(), &["missing `b.weight`"]);
}

/// Packing gives pages back as it goes, so that a model and its file are not both resident.
#[cfg(target_os = "linux")]
#[test]
fn mapped_pages_are_given_back_while_loading() {
    use syntic::tensor::DType;
    const MIB: usize = 1 << 20;
    let resident = || -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let folder = tempfile::tempdir().unwrap();
    let tensors: NamedShapes = (0..20).map(|i| (format!("{i}.weight"), vec![MIB, 8])).collect(); // 16 MiB each in f16
    syntic::weights::write_safetensors(&folder.path().join("model.safetensors"), &tensors, DType::F16, 1).unwrap();

    let checkpoint = Checkpoint::open(folder.path(), Component::TextEncoder).unwrap();
    let before = resident();
    let mut block = vec![0.0; MIB];
    let peak = std::cell::Cell::new(0);
    checkpoint
        .load(|loader| {
            let mut block = block.clone();
            for (name, shape) in &tensors {
                let tensor = loader.tensor(name, shape);
                (0..8).for_each(|i| tensor.copy_f32(i * MIB, &mut block));
                peak.set(peak.get().max(resident().saturating_sub(before)));
            }
            Ok(())
        })
        .unwrap();
    block.clear();
    assert!(peak.get() > 40 * MIB, "nothing was resident, so nothing was tested: {}", peak.get());
    assert!(peak.get() < 120 * MIB, "{} MiB of a file of 320 MiB stayed resident", peak.get() / MIB);
    assert!(resident().saturating_sub(before) < 16 * MIB, "pages stayed resident after loading");
}
