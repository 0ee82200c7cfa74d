//! `verify` accepts what the writer writes and names whatever was done to it since.

use std::fs;
use std::path::Path;

use super::*;
use crate::files;
use crate::shards::{Report, RunManifest, Worker, config_sha256, verify};

const FORMAT: ImageFormat = ImageFormat::Png;

/// A folder with shards 0 (full), 1 (full) and 2 (4 samples).
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (id, count) in [(0, 10), (1, 10), (2, 4)] {
        write_shard(dir.path(), id, count, FORMAT);
    }
    dir
}

fn problems(dir: &Path) -> Vec<String> {
    let report = verify(dir).unwrap();
    report.problems.iter().map(|problem| format!("{}: {}", problem.file, problem.message)).collect()
}

/// The folder has exactly one problem, which names `file` and says `message`.
fn expect_problem(dir: &Path, file: &str, message: &str) {
    let found = problems(dir);
    assert!(found.len() == 1 && found[0].starts_with(file) && found[0].contains(message), "{file}, {message}: {found:#?}");
}

#[test]
fn sound_folders_have_no_problems() {
    for format in ImageFormat::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_shard(dir.path(), 7, 10, format);
        write_shard(dir.path(), 8, 5, format);
        let report = verify(dir.path()).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
        assert_eq!((report.shards, report.samples, report.failed), (2, 15, 5));
        assert_eq!(report.lines(), ["failed samples: 5 x black image", "2 shards, 15 samples, 5 failed: no problems"]);
        assert_eq!(serde_json::to_value(&report).unwrap()["failures"], json!({"black image": 5}));
    }
}

/// Changes one shard as only a program would that also fixes the digests, then expects the problem.
fn expect_problem_behind_digests(change: impl Fn(Vec<u8>) -> Vec<u8>, message: &str) {
    let dir = folder();
    let tar = dir.path().join("00001.tar");
    let bytes = change(fs::read(&tar).unwrap());
    fs::write(&tar, &bytes).unwrap();
    let stats_path = dir.path().join("00001_stats.json");
    let mut stats: ShardStats = serde_json::from_slice(&fs::read(&stats_path).unwrap()).unwrap();
    (stats.tar_size, stats.tar_sha256) = (bytes.len() as u64, files::sha256_hex(&bytes));
    fs::write(&stats_path, serde_json::to_vec(&stats).unwrap()).unwrap();
    let found = problems(dir.path());
    assert!(found.iter().any(|line| line.starts_with("00001.tar: ") && line.contains(message)), "{message}: {found:#?}");
}

fn replace(bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn without_first_sample(tar: &[u8]) -> Vec<u8> {
    let second = tar.windows(10).position(|window| window == b"000012.png").unwrap();
    tar[second..].to_vec()
}

#[test]
fn a_changed_tar_is_seen() {
    let flip = |at: usize| {
        let dir = folder();
        let path = dir.path().join("00000.tar");
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let found = problems(dir.path());
        assert!(found[0].starts_with("00000.tar: SHA-256"), "{found:#?}");
    };
    flip(600);
    flip(3);
    let dir = folder();
    let path = dir.path().join("00000.tar");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1500]).unwrap();
    let found = problems(dir.path());
    assert!(found[0].contains("cut off or changed") && found[1].contains("cut off"), "{found:#?}");
    assert!(!verify(dir.path()).unwrap().is_ok());
}

#[test]
fn samples_that_disagree_are_seen_even_with_right_digests() {
    expect_problem_behind_digests(
        |tar| replace(tar, b"a \xc2\xabcaption\xc2\xbb 2", b"a \xc2\xabcoption\xc2\xbb 2"),
        "KEY.txt differs",
    );
    expect_problem_behind_digests(|tar| replace(tar, b"\"ddim\"", b"\"pndm\""), "differs from the json");
    expect_problem_behind_digests(|tar| replace(tar, b"\"width\": 8", b"\"width\": 9"), "width is 8, in the json it is 9");
    expect_problem_behind_digests(|tar| replace(tar, b"IDAT", b"IDOT"), "cannot be decoded");
    expect_problem_behind_digests(|tar| replace(tar, b"IEND", b"IEMD"), "SHA-256 is in the json");
    expect_problem_behind_digests(|tar| without_first_sample(&tar), "samples, where the stats say 7");
    expect_problem_behind_digests(|tar| tar[..tar.len() - 1024].to_vec(), "cut off");
    expect_problem_behind_digests(|tar| [&tar[..], b"more"].concat(), "behind the end");
}

