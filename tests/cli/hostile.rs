//! Wrong and hostile inputs: a clear message, the right exit code, and nothing broken.

use super::*;
use tempfile::{TempDir, tempdir};

/// A copy of the tiny model that a test may damage.
fn model_copy() -> (TempDir, PathBuf) {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(drop).unwrap() }
        }
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("model");
    copy(model(), &path);
    (folder, path)
}

/// Runs `generate` on one caption with the model in `model`.
fn generate_with(model: &Path, folder: &Path) -> Ran {
    let captions = captions(folder, 1);
    let mut command = syntic();
    command.arg("generate").arg("--model").arg(model).arg("--captions").arg(captions).arg("--out").arg(folder.join("out"));
    run(command.args(["--height", "64", "--width", "64", "--steps", "1"]))
}

/// Rewrites a JSON file.
fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// Rewrites the header of the UNet's weights, keeping the data where it is.
fn edit_header(model: &Path, edit: impl FnOnce(String) -> String) {
    let path = model.join(UNET);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let edited = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(path, edited).unwrap();
}

#[test]
fn truncated_weights() {
    let (folder, model) = model_copy();
    let bytes = std::fs::read(model.join(UNET)).unwrap();
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(model.join(UNET), &bytes[..keep]).unwrap();
        generate_with(&model, folder.path()).expect(2, &["diffusion_pytorch_model.safetensors"]);
    }
}

#[test]
fn a_lying_header() {
    let (folder, model) = model_copy();
    let mut bytes = std::fs::read(model.join(UNET)).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(model.join(UNET), bytes).unwrap();
    generate_with(&model, folder.path()).expect(2, &["diffusion_pytorch_model.safetensors", "header"]);
}

#[test]
fn missing_and_unexpected_keys_are_reported_together() {
    let (folder, model) = model_copy();
    edit_header(&model, |h| {
        h.replace("\"conv_in.weight\"", "\"conv_inn.weight\"").replace("\"conv_out.bias\"", "\"conv_out.bia\"")
    });
    generate_with(&model, folder.path()).expect(2, &["conv_in.weight", "conv_inn.weight", "conv_out.bias", "conv_out.bia"]);
}

#[test]
fn a_wrong_shape() {
    let (folder, model) = model_copy();
    edit_json(&model.join("text_encoder/config.json"), |config| config["intermediate_size"] = 40.into());
    let parts = ["text_encoder", "mlp.fc1.weight", "expected [40, 32], found [64, 32]", "mlp.fc1.bias", "[40]", "[64]"];
    generate_with(&model, folder.path()).expect(2, &parts);
    let (folder, model) = model_copy();
    edit_json(&model.join("unet/config.json"), |config| config["cross_attention_dim"] = 48.into());
    generate_with(&model, folder.path()).expect(2, &["cross_attention_dim", "48", "32"]);
}

#[test]
fn unsupported_configuration_is_named() {
    for (file, key, value) in [
        ("unet/config.json", "class_embed_type", "timestep"),
        ("unet/config.json", "act_fn", "mish"),
        ("unet/config.json", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
        ("vae/config.json", "act_fn", "relu"),
        ("text_encoder/config.json", "hidden_act", "relu"),
        ("scheduler/scheduler_config.json", "prediction_type", "flow"),
        ("scheduler/scheduler_config.json", "beta_schedule", "sigmoid"),
    ] {
        let (folder, model) = model_copy();
        edit_json(&model.join(file), |config| config[key] = value.into());
        generate_with(&model, folder.path()).expect(2, &[file.rsplit('/').next().unwrap(), key, value]);
    }
    let (folder, model) = model_copy();
    std::fs::write(model.join("unet/config.json"), "{not json").unwrap();
    generate_with(&model, folder.path()).expect(2, &["unet", "config.json"]);
}

#[test]
fn pickled_weights_are_refused_with_the_way_out() {
    let (folder, model) = model_copy();
    std::fs::rename(model.join(UNET), model.join("unet/diffusion_pytorch_model.bin")).unwrap();
    generate_with(&model, folder.path()).expect(2, &["diffusion_pytorch_model.bin", "safetensors"]);
}

#[test]
fn a_model_that_is_not_there() {
    let folder = tempdir().unwrap();
    generate_with(Path::new("no-such-org/no-such-model"), folder.path()).expect(2, &["no-such-org/no-such-model", "hf download"]);
    generate_with(Path::new("/no/such/folder"), folder.path()).expect(2, &["/no/such/folder"]);
}

#[test]
fn sizes_that_do_not_fit() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &["--width", "65"])).expect(2, &["--width 65", "multiple of 8"]);
    run(&mut generate(&captions, &out, &["--height", "0"])).expect(2, &["--height 0"]);
    run(&mut generate(&captions, &out, &["--height", "16384", "--width", "16384"])).expect(2, &["16384", "pixels"]);
    for batch in ["0", "1000000000000"] {
        run(&mut generate(&captions, &out, &["--batch", batch])).expect(2, &["--batch"]);
        run(&mut generate(&captions, &out, &["--batch", batch, "--dry-run"])).expect(2, &["--batch"]);
    }
    run(&mut generate(&captions, &out, &["--threads", "100000"])).expect(2, &["--threads", "1024"]);
    run(&mut generate(&captions, &out, &["--shard-size", "0"])).expect(2, &["--shard-size"]);
    run(&mut generate(&captions, &out, &["--worker-index", "2", "--worker-count", "2"])).expect(2, &["--worker-index 2"]);
    run(&mut generate(&captions, &out, &["--guidance", "NaN"])).expect(2, &["--guidance"]);
    for steps in ["0", "1001"] {
        run(&mut generate(&captions, &out, &["--steps", steps])).expect(2, &["steps"]);
    }
    assert!(!out.exists(), "a refused run leaves no folder");
}

