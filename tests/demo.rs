//! `syntic demo`, on a tiny model with random weights and a judge that has learned nothing: what it makes, leaves and refuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use syntic::shards::verify;

fn syntic() -> Command {
    Command::new(env!("CARGO_BIN_EXE_syntic"))
}

fn judge() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clip-tiny/gelu")
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
    let made = syntic().args(["random-model", "--arch", "tiny", "--seed", "7", "--out"]).arg(&model).status();
    assert!(made.expect("syntic starts").success());
    let run = demo(&out, &model, &judge(), "5");
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(stdout.contains("not measured (fewer than 100)"), "{stdout}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
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
fn a_model_or_a_judge_that_is_not_there_is_named_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for (model, clip) in [(Path::new("absent"), judge().as_path()), (judge().as_path(), Path::new("absent"))] {
        let run = demo(folder.path(), model, clip, "5");
        assert_eq!(run.status.code(), Some(2), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(!folder.path().join("pairs").exists());
    }
}
