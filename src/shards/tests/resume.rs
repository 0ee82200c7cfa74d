//! A shard continued after a crash has the same bytes as one written in one go.

use std::fs;
use std::path::Path;

use super::*;
use crate::Error;
use crate::files;
use crate::shards::layout::ShardPaths;
use crate::shards::shard_stats;

const FORMAT: ImageFormat = ImageFormat::Png;
const COUNT: usize = 4;

/// Tar and parquet of the uninterrupted shard, and the files of one stopped before the end: after `COUNT` samples.
struct Reference {
    tar: Vec<u8>,
    parquet: Vec<u8>,
    partial_tar: Vec<u8>,
    journal: Vec<u8>,
    /// Lengths of tar and journal after each sample, from none to all.
    ends: Vec<(usize, usize)>,
}

fn reference() -> Reference {
    let dir = tempfile::tempdir().unwrap();
    let paths = ShardPaths::new(dir.path(), 0);
    let lengths =
        || (fs::metadata(&paths.partial_tar).unwrap().len() as usize, fs::metadata(&paths.journal).unwrap().len() as usize);
    let mut writer = open(dir.path(), 0, &settings(FORMAT));
    let mut ends = vec![lengths()];
    for index in 0..COUNT {
        writer.push(&sample(FORMAT, index)).unwrap();
        ends.push(lengths());
    }
    let (partial_tar, journal) = (fs::read(&paths.partial_tar).unwrap(), fs::read(&paths.journal).unwrap());
    writer.finish().unwrap();
    Reference { tar: fs::read(&paths.tar).unwrap(), parquet: fs::read(&paths.parquet).unwrap(), partial_tar, journal, ends }
}

/// Continues the shard in `dir`, which must have recovered `recovered` samples, and compares the finished bytes.
fn finish_and_compare(dir: &Path, reference: &Reference, recovered: usize) {
    let paths = ShardPaths::new(dir, 0);
    let mut writer = open(dir, 0, &settings(FORMAT));
    assert_eq!(writer.completed(), recovered);
    for index in recovered..COUNT {
        writer.push(&sample(FORMAT, index)).unwrap();
    }
    let stats = writer.finish().unwrap();
    assert!(fs::read(&paths.tar).unwrap() == reference.tar, "tar differs");
    assert!(fs::read(&paths.parquet).unwrap() == reference.parquet, "parquet differs");
    assert_eq!(names(dir), ["00000.parquet", "00000.tar", "00000_stats.json"]);
    assert_eq!((stats.tar_size, stats.tar_sha256.as_str()), (reference.tar.len() as u64, &*files::sha256_hex(&reference.tar)));
    assert_eq!(shard_stats(dir, 0).unwrap(), Some(stats));
}

/// Every way in which the partial tar can be cut (each byte would take minutes: each block border, its neighbours, and all
/// bytes of one header) leaves exactly the samples that are whole.
#[test]
fn truncated_tar_loses_only_torn_samples() {
    let reference = reference();
    let length = reference.partial_tar.len();
    for cut in (0..=length).filter(|cut| matches!(cut % 512, 0 | 1 | 511) || (512..1024).contains(cut) && cut % 7 == 0) {
        let dir = tempfile::tempdir().unwrap();
        let paths = ShardPaths::new(dir.path(), 0);
        fs::write(&paths.partial_tar, &reference.partial_tar[..cut]).unwrap();
        fs::write(&paths.journal, &reference.journal).unwrap();
        let whole = reference.ends.iter().rposition(|&(tar, _)| tar <= cut).unwrap();
        finish_and_compare(dir.path(), &reference, whole);
    }
}