#[test]
fn captions_that_cannot_be_read() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    run(&mut generate(&file("latin1.txt", b"a dog\na caf\xe9\n"), &out, &[])).expect(2, &["latin1.txt", "line 2", "UTF-8"]);
    run(&mut generate(&file("broken.jsonl", b"{\"caption\": \"a\"}\n{oops\n"), &out, &[])).expect(2, &["broken.jsonl", "line 2"]);
    run(&mut generate(&file("blank.txt", b"a dog\n\na cat\n"), &out, &[])).expect(2, &["blank.txt", "line 2", "empty"]);
    run(&mut generate(&file("nothing.txt", b""), &out, &[])).expect(2, &["nothing.txt", "no captions"]);
    run(&mut generate(&folder.path().join("absent.txt"), &out, &[])).expect(2, &["absent.txt"]);
    run(&mut generate(&file("one.txt", b"a dog\n"), &out, &["--offset", "1"])).expect(2, &["--offset 1"]);
    assert!(!out.exists(), "a refused run leaves no folder");
}

#[test]
fn a_caption_that_is_too_long_is_cut_and_told() {
    let folder = tempdir().unwrap();
    let text = folder.path().join("captions.txt");
    std::fs::write(&text, format!("a dog\n{}\n", "dog ".repeat(100))).unwrap();
    let out = folder.path().join("out");
    for _ in 0..2 {
        run(&mut generate(&text, &out, &[])).expect(3, &["caption 1", "102 tokens", "77", "--truncate"]);
    }
    run(&mut generate(&text, &out, &["--truncate"])).expect(0, &[]);
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("00000_stats.json")).unwrap()).unwrap();
    assert_eq!(stats["successes"], 2, "the image is made all the same");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_folder_that_cannot_be_written() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    // Not even root may make a folder there.
    run(&mut generate(&captions, Path::new("/proc/syntic-out"), &[])).expect(2, &["/proc/syntic-out"]);
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    run(&mut generate(&captions, &file, &[])).expect(2, &["file"]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "in the way");
}

/// A disk that fills up: no file may grow past 16 KiB. The same command goes on once there is room.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 8);
    let (out, whole) = (folder.path().join("out"), folder.path().join("whole"));
    let flags = ["--format", "png", "--shard-size", "8"];
    let command = generate(&captions, &out, &flags);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    run(&mut limited).expect(2, &["cannot", "00000"]);
    assert!(!out.join("00000.tar").exists(), "half a shard under a final name");
    run(&mut generate(&captions, &out, &flags)).expect(0, &[]);
    run(&mut generate(&captions, &whole, &flags)).expect(0, &[]);
    assert!(shard_bytes(&out) == shard_bytes(&whole));
}

#[test]
fn a_tar_from_elsewhere_is_left_alone() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("00000.tar"), "not ours").unwrap();
    run(&mut generate(&captions, &out, &[])).expect(2, &["00000.tar"]);
    assert_eq!(std::fs::read_to_string(out.join("00000.tar")).unwrap(), "not ours");
}

#[test]
fn damaged_shards_do_not_verify() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 2);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &[])).expect(0, &[]);
    let tar = out.join("00000.tar");
    let mut bytes = std::fs::read(&tar).unwrap();
    bytes[700] ^= 1;
    std::fs::write(&tar, &bytes).unwrap();
    let ran = run(syntic().arg("verify").arg(&out)).expect(3, &["problem"]);
    assert!(ran.stdout.contains("00000.tar"), "{}", ran.stdout);
    bytes.truncate(1000);
    std::fs::write(&tar, &bytes).unwrap();
    let ran = run(syntic().arg("verify").arg(&out)).expect(3, &["problem"]);
    assert!(ran.stdout.contains("00000.tar"), "{}", ran.stdout);
    run(syntic().arg("verify").arg(folder.path().join("absent"))).expect(2, &["absent"]);
}

#[test]
fn random_models_do_not_overwrite() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "x").unwrap();
    run(syntic().args(["random-model", "--arch", "tiny", "--out"]).arg(folder.path())).expect(2, &["not empty"]);
    assert!(folder.path().join("precious").exists());
}

