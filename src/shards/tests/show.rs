//! Galleries and contact sheets of a folder.

use std::fs;

use super::*;
use crate::shards::{
    GalleryOptions, RunManifest, SheetOptions, Worker, config_sha256, decode_image, gallery, write_contact_sheet,
};

/// A folder with 7 + 4 images and 4 failures, and the settings of its run.
fn folder(format: ImageFormat) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model": "<m & co>"});
    drop(RunManifest::open(dir.path(), &config, &json!({}), Worker::default()).unwrap());
    let settings = ShardSettings { config_sha256: config_sha256(&config), ..settings(format) };
    for (id, count) in [(0, 10), (1, 5)] {
        let mut writer = open(dir.path(), id, &settings);
        (0..count).for_each(|index| writer.push(&sample(format, index)).unwrap());
        writer.finish().unwrap();
    }
    dir
}

#[test]
fn a_gallery_shows_everything_and_needs_nothing() {
    for (format, mime) in ImageFormat::ALL.into_iter().zip(["image/jpeg", "image/png", "image/webp"]) {
        let dir = folder(format);
        let out = dir.path().join("page.html");
        assert_eq!(gallery(dir.path(), &out, GalleryOptions::default()).unwrap(), 10);
        let page = fs::read_to_string(&out).unwrap();
        assert_eq!(page.matches("<figure>").count(), 10);
        assert_eq!(page.matches(&format!("src=\"data:{mime};base64,")).count(), 10);
        assert!(page.contains("10 of 10 image-text pairs in 2 shards; 5 samples failed."));
        assert!(page.contains(&format!("seed {}", u64::MAX - 2)));
        assert!(page.contains("<dt>sampler</dt><dd dir=\"auto\">ddim</dd>"));
        assert!(page.contains("&quot;&lt;m &amp; co&gt;&quot;"), "the settings of the run");
        assert!(page.contains("with &quot;quotes&quot;") && page.contains("&lt;b&gt;tags&lt;/b&gt;") && !page.contains("<b>"));
        for outside in ["http://", "https://", "<script", "<link", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn a_gallery_is_capped() {
    let dir = folder(ImageFormat::Png);
    let out = dir.path().join("page.html");
    assert_eq!(gallery(dir.path(), &out, GalleryOptions { limit: 8 }).unwrap(), 8);
    let page = fs::read_to_string(&out).unwrap();
    assert_eq!(page.matches("<figure>").count(), 8);
    assert!(page.contains("8 of 10 image-text pairs"));
}

#[test]
fn nothing_to_show_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("page.html");
    let error = gallery(dir.path(), &out, GalleryOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no finished shard with an image"), "{error}");
    assert!(write_contact_sheet(dir.path(), &out, SheetOptions::default()).is_err());
    assert!(gallery(&dir.path().join("absent"), &out, GalleryOptions::default()).is_err());
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn a_contact_sheet_is_a_png() {
    let dir = folder(ImageFormat::Png);
    let out = dir.path().join("sheet.png");
    assert_eq!(write_contact_sheet(dir.path(), &out, SheetOptions { limit: 5, columns: 3 }).unwrap(), 5);
    let sheet = decode_image(&out, "", &fs::read(&out).unwrap()).unwrap();
    assert_eq!(sheet.width(), 3 * 200 + 8);
    let first = decode_image(&out, "", &picture(ImageFormat::Png, 0)).unwrap();
    assert_eq!(sheet.get_pixel(8 + 3 * 24, 8 + 5 * 24), first.get_pixel(3, 5));
}
