//! Weights that are kept as a GPU wants them.

use super::*;
use std::fs;
use tempfile::tempdir;

/// Two pictures of the built-in model on the simulator, as small as it makes them, with packed weights in `packed`.
fn simulate(folder: &Path, name: &str, packed: &Path) -> (Ran, BTreeMap<String, Vec<u8>>) {
    let out = folder.join(name);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/weights/assets/builtin");
    let mut command = syntic();
    command.arg("generate").arg("--model").arg(model).arg("--captions").arg(captions(folder, 2)).arg("--out").arg(&out);
    command.args(["--height", "4", "--width", "4", "--steps", "1", "--device", "sim"]).env("SYNTIC_PACKED", packed);
    let ran = run(&mut command).expect(0, &[]);
    (ran, shard_bytes(&out))
}

#[test]
fn shards_are_the_same_with_packed_weights_and_without() {
    let folder = tempdir().unwrap();
    let packed = folder.path().join("packed");
    let (_, expected) = simulate(folder.path(), "off", Path::new("off"));
    assert!(!packed.exists() && !expected.is_empty());
    let (made, shards) = simulate(folder.path(), "made", &packed);
    assert!(shards == expected && !made.stderr.contains("warning"), "{}", made.stderr);
    // Folder of the component, storage type, and when it was written.
    let kept = || -> BTreeMap<String, std::time::SystemTime> {
        let entries = fs::read_dir(&packed).unwrap().map(|entry| entry.unwrap());
        let entries = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"));
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap())).collect()
    };
    let files = kept();
    let names: Vec<_> = files.keys().map(|name| name.split_once('-').unwrap().0).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae"], "{files:?}");
    assert!(files.keys().all(|name| name.ends_with(".f16.safetensors")), "{files:?}");
    let (_, shards) = simulate(folder.path(), "taken", &packed);
    assert!(shards == expected && kept() == files, "{files:?}, then {:?}", kept());

    let doctor = run(syntic().args(["doctor", "--json"]).env("SYNTIC_PACKED", &packed)).expect(0, &[]);
    let found: serde_json::Value = serde_json::from_str(&doctor.stdout).unwrap();
    assert_eq!(found["packed"]["files"], 3, "{found}");
    let doctor = run(syntic().arg("doctor").env("SYNTIC_PACKED", "off")).expect(0, &[]);
    assert!(doctor.stdout.contains("packed  weights are not kept"), "{}", doctor.stdout);
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (_, expected) = simulate(folder.path(), "off", Path::new("off"));
    let (ran, shards) = simulate(folder.path(), "out", &file);
    assert!(shards == expected);
    assert_eq!(ran.stderr.matches("packed weights are not kept for the next start").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("SYNTIC_PACKED"), "{}", ran.stderr);
}
