//! `syntic demo` as a newcomer runs it: how good the pictures of the built-in model are, measured on captions it never saw.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use syntic::device::Device;
use syntic::shards::verify;
use syntic::tinyworld::Split;
use syntic::weights::{BUILTIN, ModelDir};

fn demo(out: &Path, more: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_syntic")).args(["demo", "--out"]).arg(out).args(more).output().expect("syntic starts")
}

#[test]
fn pictures_are_what_the_captions_say() {
    let folder = tempfile::tempdir().unwrap();
    let run = demo(folder.path(), &["--json"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let stdout = String::from_utf8(run.stdout).unwrap();
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let report = &last["report"];
    eprintln!("{report:#}");
    let share = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {report}"));
    assert!(share("/generated/retrieval") >= 0.60, "the generated picture among 100 by CLIP");
    assert!(share("/real/retrieval") >= 0.75, "the real picture among 100 by CLIP");
    assert!(share("/generated/single/both") >= 0.80, "kind and colour of single objects");
    assert!(share("/real/single/both") >= 0.97, "the eye itself");

    let pairs = verify(&folder.path().join("pairs")).unwrap();
    assert!(pairs.is_ok(), "{:?}", pairs.lines());
    for name in ["captions.jsonl", "page.html", "sheet.png", "report.json"] {
        assert!(folder.path().join(name).metadata().unwrap().len() > 0, "{name}");
    }
}

#[test]
fn few_pictures_are_made_and_shown_but_not_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let run = demo(folder.path(), &["--count", "5", "--steps", "2"]);
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(stdout.contains("not measured (fewer than 100)"), "{stdout}");
    let again = demo(folder.path(), &["--count", "5", "--steps", "2"]);
    assert!(String::from_utf8(again.stdout).unwrap().contains("made       0 in"), "what is there is not made again");
    let other = demo(folder.path(), &["--count", "6", "--steps", "2"]);
    assert_eq!(other.status.code(), Some(2), "another configuration in the same folder");
}

#[test]
fn a_model_or_a_judge_that_is_not_there_is_named_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let run = demo(folder.path(), &["--model", "absent", "--count", "5"]);
    assert_eq!(run.status.code(), Some(2));
    let run = demo(folder.path(), &["--clip", "absent", "--count", "5"]);
    assert_eq!(run.status.code(), Some(2), "before any picture is made");
    assert!(!folder.path().join("pairs").exists());
}

#[test]
fn the_built_in_model_is_a_folder_like_any_other() {
    let model = ModelDir::open(BUILTIN).unwrap();
    assert_eq!(model.pipeline_class(), Some("StableDiffusionPipeline"));
    assert!(syntic::clip::Clip::open(BUILTIN, &Device::cpu(1).unwrap()).is_ok());
}

/// The world's captions fit the built-in tokenizer: every word is one token, and none is cut.
#[test]
fn the_tokenizer_knows_every_word() {
    let model = ModelDir::open(BUILTIN).unwrap();
    let tokenizer = syntic::tokenizer::ClipTokenizer::open(&model.component("tokenizer").unwrap()).unwrap();
    for index in 0..500 {
        for caption in syntic::tinyworld::Scene::draw(Split::Test, 11, index).captions() {
            let words = caption.split(' ').count() + caption.matches([',', '.']).count();
            let encoding = tokenizer.encode(&caption).unwrap();
            assert_eq!(encoding.tokens, words + 2, "`{caption}`");
            assert!(!encoding.truncated, "`{caption}`");
        }
    }
}

/// The record beside the built-in weights is of the training that the script does.
#[test]
fn the_built_in_model_was_trained_as_the_script_trains() {
    let folder = syntic::weights::find_model(BUILTIN).unwrap();
    let record = syntic::weights::read_json(&folder.join("training.json")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/tinyworld/train.py");
    let script = std::fs::read_to_string(script).unwrap().replace('_', "");
    let steps = record["steps"].as_object().unwrap();
    assert_eq!(steps.len(), 3);
    for (stage, steps) in steps {
        assert!(script.contains(&format!("\"{stage}\": {steps}")), "{stage} was trained for {steps} steps");
    }
}
