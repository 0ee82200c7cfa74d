//! What a run makes, and what does not change it.

use super::*;
use tempfile::tempdir;

#[test]
fn shards_do_not_depend_on_batch_threads_or_workers() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 10);
    let out = |name: &str| folder.path().join(name);
    run(&mut generate(&captions, &out("one"), &[])).expect(0, &["10 images in 3 shards"]);
    let expected = shard_bytes(&out("one"));
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        ["00000.parquet", "00000.tar", "00001.parquet", "00001.tar", "00002.parquet", "00002.tar"]
    );

    run(&mut generate(&captions, &out("batch"), &["--batch", "3"])).expect(0, &[]);
    assert!(shard_bytes(&out("batch")) == expected, "--batch changed a shard");
    run(&mut generate(&captions, &out("threads"), &["--threads", "2"])).expect(0, &[]);
    assert!(shard_bytes(&out("threads")) == expected, "--threads changed a shard");
    for worker in ["1", "0"] {
        let split = ["--worker-index", worker, "--worker-count", "2", "--batch", "2"];
        run(&mut generate(&captions, &out("workers"), &split)).expect(0, &[]);
    }
    assert!(shard_bytes(&out("workers")) == expected, "the worker split changed a shard");
    run(&mut generate(&captions, &out("seed"), &["--seed", "43"])).expect(0, &[]);
    assert!(shard_bytes(&out("seed")) != expected, "another seed made the same images");
}

#[test]
fn an_offset_gives_the_same_images_as_the_whole() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 6);
    let latents = |name: &str| folder.path().join(name);
    let save = |name: &str| latents(name).to_string_lossy().into_owned();
    run(&mut generate(&captions, &folder.path().join("all"), &["--save-latents", &save("all.safetensors")])).expect(0, &[]);
    let part = ["--offset", "3", "--limit", "2", "--batch", "2", "--save-latents", &save("part.safetensors")];
    run(&mut generate(&captions, &folder.path().join("part"), &part)).expect(0, &["2 images in 1 shards"]);
    let data = |name: &str| {
        let bytes = std::fs::read(latents(name)).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    let (all, part) = (data("all.safetensors"), data("part.safetensors"));
    let sample = 4 * 8 * 8 * 4;
    assert_eq!((all.len(), part.len()), (6 * sample, 2 * sample));
    assert!(all[3 * sample..5 * sample] == part, "images 3 and 4 differ when made alone");
}

#[test]
fn given_latents_replace_the_noise() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 2);
    let file = folder.path().join("init.safetensors");
    let header = r#"{"latents":{"dtype":"F32","shape":[2,4,8,8],"data_offsets":[0,2048]}}   "#;
    let values = (0..512).flat_map(|i| ((i as f32 * 0.7).sin()).to_le_bytes());
    let bytes: Vec<u8> = (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(values).collect();
    std::fs::write(&file, bytes).unwrap();
    let init = ["--init-latents", file.to_str().unwrap()];
    run(&mut generate(&captions, &folder.path().join("a"), &init)).expect(0, &[]);
    run(&mut generate(&captions, &folder.path().join("b"), &[init[0], init[1], "--seed", "999"])).expect(0, &[]);
    run(&mut generate(&captions, &folder.path().join("c"), &[])).expect(0, &[]);
    // The seed is recorded with each sample, so whole shards differ; the images must not.
    let image = |name: &str| tar_member(&folder.path().join(name).join("00000.tar"), "000000.jpg");
    assert!(image("a") == image("b"), "the seed still mattered");
    assert!(image("a") != image("c"), "the given latents were not used");
    run(&mut generate(&captions, &folder.path().join("d"), &["--limit", "1", init[0], init[1]]))
        .expect(2, &["init.safetensors", "key `latents`", "[2, 4, 8, 8] found", "[1, 4, 8, 8]"]);
}

/// Content of one member of a tar.
fn tar_member(tar: &Path, name: &str) -> Vec<u8> {
    use std::io::Read;
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{name} is not in {}", tar.display());
}

