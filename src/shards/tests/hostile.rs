//! Whatever bytes the parsers get, they answer with a result, and never with a panic.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::shards::{ReadLimits, ShardReader, StoredSample, decode_image, journal, run, stats, ustar};
use crate::{Error, Result};

fn read(tar: &[u8], limits: ReadLimits) -> Result<Vec<StoredSample>> {
    ShardReader::new(tar, Path::new("x.tar"), limits).collect()
}

/// An archive of members that are all right.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        assert!(ustar::append_member(&mut tar, name, content));
    }
    tar
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.extend_from_slice(&ustar::END);
    tar
}

/// The archive with its first header changed by `change`, its checksum made right again.
fn forged(mut tar: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    change(&mut tar[..512]);
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

fn refused(tar: &[u8], message: &str) {
    let error = read(tar, ReadLimits::default()).unwrap_err();
    assert!(matches!(&error, Error::Format { .. }) && error.to_string().contains(message), "{message}: {error}");
}

#[test]
fn sound_archives_are_read() {
    let tar = ended(archive(&[("a.jpg", b"1"), ("a.txt", b"22"), ("b/c.seg.png", b""), ("d.json", b"{\"x\": 1}")]));
    let samples = read(&tar, ReadLimits::default()).unwrap();
    let keys: Vec<&str> = samples.iter().map(|sample| sample.key.as_str()).collect();
    assert_eq!(keys, ["a", "b/c", "d"]);
    assert_eq!((samples[0].image(), samples[0].caption()), (Some(("jpg", &b"1"[..])), Some("22")));
    assert_eq!(samples[1].part("seg.png"), Some(&b""[..]));
    assert_eq!(samples[2].fields().unwrap()["x"], 1);
    // As Python's tarfile pads.
    let padded = [&tar[..], &[0; 10240]].concat();
    assert_eq!(read(&padded, ReadLimits::default()).unwrap(), samples);
    // With times in PAX records, as webdataset writes them.
    let pax = forged(archive(&[("PaxHeader", b"22 mtime=1700000000.5\n")]), |header| header[156] = b'x');
    assert_eq!(read(&[pax, tar].concat(), ReadLimits::default()).unwrap(), samples);
}

#[test]
fn hostile_archives_are_refused() {
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6', b'S'] {
        refused(&ended(forged(archive(&[("a.jpg", b"1")]), |header| header[156] = kind)), "not a regular file");
    }
    refused(&ended(forged(archive(&[("a.jpg", b"1")]), |header| header[156] = b'L')), "more than 100 bytes");
    for name in ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a\nb.jpg", "noextension", "..jpg"] {
        refused(&ended(archive(&[(name, b"")])), "member");
    }
    // A prefix cannot smuggle in what the name may not hold.
    refused(&ended(forged(archive(&[("a.jpg", b"1")]), |header| header[345..347].copy_from_slice(b".."))), "\"../a.jpg\"");
    let huge =
        |size: &'static [u8; 12]| forged(archive(&[("a.jpg", b"1")]), move |header| header[124..136].copy_from_slice(size));
    refused(&huge(b"77777777777\0"), "more than the 134217728 allowed");
    refused(&huge(b"00777777777\0"), "cut off");
    refused(&huge(b"0000000009x\0"), "not an octal number");
    refused(&huge(b"\x80\0\0\0\0\0\0\0\0\0\x02\0"), "not an octal number");
    refused(&archive(&[("a.jpg", b"1")]), "cut off");
    refused(b"", "cut off");
    refused(&ended(archive(&[("a.jpg", b"1"), ("a.jpg", b"2")])), "two members are called a.jpg");
    refused(&ended(archive(&[("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3")])), "not adjacent");
    refused(&[ended(archive(&[("a.jpg", b"1")])), archive(&[("b.jpg", b"2")])].concat(), "behind the end");
    refused(&[0x1f, 0x8b].repeat(512), "not a header of a ustar archive");
}