/// A page is written under another name and renamed: that would replace a link, or a device such as `/dev/stdout`.
#[cfg(unix)]
#[test]
fn pages_and_sheets_replace_regular_files_only() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &[])).expect(0, &[]);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("elsewhere", &link).unwrap();
    for target in [link.as_path(), folder.path()] {
        for flag in ["--out", "--sheet"] {
            run(syntic().arg("gallery").arg(&out).arg(flag).arg(target)).expect(2, &["not a regular file"]);
        }
    }
    assert!(link.is_symlink());
}

#[test]
fn latents_that_could_not_be_saved_are_refused_before_work() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let out = folder.path().join("out");
    let save = |path: &Path| run(&mut generate(&captions, &out, &["--save-latents", path.to_str().unwrap()]));
    save(&folder.path().join("absent/latents.safetensors")).expect(2, &["absent", "--save-latents"]);
    save(folder.path()).expect(2, &["--save-latents", "not a regular file"]);
    save(Path::new("/")).expect(2, &["--save-latents"]);
    // The given latents are an input: they must not be replaced by the result.
    let init = folder.path().join("init.safetensors");
    let header = r#"{"latents":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}   "#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 1024]].concat();
    std::fs::write(&init, &bytes).unwrap();
    let both = ["--init-latents", init.to_str().unwrap(), "--save-latents", init.to_str().unwrap()];
    run(&mut generate(&captions, &out, &both)).expect(2, &["--init-latents", "--save-latents"]);
    assert!(std::fs::read(&init).unwrap() == bytes);
    assert!(!out.exists(), "a refused run leaves no folder");
}

/// A mistake in the checkpoint is found before the folder of the shards is claimed, and by a dry run too.
#[test]
fn weights_that_do_not_fit_leave_no_folder() {
    let (folder, model) = model_copy();
    edit_json(&model.join("unet/config.json"), |config| config["layers_per_block"] = 2.into());
    generate_with(&model, folder.path()).expect(2, &["unet", "missing `down_blocks.0.resnets.1.conv1.weight`"]);
    assert!(!folder.path().join("out").exists(), "a refused run leaves no folder");
    let captions = captions(folder.path(), 1);
    let mut command = syntic();
    command
        .arg("generate")
        .arg("--model")
        .arg(&model)
        .arg("--captions")
        .arg(captions)
        .arg("--out")
        .arg(folder.path().join("out"));
    run(command.args(["--height", "64", "--width", "64", "--dry-run"])).expect(2, &["down_blocks.0.resnets.1.conv1.weight"]);
}

#[test]
fn shards_missing_at_the_end_do_not_verify() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 9);
    let out = folder.path().join("out");
    let worker = |index: &'static str| ["--worker-index", index, "--worker-count", "2"];
    run(&mut generate(&captions, &out, &worker("1"))).expect(0, &["4 images in 1 shards"]);
    let ran = run(syntic().arg("verify").arg(&out)).expect(3, &["problem"]);
    assert!(ran.stdout.contains("00000") && ran.stdout.contains("00002"), "{}", ran.stdout);
    run(&mut generate(&captions, &out, &worker("0"))).expect(0, &[]);
    run(syntic().arg("verify").arg(&out)).expect(0, &[]);
    for name in ["00002.tar", "00002.parquet", "00002_stats.json"] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    let ran = run(syntic().arg("verify").arg(&out)).expect(3, &["problem"]);
    assert!(ran.stdout.contains("00002") && ran.stdout.contains("missing"), "{}", ran.stdout);
}

/// Fills one f32 tensor of the autoencoder's weights with a value.
fn fill_vae(model: &Path, key: &str, value: f32) {
    let path = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let offset = |i: usize| start + header[key]["data_offsets"][i].as_u64().unwrap() as usize;
    for element in bytes[offset(0)..offset(1)].chunks_exact_mut(4) {
        element.copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn images_without_a_picture_are_marked_and_never_written() {
    for (value, reason) in
        [(-1e6, "black image"), (1e6, "single colour"), (f32::NAN, "not a number"), (f32::INFINITY, "not a number")]
    {
        let (folder, model) = model_copy();
        fill_vae(&model, "decoder.conv_out.bias", value);
        for _ in 0..2 {
            // The second run has nothing to do, and says the same.
            generate_with(&model, folder.path()).expect(3, &["1 of 1 samples failed", "error_message"]);
        }
        let out = folder.path().join("out");
        let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("00000_stats.json")).unwrap()).unwrap();
        assert_eq!((&stats["successes"], &stats["failed_to_generate"]), (&0.into(), &1.into()));
        assert_eq!(std::fs::read(out.join("00000.tar")).unwrap(), [0; 1024], "an archive without members");
        let verified = run(syntic().arg("verify").arg(&out)).expect(0, &[]);
        assert!(verified.stdout.contains(reason), "{}", verified.stdout);
    }
}

/// `syntic ... | head`: the reader of the output goes away.
#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let out = folder.path().join("out");
    for flags in [["--dry-run"], ["--json"]] {
        let mut command = generate(&captions, &out, &flags);
        let piped = std::process::Stdio::piped;
        let mut child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{flags:?}");
    }
}