#[test]
fn every_scheduler_and_format_runs() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    for scheduler in ["pndm", "ddim", "euler", "euler-a", "dpm++", "dpm++-karras", "unipc", "lcm"] {
        let out = folder.path().join(scheduler);
        run(&mut generate(&captions, &out, &["--scheduler", scheduler, "--steps", "4", "--format", "png"])).expect(0, &[]);
        run(syntic().arg("verify").arg(&out)).expect(0, &[]);
    }
    for format in ["png", "webp", "jpg"] {
        let out = folder.path().join(format);
        run(&mut generate(&captions, &out, &["--format", format, "--rng", "torch-cpu", "--guidance", "1"])).expect(0, &[]);
        assert!(!tar_member(&out.join("00000.tar"), &format!("000000.{format}")).is_empty());
    }
}

#[test]
fn a_dry_run_tells_and_writes_nothing() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 5);
    let out = folder.path().join("out");
    let ran = run(&mut generate(&captions, &out, &["--dry-run"])).expect(0, &[]);
    for part in ["5 images", "2 shards", "GFLOP", "MiB"] {
        assert!(ran.stdout.contains(part), "`{part}` is not in: {}", ran.stdout);
    }
    assert!(!out.exists());
}

#[test]
fn events_are_json_lines() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 2);
    let ran = run(&mut generate(&captions, &folder.path().join("out"), &["--json"])).expect(0, &[]);
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let samples: Vec<_> = events.iter().filter(|e| e["event"] == "sample").collect();
    assert_eq!((samples[0]["key"].as_str(), samples[1]["seed"].as_u64()), (Some("000000"), Some(43)));
    assert_eq!(events.last().unwrap()["event"], "finished");
}

#[test]
fn pairs_can_be_looked_at() {
    let folder = tempdir().unwrap();
    let text = folder.path().join("captions.txt");
    std::fs::write(&text, "a <b>bold</b> & \"quoted\" dog\n").unwrap();
    let out = folder.path().join("out");
    run(&mut generate(&text, &out, &[])).expect(0, &[]);
    let (page, sheet) = (folder.path().join("page.html"), folder.path().join("sheet.png"));
    run(syntic().arg("gallery").arg(&out).arg("--out").arg(&page).arg("--sheet").arg(&sheet)).expect(0, &[]);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("a &lt;b&gt;bold&lt;/b&gt; &amp;") && !html.contains("<b>bold"), "captions are escaped");
    assert!(html.contains("data:image/jpeg;base64,") && !html.contains("src=\"http"), "the page needs nothing from outside");
    assert!(std::fs::read(sheet).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_trace_shows_the_stages() {
    let folder = tempdir().unwrap();
    let (captions, trace) = (captions(folder.path(), 3), folder.path().join("trace.json"));
    run(&mut generate(&captions, &folder.path().join("out"), &["--trace", trace.to_str().unwrap()])).expect(0, &[]);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    let names: Vec<&str> = json["traceEvents"].as_array().unwrap().iter().map(|event| event["name"].as_str().unwrap()).collect();
    for name in ["thread_name", "tokenise", "text", "step 1", "decode", "encode", "write", "finish 0"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert_eq!(json["otherData"]["complete"], true);
}

#[test]
fn batches_may_be_chosen_by_the_free_memory() {
    let folder = tempdir().unwrap();
    let (captions, out) = (captions(folder.path(), 10), folder.path().join("out"));
    let ran = run(&mut generate(&captions, &out, &["--batch", "auto", "--dry-run", "--json"])).expect(0, &[]);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&plan["batch"], &plan["batch_because"]), (&4.into(), &"a shard holds no more".into()), "{plan}");
    run(&mut generate(&captions, &out, &["--batch", "some"])).expect(2, &["`some` is neither a number nor auto"]);
    // Terabytes.
    let large = ["--batch", "1000", "--height", "4096", "--width", "4096"];
    run(&mut generate(&captions, &out, &large)).expect(2, &["--batch 1000 needs ", "activations ", "this machine has ", "use "]);
    assert!(!out.exists());
}
