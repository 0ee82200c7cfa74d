//! The built-in world as a data set: what other tools read, and what an interruption leaves.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use syntic::corpus::{Corpus, CorpusOptions};
use syntic::shards::{ImageFormat, decode_image, read_shard, verify};
use syntic::tinyworld::{CAPTIONS, Dataset, Scene, Split};
use syntic::{Error, Result};

fn dataset(split: Split, count: u64) -> Dataset {
    Dataset { split, count, seed: 5, pictures: split != Split::Text, format: ImageFormat::Png, shard_size: 10 }
}

fn write(dataset: &Dataset, folder: &Path) -> Result<()> {
    dataset.write(folder, &|_| {}, &AtomicBool::new(false)).map(drop)
}

#[test]
fn shards_and_coco_file_tell_the_same_scenes() {
    let folder = tempfile::tempdir().unwrap();
    write(&dataset(Split::Val, 25), folder.path()).unwrap();
    let report = verify(folder.path()).unwrap();
    assert!(report.is_ok(), "{:?}", report.lines());

    let coco: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("annotations/captions_val.json")).unwrap()).unwrap();
    let (images, annotations) = (coco["images"].as_array().unwrap(), coco["annotations"].as_array().unwrap());
    assert_eq!((images.len(), annotations.len()), (25, 25 * CAPTIONS));
    let mut index = 0;
    for shard in 0..3 {
        for sample in read_shard(&folder.path().join(format!("{shard:05}.tar"))).unwrap() {
            let sample = sample.unwrap();
            let scene = Scene::draw(Split::Val, 5, index as u64);
            let captions = scene.captions();
            let (extension, bytes) = sample.image().unwrap();
            assert_eq!(images[index]["file_name"], format!("{}.{extension}", sample.key));
            assert_eq!(images[index]["id"], index);
            assert_eq!(decode_image(Path::new(""), "", bytes).unwrap(), scene.picture());
            let fields = sample.fields().unwrap();
            assert_eq!(serde_json::from_str::<Scene>(fields["scene"].as_str().unwrap()).unwrap(), scene);
            assert_eq!(sample.caption(), Some(captions[0].as_str()));
            for (k, caption) in captions.iter().enumerate() {
                let annotation = &annotations[index * CAPTIONS + k];
                assert_eq!((&annotation["caption"], &annotation["image_id"]), (&caption.as_str().into(), &index.into()));
                assert!(k == 0 || fields[&format!("caption_{}", k + 1)] == caption.as_str());
            }
            index += 1;
        }
    }
    assert_eq!(index, 25);
}

#[test]
fn the_text_split_is_a_corpus_without_pictures() {
    let folder = tempfile::tempdir().unwrap();
    write(&dataset(Split::Text, 12), folder.path()).unwrap();
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| entry.unwrap().path().extension().is_none_or(|e| e != "tar")));
    let corpus = Corpus::open(&folder.path().join("annotations/captions_text.json"), &CorpusOptions::default()).unwrap();
    assert_eq!(corpus.len(), 12 * CAPTIONS);
    assert_eq!(corpus.get(7).unwrap().text, Scene::draw(Split::Text, 5, 1).captions()[2]);
    let with_pictures = Dataset { pictures: true, ..dataset(Split::Text, 12) };
    let error = write(&with_pictures, folder.path()).unwrap_err();
    assert!(error.to_string().contains("tinyworld.pictures: false -> true"), "{error}");
}

#[test]
fn an_interrupted_data_set_goes_on_and_ends_the_same() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = Dataset { shard_size: 300, ..dataset(Split::Test, 700) };
    write(&dataset, whole.path()).unwrap();
    let stop = AtomicBool::new(false);
    let stopped = dataset.write(broken.path(), &|done| stop.store(done > 500, Ordering::Relaxed), &stop);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(broken.path().join("00000.tar").exists() && !broken.path().join("00001.tar").exists());
    write(&dataset, broken.path()).unwrap();
    for name in ["00000.tar", "00001.tar", "00002.tar", "00001.parquet", "annotations/captions_test.json"] {
        assert!(fs::read(whole.path().join(name)).unwrap() == fs::read(broken.path().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn the_command_writes_what_the_library_writes_and_repeats_nothing() {
    let (by_command, by_library) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |count: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_syntic"));
        command.args(["tinyworld", "--split", "val", "--seed", "5", "--shard-size", "10", "--count", count, "--out"]);
        command.arg(by_command.path()).output().unwrap()
    };
    let first = run("25");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    write(&dataset(Split::Val, 25), by_library.path()).unwrap();
    let captions = "annotations/captions_val.json";
    for name in ["00000.tar", "00002.tar", captions] {
        assert!(fs::read(by_command.path().join(name)).unwrap() == fs::read(by_library.path().join(name)).unwrap(), "{name}");
    }
    let written = || fs::metadata(by_command.path().join(captions)).unwrap().modified().unwrap();
    let before = written();
    assert!(run("25").status.success());
    assert_eq!(written(), before, "a finished file was written again");
    let other = run("26");
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("tinyworld.count: 25 -> 26"));
}

#[test]
fn impossible_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for odd in [dataset(Split::Val, 0), Dataset { shard_size: 0, ..dataset(Split::Val, 5) }] {
        assert_eq!(write(&odd, folder.path()).unwrap_err().exit_code(), 2);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
