//! Stopping, crashing and starting again.

use super::*;
use std::time::Duration;
use tempfile::tempdir;

#[test]
fn a_finished_run_does_nothing_again() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 5);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &[])).expect(0, &["5 made now"]);
    let before = shard_bytes(&out);
    run(&mut generate(&captions, &out, &[])).expect(0, &["0 made now"]);
    assert!(shard_bytes(&out) == before);
}

#[test]
fn another_configuration_is_refused_with_the_difference() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 2);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &[])).expect(0, &[]);
    let before = shard_bytes(&out);
    run(&mut generate(&captions, &out, &["--guidance", "5", "--seed", "1"]))
        .expect(2, &["guidance", "7.5", "5", "seed", "42", "1"]);
    std::fs::write(&captions, "two\nothers\n").unwrap();
    run(&mut generate(&captions, &out, &[])).expect(2, &["captions"]);
    assert!(shard_bytes(&out) == before);
}

/// Kills the program at several moments, some inside a shard, and lets the same command go on.
#[test]
fn shards_survive_any_number_of_kills() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 9);
    let steps = ["--steps", "12", "--batch", "2"];
    let whole = folder.path().join("whole");
    run(&mut generate(&captions, &whole, &steps)).expect(0, &[]);

    let out = folder.path().join("killed");
    let mut kills = 0;
    // Each run is given a little more time than the one before, so that there is an end on a busy machine too.
    for delay in (0..400).map(|i| Duration::from_millis(40 + 15 * i)) {
        let mut child = generate(&captions, &out, &steps).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => {
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                kills += 1;
            }
        }
    }
    run(&mut generate(&captions, &out, &steps)).expect(0, &[]);
    assert!(kills > 0, "the run was never killed: the test proves nothing");
    assert!(shard_bytes(&out) == shard_bytes(&whole), "after {kills} kills the shards differ");
    run(syntic().arg("verify").arg(&out)).expect(0, &[]);
}

/// A kill between the last two steps of a shard: its stats are there, and its journal still.
#[test]
fn a_journal_of_a_finished_shard_is_removed() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 5);
    let out = folder.path().join("out");
    run(&mut generate(&captions, &out, &[])).expect(0, &[]);
    std::fs::write(out.join(".00000.journal"), "{}").unwrap();
    run(syntic().arg("verify").arg(&out)).expect(3, &[]);
    run(&mut generate(&captions, &out, &[])).expect(0, &["0 made now"]);
    run(syntic().arg("verify").arg(&out)).expect(0, &[]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_run_with_75_and_keeps_what_is_done() {
    let folder = tempdir().unwrap();
    let captions = captions(folder.path(), 12);
    let out = folder.path().join("out");
    let steps = ["--steps", "30"];
    let mut command = generate(&captions, &out, &steps);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let started = std::time::Instant::now();
    while !out.join("00000.tar").exists() {
        assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "no shard appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Twice, as `timeout` and a terminal's process group send it.
    for _ in 0..2 {
        let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupt.success());
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
    let ran = run(syntic().arg("verify").arg(&out)).expect(3, &[]);
    let unfinished = |line: &str| line.contains("not finished") || line.contains("missing, with all up to");
    let (problems, summary) = ran.stdout.trim_end().rsplit_once('\n').expect("problems, then a summary");
    assert!(problems.lines().all(unfinished) && summary.contains("problem"), "only unfinished: {}", ran.stdout);
    run(&mut generate(&captions, &out, &steps)).expect(0, &[]);
    run(syntic().arg("verify").arg(&out)).expect(0, &[]);
}