#[test]
fn truncated_journal_loses_only_torn_entries() {
    let reference = reference();
    for cut in
        (0..=reference.journal.len()).filter(|cut| cut % 5 == 0 || reference.ends.iter().any(|end| end.1.abs_diff(*cut) < 2))
    {
        let dir = tempfile::tempdir().unwrap();
        let paths = ShardPaths::new(dir.path(), 0);
        fs::write(&paths.partial_tar, &reference.partial_tar).unwrap();
        fs::write(&paths.journal, &reference.journal[..cut]).unwrap();
        let whole = reference.ends.iter().rposition(|&(_, journal)| journal <= cut).unwrap_or(0);
        finish_and_compare(dir.path(), &reference, whole);
    }
}

/// After a power cut a file can have its length and yet hold zeros.
#[test]
fn damaged_content_is_not_trusted() {
    let reference = reference();
    for damaged_sample in [0, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let paths = ShardPaths::new(dir.path(), 0);
        let mut tar = reference.partial_tar.clone();
        let (from, to) = (reference.ends[damaged_sample].0, reference.ends[damaged_sample + 1].0);
        tar[from + 600..to].fill(0);
        fs::write(&paths.partial_tar, &tar).unwrap();
        fs::write(&paths.journal, &reference.journal).unwrap();
        finish_and_compare(dir.path(), &reference, damaged_sample);
    }
    let dir = tempfile::tempdir().unwrap();
    let paths = ShardPaths::new(dir.path(), 0);
    let mut journal = reference.journal.clone();
    journal[reference.ends[1].1..].fill(0);
    fs::write(&paths.partial_tar, &reference.partial_tar).unwrap();
    fs::write(&paths.journal, &journal).unwrap();
    finish_and_compare(dir.path(), &reference, 1);
    // Long files without any sense leave no trace behind the end.
    let dir = tempfile::tempdir().unwrap();
    let paths = ShardPaths::new(dir.path(), 0);
    fs::write(&paths.partial_tar, vec![7; 100_000]).unwrap();
    fs::write(&paths.journal, vec![b'{'; 100_000]).unwrap();
    finish_and_compare(dir.path(), &reference, 0);
}

/// `finish` can be cut short between any two of its steps.
#[test]
fn interrupted_finish_is_repeated() {
    let reference = reference();
    let begin = || {
        let dir = tempfile::tempdir().unwrap();
        let paths = ShardPaths::new(dir.path(), 0);
        fs::write(&paths.journal, &reference.journal).unwrap();
        (dir, paths)
    };
    // The end of the archive is written.
    let (dir, paths) = begin();
    fs::write(&paths.partial_tar, &reference.tar).unwrap();
    finish_and_compare(dir.path(), &reference, COUNT);
    // The parquet has its name, and a temporary one is left over from an even earlier try.
    let (dir, paths) = begin();
    fs::write(&paths.partial_tar, &reference.tar).unwrap();
    fs::write(&paths.parquet, b"old").unwrap();
    fs::write(files::temporary_path(&paths.parquet), b"half").unwrap();
    finish_and_compare(dir.path(), &reference, COUNT);
    // The tar has its name.
    let (dir, paths) = begin();
    fs::write(&paths.tar, &reference.tar).unwrap();
    fs::write(&paths.parquet, &reference.parquet).unwrap();
    finish_and_compare(dir.path(), &reference, COUNT);
    // The stats are written, the journal is still there.
    let (dir, paths) = begin();
    let done = tempfile::tempdir().unwrap();
    write_shard(done.path(), 0, COUNT, FORMAT);
    for name in names(done.path()) {
        fs::copy(done.path().join(&name), dir.path().join(&name)).unwrap();
    }
    assert!(matches!(ShardWriter::open(dir.path(), 0, &settings(FORMAT)).unwrap(), Shard::Done(_)));
    assert!(!paths.journal.exists());
}

