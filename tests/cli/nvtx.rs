//! Ranges as a profiler sees them: the program loads a double of its library (`injection.c`).
#![cfg(target_os = "linux")]

use super::*;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// A folder with the double, compiled.
fn double() -> TempDir {
    let folder = tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/injection.c");
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .args([folder.path().join("injection.so"), source])
        .status()
        .unwrap_or_else(|e| panic!("cc, which links Rust programs too: {e}"));
    assert!(compiled.success());
    folder
}

/// `command` with the double attached.
fn attach<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    command.env("NVTX_INJECTION64_PATH", folder.join("injection.so")).env("INJECTION_LOG", folder.join("log"))
}

/// Ranges as paths of names, "step 0/unet.mid_block", in order of their beginnings. All must have ended, each on its thread, innermost first.
fn ranges(folder: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let mut threads: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut paths = Vec::new();
    for line in log.lines() {
        let [thread, depth, what] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let open = threads.entry(thread).or_default();
        match what.strip_prefix("push ") {
            Some(name) => {
                assert_eq!(depth, open.len().to_string(), "{line}");
                open.push(name);
                paths.push(open.join("/"));
            }
            None => {
                assert_eq!(what, "pop");
                assert!(open.pop().is_some() && depth == open.len().to_string(), "{line} ends what did not begin: {log}");
            }
        }
    }
    assert!(threads.values().all(Vec::is_empty), "not ended: {threads:?}");
    paths
}

#[test]
fn stages_and_blocks_are_ranges() {
    let folder = double();
    let captions = captions(folder.path(), 2);
    run(attach(&mut generate(&captions, &folder.path().join("out"), &["--batch", "2"]), folder.path())).expect(0, &[]);
    let seen = ranges(folder.path());
    let count = |path: &str| seen.iter().filter(|seen| *seen == path).count();
    for (stage, times) in [("tokenise", 1), ("text", 1), ("step 0", 1), ("step 1", 1), ("decode", 2), ("encode", 2), ("write", 2)]
    {
        assert_eq!(count(stage), times, "{stage}: {seen:#?}");
    }
    for block in ["unet.down_blocks.0", "unet.mid_block", "unet.up_blocks.0"] {
        assert_eq!(count(&format!("step 1/{block}")), 1, "{block}: {seen:#?}");
    }
    for block in ["vae.decoder.mid_block", "vae.decoder.up_blocks.0"] {
        assert_eq!(count(&format!("decode/{block}")), 2, "{block}: {seen:#?}");
    }
}

#[test]
fn ranges_end_when_a_run_is_interrupted() {
    let folder = double();
    let (captions, out) = (captions(folder.path(), 40), folder.path().join("out"));
    let mut command = generate(&captions, &out, &["--steps", "30"]);
    let mut child = attach(&mut command, folder.path()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !out.join("00000.tar").exists() {
        assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "no shard appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(ranges(folder.path()).len() > 100);
}

/// A path that leads to no library is how NVTX is turned off.
#[test]
fn a_profiler_that_is_not_there_is_no_failure() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 1);
    let mut command = generate(&captions, &folder.path().join("out"), &["--steps", "1"]);
    run(command.env("NVTX_INJECTION64_PATH", "./.")).expect(0, &[]);
}
