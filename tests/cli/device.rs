//! Which processor is asked for, and what `syntic doctor` says of it.

use super::*;
use serde_json::Value;
use tempfile::tempdir;

#[test]
fn the_doctor_never_fails() {
    let json = run(syntic().args(["doctor", "--json"])).expect(0, &[]);
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert!(found["host"]["cores"].as_u64().unwrap() > 0 && found["caches"].as_array().unwrap().len() == 2, "{found}");
    let text = run(syntic().arg("doctor")).expect(0, &[]).stdout;
    let used = found["use"]["device"].as_str().unwrap();
    assert!(text.contains(&format!("will use  {used}")) && text.contains("kernels  "), "{text}");
}

/// Before a picture is begun, and nothing panics.
#[test]
fn devices_that_cannot_be_used_are_explained() {
    let folder = tempdir().unwrap();
    let (captions, out) = (captions(folder.path(), 2), folder.path().join("out"));
    let refuse = |flags: &[&str], parts: &[&str]| {
        run(&mut generate(&captions, &out, flags)).expect(2, parts);
        assert!(!out.exists(), "{flags:?} wrote something");
    };
    refuse(&["--device", "sim", "--dtype", "f32"], &["a GPU does not compute in f32", "--dtype f16"]);
    refuse(&["--device", "cpu", "--dtype", "f16"], &["a CPU does not compute in f16", "--dtype f32"]);
    refuse(&["--device", "gpu"], &["`gpu` is not auto, cpu, cuda, cuda:N or sim"]);
    refuse(&["--device", "cuda:99"], &["--device"]);
}