/// A disk that fills up at any byte: the push fails, the shard stays whole, and goes on once there is room.
#[test]
fn full_disk_is_survived() {
    let reference = reference();
    for (tar_room, journal_room) in [(0, 9999), (700, 9999), (9999, 0), (9999, 100), (9999, 700)] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path(), 0, &settings(FORMAT));
        (writer.tar.room, writer.journal.room) = (Some(tar_room), Some(journal_room));
        let error = (0..COUNT).find_map(|index| writer.push(&sample(FORMAT, index)).err()).unwrap();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint().unwrap().contains("resumes"));
        let completed = writer.completed();
        drop(writer);
        finish_and_compare(dir.path(), &reference, completed);
        // Or within the same process.
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path(), 0, &settings(FORMAT));
        (writer.tar.room, writer.journal.room) = (Some(tar_room), Some(journal_room));
        for index in 0..COUNT {
            if writer.push(&sample(FORMAT, index)).is_err() {
                (writer.tar.room, writer.journal.room) = (None, None);
                writer.push(&sample(FORMAT, index)).unwrap();
            }
        }
        writer.finish().unwrap();
        assert!(fs::read(dir.path().join("00000.tar")).unwrap() == reference.tar);
    }
}

#[test]
fn another_configuration_is_refused() {
    let other = ShardSettings { config_sha256: "bad".into(), ..settings(FORMAT) };
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), 0, &settings(FORMAT));
    writer.push(&sample(FORMAT, 0)).unwrap();
    drop(writer);
    let error = ShardWriter::open(dir.path(), 0, &other).unwrap_err();
    assert!(error.to_string().contains("another configuration"), "{error}");
    write_shard(dir.path(), 0, COUNT, FORMAT);
    let error = ShardWriter::open(dir.path(), 0, &other).unwrap_err();
    assert!(error.to_string().contains("another configuration"), "{error}");
}

#[test]
fn a_shard_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path(), 0, &settings(FORMAT));
    let error = ShardWriter::open(dir.path(), 0, &settings(FORMAT)).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    open(dir.path(), 1, &settings(FORMAT));
    drop(writer);
    open(dir.path(), 0, &settings(FORMAT));
}

#[test]
fn files_from_elsewhere_are_not_overwritten() {
    for name in ["00000.tar", "00000.parquet"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, b"somebody's work").unwrap();
        let error = ShardWriter::open(dir.path(), 0, &settings(FORMAT)).unwrap_err();
        assert!(matches!(error, Error::Usage { .. }) && error.to_string().contains(name), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"somebody's work");
        assert_eq!(names(dir.path()), [name]);
    }
    // Even if a shard of that name is in progress.
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 0, &settings(FORMAT)));
    fs::write(dir.path().join("00000.tar"), b"somebody's work").unwrap();
    assert!(ShardWriter::open(dir.path(), 0, &settings(FORMAT)).is_err());
    fs::remove_file(dir.path().join(".00000.tar.part")).unwrap();
    assert!(ShardWriter::open(dir.path(), 0, &settings(FORMAT)).is_err());
    assert_eq!(fs::read(dir.path().join("00000.tar")).unwrap(), b"somebody's work");
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("elsewhere");
    fs::write(&target, b"precious").unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    for name in [".00000.tar.part", ".00000.journal"] {
        std::os::unix::fs::symlink(&target, out.join(name)).unwrap();
        let error = ShardWriter::open(&out, 0, &settings(FORMAT)).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        names(&out).iter().for_each(|name| fs::remove_file(out.join(name)).unwrap());
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn samples_come_in_order_and_with_known_fields() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path(), 0, &settings(FORMAT));
    assert!(writer.push(&sample(FORMAT, 1)).is_err());
    let mut odd = sample(FORMAT, 0);
    odd.meta.insert("colour".into(), json!("red"));
    assert!(writer.push(&odd).unwrap_err().to_string().contains("`colour`"));
    let mut odd = sample(FORMAT, 0);
    odd.meta.insert("seed".into(), json!(-1));
    assert!(writer.push(&odd).unwrap_err().to_string().contains("`seed`"));
    assert_eq!(writer.completed(), 0);
    for index in 0..10 {
        writer.push(&sample(FORMAT, index)).unwrap();
    }
    assert!(writer.push(&sample(FORMAT, 10)).is_err(), "the shard is full");
}
