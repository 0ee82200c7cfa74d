//! `syntic demo` as a newcomer runs it: how good the pictures of the built-in model are, on scenes it never saw; and, on a tiny model
//! with random weights and a judge that has learned nothing, what it makes, leaves and refuses.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use syntic::Error;
use syntic::clip::Clip;
use syntic::device::Device;
use syntic::shards::verify;
use syntic::tinyworld::{Judged, REVISION, Scene, Split, measure};
use syntic::weights::{BUILTIN, ModelDir};

fn syntic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_syntic"))
}

fn judge() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clip-tiny/gelu")
}

#[test]
fn pictures_are_what_the_captions_say() {
    let folder = tempfile::tempdir().unwrap();
    let run = syntic().args(["demo", "--json", "--out"]).arg(folder.path()).output().expect("syntic starts");
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

    assert_eq!(report["generated"]["asked"], 300);
    assert_eq!((&report["demo"]["model"], &report["clip"]), (&BUILTIN.into(), &BUILTIN.into()));

    let pairs = verify(&folder.path().join("pairs")).unwrap();
    assert!(pairs.is_ok(), "{:?}", pairs.lines());
    for name in ["captions.jsonl", "page.html", "sheet.png", "report.json"] {
        assert!(folder.path().join(name).metadata().unwrap().len() > 0, "{name}");
    }
}

/// A tiny model with random weights, written to `folder`.
fn random_model(folder: &Path) {
    let made = syntic().args(["random-model", "--arch", "tiny", "--seed", "7", "--out"]).arg(folder).status();
    assert!(made.expect("syntic starts").success());
}

fn demo(out: &Path, model: &Path, clip: &Path, count: &str) -> Output {
    let mut command = syntic();
    command.args(["demo", "--steps", "2", "--threads", "1", "--count", count, "--out"]).arg(out);
    command.arg("--model").arg(model).arg("--clip").arg(clip).output().expect("syntic starts")
}

#[test]
fn a_demo_makes_shows_and_judges_once() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("demo"));
    random_model(&model);
    let run = demo(&out, &model, &judge(), "5");
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(stdout.contains("not measured (fewer than 100)"), "{stdout}");
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["generated"]["pictures"], &report["real"]["pictures"]), (&5.into(), &5.into()));
    assert_eq!(report["real"]["single"]["both"], 1.0, "the renderer's own pictures are seen as what they are");
    let pairs = verify(&out.join("pairs")).unwrap();
    assert!(pairs.is_ok(), "{:?}", pairs.lines());
    for name in ["captions.jsonl", "page.html", "sheet.png"] {
        assert!(out.join(name).metadata().unwrap().len() > 0, "{name}");
    }

    let again = demo(&out, &model, &judge(), "5");
    assert!(String::from_utf8(again.stdout).unwrap().contains("made       0 in"), "what is there is not made again");
    let captions = std::fs::read(out.join("captions.jsonl")).unwrap();
    let other = demo(&out, &model, &judge(), "6");
    assert_eq!(other.status.code(), Some(2), "another count in the same folder");
    assert!(String::from_utf8_lossy(&other.stderr).contains("another count or seed"));
    assert_eq!(std::fs::read(out.join("captions.jsonl")).unwrap(), captions, "nothing that was written is lost");
}

#[test]
fn a_demo_that_made_nothing_is_not_in_the_way_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("demo"));
    random_model(&model);
    let refused = demo(&out, Path::new("absent"), &judge(), "4");
    assert_eq!(refused.status.code(), Some(2));
    let made = demo(&out, &model, &judge(), "3");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_model_or_a_judge_that_is_not_there_is_named_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for (model, clip) in [(Path::new("absent"), judge().as_path()), (judge().as_path(), Path::new("absent"))] {
        let run = demo(folder.path(), model, clip, "5");
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{error}");
        assert!(error.contains("absent"), "{error}");
        assert!(!folder.path().join("pairs").exists());
    }
}

#[test]
fn judging_can_be_interrupted() {
    let scene = Scene::draw(Split::Test, 1, 1);
    let judged = Judged { caption: scene.captions()[0].clone(), picture: Some(scene.picture()), scene };
    let clip = Clip::open(BUILTIN, &Device::cpu(1).unwrap()).unwrap();
    let judge = |stop| measure(std::slice::from_ref(&judged), &clip, &AtomicBool::new(stop));
    assert_eq!(judge(false).unwrap().pictures, 1);
    assert!(matches!(judge(true), Err(Error::Interrupted)));
}

/// The world's captions fit the built-in tokenizer: every word is one token, and none is cut.
#[test]
fn the_tokenizer_knows_every_word() {
    let model = ModelDir::open(BUILTIN).unwrap();
    let tokenizer = syntic::tokenizer::ClipTokenizer::open(&model.component("tokenizer").unwrap()).unwrap();
    for index in 0..500 {
        for caption in Scene::draw(Split::Test, 11, index).captions() {
            let words = caption.split(' ').count() + caption.matches([',', '.']).count();
            let encoding = tokenizer.encode(&caption).unwrap();
            assert_eq!(encoding.tokens, words + 2, "`{caption}`");
            assert!(!encoding.truncated, "`{caption}`");
        }
    }
}

/// The record beside the built-in weights is of the whole training that the script does, not of a trial, and of this world.
#[test]
fn the_built_in_model_had_the_pictures_and_steps_of_the_script() {
    let folder = syntic::weights::find_model(BUILTIN).unwrap();
    let record = syntic::weights::read_json(&folder.join("training.json")).unwrap();
    assert_eq!(record["world"], REVISION);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/tinyworld/train.py");
    let script = std::fs::read_to_string(script).unwrap();
    let line = |start: &str| script.lines().find(|line| line.starts_with(start)).unwrap().replace('_', "");
    let steps: Value = serde_json::from_str(line("STEPS").strip_prefix("STEPS = ").unwrap()).unwrap();
    assert_eq!(record["steps"], steps);
    assert!(line("PICTURES").ends_with(&format!("= {}, 2000", record["pictures"])), "{}", record["pictures"]);
}