#[test]
fn black_images_marked_as_good_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), 0, &settings(FORMAT));
    let black = encode_image(FORMAT, 95, 8, 8, &[0; 192]).unwrap();
    writer.push(&Sample { outcome: Outcome::Image(black), ..sample(FORMAT, 0) }).unwrap();
    writer.finish().unwrap();
    expect_problem(dir.path(), "00000.tar", "black image, though marked as a success");
}

#[test]
fn missing_and_foreign_files_are_seen() {
    for (name, file, message) in [
        ("00001.tar", "00001.tar", "cannot open it"),
        ("00001.parquet", "00001.parquet", "cannot open it"),
        ("00001_stats.json", "00001.tar", "not finished, or from elsewhere"),
    ] {
        let dir = folder();
        fs::remove_file(dir.path().join(name)).unwrap();
        let found = problems(dir.path());
        assert!(found[0].starts_with(file) && found[0].contains(message), "{name}: {found:#?}");
    }
    for (name, message) in [
        ("train.tar", "from elsewhere"),
        ("00007.tar.gz.tar", "from elsewhere"),
        ("notes.json", "move it away"),
        (".00000.parquet.tmp", "left over"),
        (".00000.journal", "left over"),
        (".00000.tar.part", "left over"),
    ] {
        let dir = folder();
        fs::write(dir.path().join(name), b"x").unwrap();
        expect_problem(dir.path(), name, message);
    }
    let dir = folder();
    for name in ["00001.tar", "00001.parquet", "00001_stats.json"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    expect_problem(dir.path(), "00000", "no shard between this one and 00002");
}

#[test]
fn shards_in_progress_are_named() {
    let dir = folder();
    let mut writer = open(dir.path(), 3, &settings(FORMAT));
    writer.push(&sample(FORMAT, 0)).unwrap();
    let found = problems(dir.path());
    assert!(found.iter().any(|line| line.contains(".00003.journal: the shard is not finished")), "{found:#?}");
    drop(writer);
    write_shard(dir.path(), 3, 4, FORMAT);
    expect_problem(dir.path(), "00002_stats.json", "4 samples, where shards before the last have 10");
}

#[test]
fn another_table_is_seen() {
    let dir = folder();
    fs::copy(dir.path().join("00000.parquet"), dir.path().join("00001.parquet")).unwrap();
    let mut stats: ShardStats = serde_json::from_slice(&fs::read(dir.path().join("00001_stats.json")).unwrap()).unwrap();
    expect_problem(dir.path(), "00001.parquet", "changed");
    let bytes = fs::read(dir.path().join("00000.parquet")).unwrap();
    (stats.parquet_size, stats.parquet_sha256) = (bytes.len() as u64, files::sha256_hex(&bytes));
    stats.successes += 1;
    fs::write(dir.path().join("00001_stats.json"), serde_json::to_vec(&stats).unwrap()).unwrap();
    let found = problems(dir.path()).join("\n");
    assert!(found.contains("row 0: key Some(\"000000\"), expected 000010"), "{found}");
    assert!(found.contains("the counts in the stats differ"), "{found}");
    assert!(found.contains("the row of the parquet differs"), "{found}");
}

#[test]
fn shards_of_another_configuration_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model": "m"});
    drop(RunManifest::open(dir.path(), &config, &json!({}), Worker::default()).unwrap());
    let right = ShardSettings { config_sha256: config_sha256(&config), ..settings(FORMAT) };
    open(dir.path(), 0, &right).finish().unwrap();
    assert!(verify(dir.path()).unwrap().is_ok());
    open(dir.path(), 1, &settings(FORMAT)).finish().unwrap();
    expect_problem(dir.path(), "00001_stats.json", "another configuration");
    fs::write(dir.path().join("00001_stats.json"), b"{\"count\": 3}").unwrap();
    let report: Report = verify(dir.path()).unwrap();
    assert!(report.problems[0].message.contains("not stats of a shard"), "{:?}", report.problems);
}

#[test]
fn folders_without_shards_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(verify(dir.path()).unwrap_err().exit_code(), 2);
    assert_eq!(verify(&dir.path().join("absent")).unwrap_err().exit_code(), 2);
}
