//! A folder belongs to one configuration, one process per worker, and to nobody's links.

use std::fs;
use std::path::Path;

use super::*;
use crate::shards::{RunManifest, Worker, config_sha256};
use crate::{Error, Result};

fn config() -> Value {
    json!({"model": "m", "steps": 20, "images": {"format": "jpg", "quality": 95}, "seeds": [1, 2], "negative": ""})
}

fn start(dir: &Path, config: &Value) -> Result<RunManifest> {
    RunManifest::open(dir, config, &json!({"threads": 2}), Worker::default())
}

#[test]
fn the_same_configuration_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/folder");
    let first = start(&out, &config()).unwrap();
    assert_eq!(first.config_sha256(), config_sha256(&config()));
    assert_eq!(first.config(), &config());
    drop(first);
    // Other threads, and another order of the keys.
    let reordered: Value = serde_json::from_str(
        r#"{"steps": 20, "negative": "", "seeds": [1, 2], "images": {"quality": 95, "format": "jpg"}, "model": "m"}"#,
    )
    .unwrap();
    let again = RunManifest::open(&out, &reordered, &json!({"threads": 64}), Worker::default()).unwrap();
    assert_eq!(again.config_sha256(), config_sha256(&config()));
    assert_eq!(RunManifest::read(&out).unwrap(), Some(config()));
    assert_eq!(names(&out), ["_run"], "nothing but shards may be at the top");
    let runtime = fs::read_to_string(out.join("_run/worker-0-of-1.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&runtime).unwrap(), json!({"threads": 64}));
}

#[test]
fn each_difference_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &config()).unwrap());
    let other = json!({"model": "m", "steps": 30, "images": {"format": "jpg", "quality": 90}, "seeds": [1], "karras": true, "negative": "a"});
    let checked = RunManifest::check(dir.path(), &other).unwrap_err();
    let error = start(dir.path(), &other).unwrap_err();
    assert_eq!(error.to_string(), checked.to_string());
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    let expected = [
        "steps: 20 -> 30",
        "images.quality: 95 -> 90",
        "seeds.1: 2 -> (absent)",
        "negative: \"\" -> \"a\"",
        "karras: (absent) -> true",
    ];
    assert_eq!(lines, expected);
    assert_eq!(RunManifest::read(dir.path()).unwrap(), Some(config()), "the record of the first run stays");
}

#[test]
fn the_hash_is_of_the_content() {
    assert_eq!(config_sha256(&json!({"b": 1, "a": {"d": 2, "c": 3}})), config_sha256(&json!({"a": {"c": 3, "d": 2}, "b": 1})));
    assert_ne!(config_sha256(&json!({"a": 1})), config_sha256(&json!({"a": 1.0})));
    // printf '{"a":{"c":3,"d":2},"b":1}' | sha256sum
    let expected = "78d48859c3252943aab7306f76c80f3f07783582e05ab8f944ce0696f2dbfc67";
    assert_eq!(config_sha256(&json!({"b": 1, "a": {"d": 2, "c": 3}})), expected);
}

#[test]
fn a_worker_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let worker = |index| RunManifest::open(dir.path(), &config(), &json!({}), Worker { index, count: 2 });
    let first = worker(0).unwrap();
    let second = worker(1).unwrap();
    let error = worker(0).unwrap_err();
    assert!(error.to_string().contains("worker 0 of 2 is already running"), "{error}");
    drop(first);
    worker(0).unwrap();
    drop(second);
}

#[test]
fn shards_from_elsewhere_are_refused() {
    // Before the first run: any shard, even one with stats.
    let dir = tempfile::tempdir().unwrap();
    write_shard(dir.path(), 0, 3, ImageFormat::Png);
    for error in [start(dir.path(), &config()).unwrap_err(), RunManifest::check(dir.path(), &config()).unwrap_err()] {
        assert!(error.to_string().contains("00000.tar was not written by a run in this folder"), "{error}");
    }
    assert!(!dir.path().join("_run").exists());
    // Later: those without stats.
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &config()).unwrap());
    write_shard(dir.path(), 0, 3, ImageFormat::Png);
    drop(start(dir.path(), &config()).unwrap());
    for name in ["train.tar", "00005.tar"] {
        fs::write(dir.path().join(name), b"x").unwrap();
        let error = start(dir.path(), &config()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        fs::remove_file(dir.path().join(name)).unwrap();
    }
}

#[test]
fn a_damaged_record_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &config()).unwrap());
    let path = dir.path().join("_run/config.json");
    let text = fs::read_to_string(&path).unwrap();
    for (damaged, message) in [
        (text.replace("95", "90"), "edited by hand"),
        (text[..text.len() / 2].to_string(), "not a run manifest"),
        ("[]".into(), "not a run manifest"),
        ("{}".into(), "missing"),
    ] {
        fs::write(&path, damaged).unwrap();
        let error = start(dir.path(), &config()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(message), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), b"precious").unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    symlink(&elsewhere, out.join("_run")).unwrap();
    for error in [start(&out, &config()).unwrap_err(), RunManifest::check(&out, &config()).unwrap_err()] {
        assert!(error.to_string().contains("_run is a symbolic link"), "{error}");
    }
    fs::remove_file(out.join("_run")).unwrap();
    for name in ["config.json", "config.lock", "worker-0-of-1.json", "worker-0-of-1.lock"] {
        let run = out.join("_run");
        fs::create_dir(&run).unwrap();
        symlink(elsewhere.join("precious"), run.join(name)).unwrap();
        let error = start(&out, &config()).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{name}: {error}");
        fs::remove_dir_all(&run).unwrap();
    }
    assert_eq!(names(&elsewhere), ["precious"]);
    assert_eq!(fs::read(elsewhere.join("precious")).unwrap(), b"precious");
}

#[cfg(unix)]
#[test]
fn folders_that_cannot_be_written_are_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write there; but not in a folder of the kernel, and nobody below a file.
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let superuser = fs::write(locked.join("probe"), b"").is_ok();
    let read_only = if superuser { Path::new("/proc/sys/kernel").to_path_buf() } else { locked };
    for out in [read_only, file] {
        let errors = [start(&out, &config()).unwrap_err(), ShardWriter::open(&out, 0, &settings(ImageFormat::Png)).unwrap_err()];
        for error in errors {
            assert!(matches!(&error, Error::Io { .. }) && error.exit_code() == 2, "{error}");
            assert!(error.to_string().contains(&*out.to_string_lossy()), "{error}");
        }
    }
}