#[test]
fn pax_records_that_contradict_the_header_are_refused() {
    let pax = |records: &[u8], kind| forged(archive(&[("PaxHeader", records)]), move |header| header[156] = kind);
    let member = ended(archive(&[("a.jpg", b"12345")]));
    let both = |records: &[u8], kind| [pax(records, kind), member.clone()].concat();
    assert_eq!(read(&both(b"9 size=5\n", b'x'), ReadLimits::default()).unwrap()[0].key, "a");
    assert_eq!(read(&both(b"14 path=b.png\n", b'x'), ReadLimits::default()).unwrap()[0].key, "b");
    refused(&both(b"9 size=0\n", b'x'), "two different sizes");
    refused(&both(b"17 path=../b.png\n", b'x'), "\"../b.png\"");
    refused(&both(b"22 GNU.sparse.major=1\n", b'x'), "sparse");
    refused(&both(b"9 size=5\n", b'g'), "global");
    refused(&both(b"nonsense", b'x'), "malformed");
    let endless = forged(archive(&[("PaxHeader", b"")]), |header| {
        header[156] = b'x';
        header[124..136].copy_from_slice(b"00000300000\0");
    });
    refused(&endless, "more than the 65536 allowed");
}

#[test]
fn limits_hold() {
    let tar = ended(archive(&[("a.jpg", b"123"), ("a.txt", b"1"), ("b.jpg", b"1")]));
    assert!(read(&tar, ReadLimits { max_member: 3, max_members: 3 }).is_ok());
    assert!(read(&tar, ReadLimits { max_member: 2, max_members: 3 }).unwrap_err().to_string().contains("allowed"));
    assert!(read(&tar, ReadLimits { max_member: 3, max_members: 2 }).unwrap_err().to_string().contains("more than 2 members"));
    // After an error there is nothing more.
    let mut reader = ShardReader::new(&tar[..700], Path::new("x.tar"), ReadLimits::default());
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

/// Changes a few bytes of `bytes`, and cuts some off.
fn mutate(bytes: &[u8], changes: &[(prop::sample::Index, u8)], cut: &prop::sample::Index) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    let cut = cut.index(bytes.len() * 2).min(bytes.len());
    bytes.truncate(cut);
    bytes
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes, ReadLimits::default());
        let _ = decode_image(Path::new("x"), "y", &bytes);
        let _ = journal::Journal::parse(&bytes, 3);
        let _ = ustar::Pax::parse(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = stats::parse_stats(Path::new("x"), &text);
        let _ = run::parse_config(Path::new("x"), &text);
    }

    #[test]
    fn damaged_archives_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        fix_checksum in any::<bool>(),
    ) {
        let tar = ended(archive(&[("a.jpg", b"12345"), ("a.txt", b"x"), ("PaxHeader", b"9 size=5\n")]));
        let mut damaged = mutate(&tar, &changes, &cut);
        if fix_checksum && damaged.len() >= 512 {
            damaged = forged(damaged, |_| {});
        }
        if let Ok(samples) = read(&damaged, ReadLimits::default()) {
            for sample in samples {
                prop_assert!(!sample.key.is_empty() && !sample.key.contains('.') && !sample.key.starts_with('/'));
            }
        }
    }

    #[test]
    fn damaged_images_never_panic(
        format in prop::sample::select(ImageFormat::ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let _ = decode_image(Path::new("x"), "y", &mutate(&picture(format, 1), &changes, &cut));
    }

    #[test]
    fn damaged_journals_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let header = journal::line(Path::new("x"), &journal::Header::new(3, "c0ffee", 1.5)).unwrap();
        let entry = journal::Entry { end: 7, sha256: "00".into(), seconds: 0.5, row: serde_json::Map::new() };
        let bytes = [header, journal::line(Path::new("x"), &entry).unwrap().repeat(2)].concat();
        let intact = journal::Journal::parse(&bytes, 3);
        prop_assert_eq!(intact.entries.len(), 2);
        prop_assert_eq!(journal::Journal::parse(&bytes, 4), journal::Journal::default());
        prop_assert_eq!(intact.entries[1].1, bytes.len() as u64);
        let damaged = journal::Journal::parse(&mutate(&bytes, &changes, &cut), 3);
        prop_assert!(damaged.entries.len() <= 2);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_caption_is_kept(captions in prop::collection::vec(any::<String>(), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path(), 0, &settings(ImageFormat::Png));
        for (index, caption) in captions.iter().enumerate() {
            let outcome = Outcome::Image(picture(ImageFormat::Png, index));
            writer.push(&Sample { caption: caption.clone(), outcome, ..sample(ImageFormat::Png, index) }).unwrap();
        }
        writer.finish().unwrap();
        let samples = read(&std::fs::read(dir.path().join("00000.tar")).unwrap(), ReadLimits::default()).unwrap();
        let found: Vec<&str> = samples.iter().map(|sample| sample.caption().unwrap()).collect();
        prop_assert_eq!(found, captions);
    }
}
