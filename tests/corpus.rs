//! Caption files as people have them, and files that are wrong in every way they can be.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use syntic::Error;
use syntic::corpus::{Caption, Corpus, CorpusOptions, Format, MAX_CAPTION_BYTES};

fn options() -> CorpusOptions {
    CorpusOptions::default()
}

fn column(name: &str) -> CorpusOptions {
    CorpusOptions { column: Some(name.into()), ..options() }
}

fn split(name: &str) -> CorpusOptions {
    CorpusOptions { split: Some(name.into()), ..options() }
}

fn read(name: &str, content: impl AsRef<[u8]>, options: &CorpusOptions) -> syntic::Result<Corpus> {
    Corpus::read(content.as_ref(), Path::new(name), options)
}

/// The captions as (id, image, text); an absent image is "".
#[track_caller]
fn captions(name: &str, content: impl AsRef<[u8]>, options: &CorpusOptions) -> Vec<(String, String, String)> {
    let corpus = read(name, content, options).unwrap();
    let fields = |caption: Caption| (caption.id.into(), caption.image.unwrap_or_default().into(), caption.text.into());
    corpus.iter().map(fields).collect()
}

fn caption(id: &str, image: &str, text: &str) -> (String, String, String) {
    (id.into(), image.into(), text.into())
}

/// A wrong file must give exit code 2 and a message with all of `words`.
#[track_caller]
fn refused(name: &str, content: impl AsRef<[u8]>, options: &CorpusOptions, words: &[&str]) {
    let error = read(name, content, options).expect_err("a wrong file was accepted");
    let message = format!("{error} ({})", error.hint().unwrap_or_default());
    assert_eq!(error.exit_code(), 2, "{message}");
    for word in [name].iter().chain(words) {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn txt_is_one_caption_a_line() {
    let expected = [caption("1", "", "a cat"), caption("2", "", " \"two\", dogs\t"), caption("3", "", "caf\u{e9}")];
    assert_eq!(captions("c.txt", "a cat\n \"two\", dogs\t\ncaf\u{e9}\n", &options()), expected);
    assert_eq!(captions("c.txt", "\u{feff}a cat\r\n \"two\", dogs\t\r\ncaf\u{e9}", &options()), expected);
}

#[test]
fn captions_are_found_by_position() {
    let corpus = read("c.txt", "a\nb\nc", &options()).unwrap();
    assert_eq!((corpus.len(), corpus.is_empty(), corpus.format()), (3, false, Format::Txt));
    assert_eq!(corpus.get(2), Some(Caption { index: 2, id: "3", image: None, text: "c" }));
    assert_eq!(corpus.get(3), None);
    assert!(corpus.iter().map(|caption| caption.index).eq(0..3));
}

#[test]
fn tsv_starts_with_the_caption_unless_told() {
    let cc3m = "a very \"typical\" bus station\thttp://example.org/1.jpg\nthe sky is blue\thttp://example.org/2.jpg\n";
    let expected = [caption("1", "", "a very \"typical\" bus station"), caption("2", "", "the sky is blue")];
    assert_eq!(captions("Train_GCC-training.tsv", cc3m, &options()), expected);
    assert_eq!(
        captions("c.tsv", "url\tCaption\nu\ta cat\nv\ta dog", &options()),
        [caption("2", "", "a cat"), caption("3", "", "a dog")]
    );
    assert_eq!(captions("c.tsv", "url\ttitle\nu\ta cat", &column("title")), [caption("2", "", "a cat")]);
    assert_eq!(
        captions("c.tsv", "1.jpg#0\ta cat\n1.jpg#1\ta dog", &column("2")),
        [caption("1", "", "a cat"), caption("2", "", "a dog")]
    );
    let numbered_header = read("c.tsv", "url\tcaption\nu\ta cat", &column("2")).unwrap();
    assert!(numbered_header.iter().map(|caption| caption.text).eq(["a cat"]));
}

#[test]
fn tsv_without_captions_first_asks_for_the_column() {
    refused("c.tsv", "1000092795.jpg#0\ta cat\n", &options(), &["names", "1000092795.jpg#0", "column"]);
    refused("c.tsv", "https://example.org/1\ta cat\n", &options(), &["column"]);
    refused("c.tsv", "url\ttitle\nu\ta cat", &column("caption"), &["`caption`", "`url`, `title`"]);
    for number in ["0", "3"] {
        refused("c.tsv", "url\ttitle\nu\ta cat", &column(number), &[&format!("`{number}`"), "`url`, `title`"]);
    }
    refused("c.tsv", "url\tcaption\nu\ta cat\nv\n", &options(), &["line 3", "column 2", "has 1"]);
}

#[test]
fn csv_cells_may_be_quoted() {
    let content =
        "image,\"caption\"\r\n1.jpg,a cat\r\n2.jpg,\"a \"\"big\"\" dog, asleep\"\r\n3.jpg,\"two\r\nlines\"\r\n4.jpg,last";
    let expected = [
        caption("2", "", "a cat"),
        caption("3", "", "a \"big\" dog, asleep"),
        caption("4", "", "two\nlines"),
        caption("6", "", "last"),
    ];
    assert_eq!(captions("c.csv", content, &options()), expected);
    assert_eq!(captions("c.csv", "1.jpg,a cat", &column("2")), [caption("1", "", "a cat")]);
}

#[test]
fn malformed_csv_is_refused() {
    refused("c.csv", "image,comment\n1.jpg,a cat\n", &options(), &["caption or text or prediction", "`image`, `comment`"]);
    refused("c.csv", "caption\n\"a\n\n\"b", &options(), &["line 4", "closing quote"]);
    refused("c.csv", "caption\na\n\"b\nc\n", &options(), &["line 3", "never ends"]);
    refused("c.csv", "caption\na \"cat\"\n", &options(), &["line 2", "quote"]);
    refused("c.csv", "a,caption\n1,x\n2\n", &options(), &["line 3", "column 2"]);
    let endless = format!("caption\n\"{}", "word\n".repeat(300_000));
    refused("c.csv", endless, &options(), &["line 2", "1 MiB", "quote"]);
}

#[test]
fn jsonl_takes_the_usual_keys() {
    let content = concat!(
        "{\"caption\": \"a \\u00e9t\\u00e9 \\ud83d\\ude00\", \"id\": 7, \"image_id\": \"x/1.jpg\"}\n",
        "{\"prediction\": \"a dog\", \"id\": \"k\", \"image\": 3}\r\n",
        "{\"text\": \"a bird\", \"id\": null, \"more\": [1]}"
    );
    let expected = [caption("7", "x/1.jpg", "a \u{e9}t\u{e9} \u{1f600}"), caption("k", "3", "a dog"), caption("3", "", "a bird")];
    assert_eq!(captions("c.jsonl", content, &options()), expected);
    assert_eq!(captions("c.ndjson", "{\"title\": \"a\", \"text\": \"b\"}", &column("title")), [caption("1", "", "a")]);
}

#[test]
fn malformed_jsonl_is_refused() {
    refused("c.jsonl", "{\"caption\": \"a\"}\n{\"caption\": \"a\"\n", &options(), &["line 2", "JSON"]);
    refused("c.jsonl", "[1]", &options(), &["line 1", "JSON"]);
    refused("c.jsonl", "{\"alt\": \"a\", \"url\": 1}", &options(), &["line 1", "`caption` or `text`", "`alt`, `url`"]);
    refused("c.jsonl", "{\"caption\": \"a\"}", &column("alt"), &["line 1", "`alt`", "`caption`"]);
    refused("c.jsonl", "{\"caption\": [\"a\"]}", &options(), &["line 1", "not a string"]);
    refused("c.jsonl", "{\"caption\": \"a\"}\n\n", &options(), &["line 2", "JSON"]);
    refused("c.jsonl", "{\"caption\": \"a \\ud83d b\"}", &options(), &["line 1", "surrogate"]);
    refused("c.jsonl", format!("{{\"caption\": {}", "[".repeat(10_000)), &options(), &["line 1"]);
}

fn coco() -> Value {
    json!({
        "info": {"annotations": "no"}, "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 48, "caption": "A bathroom"},
            {"image_id": 1, "id": "b", "caption": "two\nlines", "extra": {}},
            {"caption": "bare"}
        ],
        "licenses": []
    })
}

#[test]
fn coco_keeps_the_order_of_the_file() {
    let expected = [caption("48", "9", "A bathroom"), caption("b", "1", "two\nlines"), caption("2", "", "bare")];
    assert_eq!(captions("c.json", coco().to_string(), &options()), expected);
    assert_eq!(captions("c.json", format!("\u{feff}{:#}", coco()), &options()), expected);
    assert_eq!(captions("results.json", coco()["annotations"].to_string(), &options()), expected);
    assert_eq!(read("c", coco().to_string(), &options()).unwrap().format(), Format::Coco);
}

#[test]
fn malformed_coco_is_refused() {
    let with = |entry: &str| format!("{{\"annotations\": [{{\"caption\": \"a\"}}, {entry}]}}");
    refused("c.json", with("{\"id\": 1}"), &options(), &["annotations[1]", "`caption`"]);
    refused("c.json", with("{\"caption\": 5}"), &options(), &["annotations[1]", "string"]);
    refused("c.json", with("{\"caption\": \"x\", \"id\": [1]}"), &options(), &["annotations[1]", "id"]);
    refused("c.json", with("{\"caption\": \"lone \\udc00\"}"), &options(), &["annotations[1]", "surrogate"]);
    refused("c.json", with("{\"caption\": \"lone \\ud800 x\"}"), &options(), &["annotations[1]", "surrogate"]);
    refused("c.json", with("7"), &options(), &["annotations[1]"]);
    refused(
        "c.json",
        with("{\"caption\": \"  \"}, {\"caption\": \"\"}"),
        &options(),
        &["annotations[1]", "empty", "2 captions", "annotations[2]"],
    );
    refused("c.json", "{\"annotations\": [{\"caption\": \"a\"}", &options(), &["EOF"]);
    refused("c.json", "{\"annotations\": {\"a\": 1}}", &options(), &["array"]);
    refused("c.json", "{\"annotations\": [{\"caption\": \"a\"}], \"annotations\": []}", &options(), &["twice"]);
    refused("c.json", "{\"annotations\": [{\"caption\": \"a\"}]} x", &options(), &["trailing"]);
    refused("c.json", "{\"images\": []}", &options(), &["`annotations`"]);
    refused("c.json", "{\"annotations\": []}", &options(), &["no captions", "coco"]);
    refused("c.json", "5", &options(), &["annotations"]);
    refused("c.json", "[".repeat(100_000), &options(), &["c.json"]);
}

fn karpathy() -> String {
    let image = |split: &str, id: u64, texts: &[&str]| {
        let sentences: Vec<Value> =
            (0..).zip(texts).map(|(n, text)| json!({"raw": text, "sentid": 10 * id + n, "tokens": []})).collect();
        json!({"split": split, "cocoid": id, "imgid": 0, "filename": "f.jpg", "sentids": [], "sentences": sentences})
    };
    let images =
        [image("test", 1, &["t1", "t2"]), image("train", 2, &["a"]), image("restval", 3, &["b", "c"]), image("val", 4, &["v"])];
    json!({"images": images, "dataset": "coco"}).to_string()
}

#[test]
fn karpathy_train_includes_restval() {
    let train = [caption("20", "2", "a"), caption("30", "3", "b"), caption("31", "3", "c")];
    assert_eq!(captions("dataset_coco.json", karpathy(), &split("train")), train);
    assert_eq!(captions("dataset_coco.json", karpathy(), &split("restval")), train[1..]);
    assert_eq!(captions("dataset_coco.json", karpathy(), &split("test")), [caption("10", "1", "t1"), caption("11", "1", "t2")]);
    assert_eq!(captions("dataset_coco.json", karpathy(), &split("all")).len(), 6);
    let flickr =
        json!({"images": [{"split": "train", "imgid": 5, "filename": "7.jpg", "sentences": [{"raw": "x", "sentid": 0}]}]});
    assert_eq!(captions("dataset_flickr30k.json", flickr.to_string(), &split("train")), [caption("0", "7.jpg", "x")]);
}

#[test]
fn karpathy_needs_a_split_that_exists() {
    refused("c.json", karpathy(), &options(), &["split must be chosen", "restval (1)", "test (1)"]);
    refused("c.json", karpathy(), &split("dev"), &["`dev`", "train (1)"]);
    let broken =
        "{\"images\": [{\"split\": \"train\", \"sentences\": [{\"raw\": \"a\"}]}, {\"split\": \"train\", \"sentences\": [{}]}]}";
    refused("c.json", broken, &split("train"), &["images[1]", "`raw`"]);
    let empty = "{\"images\": [{\"split\": \"train\", \"sentences\": [{\"raw\": \"a\"}, {\"raw\": \"\"}]}]}";
    refused("c.json", empty, &split("train"), &["images[0].sentences[1]", "empty"]);
}

#[test]
fn formats_are_found_without_extensions() {
    for (content, expected) in [
        ("a cat\na dog\n", Format::Txt),
        ("a cat\tu\na dog\tv\n", Format::Tsv),
        ("{\"text\": \"a\"}\n{\"text\": \"b\"}\n", Format::Jsonl),
        ("  [{\"caption\": \"a\"}]", Format::Coco),
    ] {
        assert_eq!(read("captions", content, &options()).unwrap().format(), expected, "{content:?}");
    }
    assert_eq!(read("c.json", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n", &options()).unwrap().format(), Format::Jsonl);
    assert_eq!(read("C.TXT", "{\"text\": \"a\"}", &options()).unwrap().get(0).unwrap().text, "{\"text\": \"a\"}");
    let forced = CorpusOptions { format: Some(Format::Csv), ..options() };
    assert_eq!(captions("c.txt", "caption\n\"a, b\"", &forced), [caption("2", "", "a, b")]);
}

#[test]
fn format_names_are_those_of_the_command_line() {
    for (name, format) in Format::NAMES {
        assert_eq!((name.parse::<Format>().unwrap(), format.to_string().as_str()), (format, name));
    }
    let error = "parquet".parse::<Format>().unwrap_err();
    assert!(error.to_string().contains("parquet") && error.hint().unwrap().contains("karpathy"), "{error}");
}

#[test]
fn options_for_other_formats_are_refused() {
    refused("c.txt", "a", &split("train"), &["split", "txt", "karpathy"]);
    refused("c.json", coco().to_string(), &column("caption"), &["column", "coco", "tsv, csv and jsonl"]);
}

#[test]
fn empty_captions_are_all_reported() {
    refused("c.txt", "a\n\nb\n \t\nc\n", &options(), &["line 2", "empty", "2 captions", "line 4"]);
    refused("c.txt", "a\n\n", &options(), &["line 2", "empty"]);
    refused("c.txt", "a\n".to_string() + &"\n".repeat(9), &options(), &["9 captions", "line 6, ..."]);
    refused("c.tsv", "a\tu\n\tv\n", &options(), &["line 2", "empty"]);
    refused("c.csv", "caption\na\n\"\"\n", &options(), &["line 3", "empty"]);
    refused("c.jsonl", "{\"text\": \"\\u3000\"}", &options(), &["line 1", "empty"]);
    for name in ["c.txt", "c.tsv", "c.csv", "c.jsonl"] {
        refused(name, "", &options(), &["no captions"]);
    }
    refused("c.csv", "caption\n", &options(), &["no captions"]);
    refused("c.json", "", &options(), &["EOF"]);
}

#[test]
fn long_captions_and_lines_are_refused() {
    let longest = "x".repeat(MAX_CAPTION_BYTES);
    assert_eq!(read("c.txt", &longest, &options()).unwrap().get(0).unwrap().text.len(), MAX_CAPTION_BYTES);
    refused("c.txt", format!("a\n{longest}x"), &options(), &["line 2", "64 KiB"]);
    refused("c.txt", format!("a\n{}", longest.repeat(17)), &options(), &["line 2", "1 MiB"]);
    refused("c.json", json!([{"caption": longest + "x"}]).to_string(), &options(), &["annotations[0]", "64 KiB"]);
}

#[test]
fn invalid_utf8_is_reported_with_line_and_byte() {
    refused("c.txt", b"a cat\ncaf\xe9 au lait\n", &options(), &["line 2, byte 4", "0xe9", "iconv"]);
    refused("c.txt", b"\xef\xbb\xbfa\xffb", &options(), &["line 1, byte 5", "0xff"]);
    refused("c.txt", b"a\nb\xe2\x82", &options(), &["line 2, byte 2", "cut off"]);
    refused("c.csv", b"caption\n\"a\nb\xc0\xaf\"\n", &options(), &["line 3, byte 2", "0xc0"]);
    refused("c.jsonl", b"{\"caption\": \"\xed\xa0\x80\"}", &options(), &["line 1, byte 14", "0xed"]);
    refused("c.json", b"{\"annotations\": [{\"caption\": \"caf\xe9\"}]}", &options(), &["line 1, byte 34", "0xe9"]);
    refused("c.json", b"{\"images\": [\"\xff\"], \"annotations\": []}", &options(), &["line 1, byte 14", "0xff"]);
}

#[test]
fn utf8_is_checked_across_reads() {
    /// Gives one byte at a time.
    struct Drip<'a>(&'a [u8]);
    impl std::io::Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(1);
            std::io::Read::read(&mut self.0, &mut buffer[..length])
        }
    }
    // The head is read whole, so what matters lies behind it.
    let filler = "filler\n".repeat(10_000);
    let content = format!("{filler}\u{1f600}\u{e9}\u{20ac} x\n");
    let corpus = Corpus::read(Drip(content.as_bytes()), Path::new("c.txt"), &options()).unwrap();
    assert_eq!(corpus.get(10_000).unwrap().text, "\u{1f600}\u{e9}\u{20ac} x");
    for broken in [b"\xf0\x9f\x98x".as_slice(), b"\xf0\x9f\xf0", b"\xe2\x28"] {
        let content = [filler.as_bytes(), "\u{e9}".as_bytes(), broken].concat();
        let error = Corpus::read(Drip(&content), Path::new("c.txt"), &options()).unwrap_err();
        assert!(error.to_string().contains("line 10001, byte 3"), "{error}");
    }
}

#[test]
fn other_kinds_of_file_are_recognised() {
    for (magic, word) in [
        (b"\x1f\x8b\x08\x00".as_slice(), "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"PAR1", "parquet"),
        (b"\xff\xfea\x00", "UTF-16"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        refused("c.txt", magic, &options(), &[word]);
    }
}

#[test]
fn files_are_opened_by_path() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("captions.txt");
    let error = Corpus::open(&path, &options()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("captions.txt"), "{error}");
    assert!(matches!(Corpus::open(folder.path(), &options()), Err(Error::Io { .. })));
    fs::write(&path, "a cat\n").unwrap();
    assert_eq!(Corpus::open(&path, &options()).unwrap().len(), 1);
}

#[test]
fn the_hash_is_of_the_captions_and_not_of_the_file() {
    let hash = |name: &str, content: &str| read(name, content, &options()).unwrap().hash();
    let original = hash("c.txt", "ab\nc\n");
    assert_eq!(original.len(), 64);
    assert_eq!(original, hash("d.txt", "\u{feff}ab\r\nc"));
    assert_eq!(original, hash("c.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"c\"}"));
    let others = [hash("c.txt", "a\nbc\n"), hash("c.txt", "c\nab\n"), hash("c.txt", "ab\nc\nd"), hash("c.txt", "ab\nC\n")];
    let ids = hash("c.jsonl", "{\"text\": \"ab\", \"id\": 5}\n{\"text\": \"c\"}");
    let images = hash("c.jsonl", "{\"text\": \"ab\", \"image\": 5}\n{\"text\": \"c\"}");
    let mut all = others.to_vec();
    all.extend([original, ids, images]);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 7);
}

/// Bytes that look enough like a caption file to get past the first check.
fn nearly_captions() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\t",
        " ",
        "a",
        "\u{e9}",
        "\\ud800",
        "\\u0000",
        "7",
        "null",
        "\u{feff}",
        "\"annotations\":",
        "\"caption\":",
        "\"images\":",
        "\"sentences\":",
        "\"raw\":",
        "\"split\":",
        "\"id\":",
        "\"train\"",
        "caption",
        "{\"caption\":\"a\"}",
        "{\"annotations\":[{\"caption\":\"a\"}]}",
        "{\"images\":[{\"split\":\"train\",\"sentences\":[{\"raw\":\"a\"}]}]}",
    ]);
    let text = prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![3 => text, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(content in nearly_captions(), format in prop::option::of(0usize..6), split in any::<bool>(), column in any::<bool>()) {
        let options = CorpusOptions {
            format: format.map(|index| Format::NAMES[index].1),
            split: split.then(|| "train".to_string()),
            column: column.then(|| "2".to_string()),
        };
        match read("captions", &content, &options) {
            Ok(corpus) => {
                prop_assert!(!corpus.is_empty());
                prop_assert!(corpus.iter().all(|caption| !caption.text.trim().is_empty()));
                corpus.hash();
            }
            Err(error) => prop_assert_eq!(error.exit_code(), 2),
        }
    }

    /// What is written in any format comes back the same.
    #[test]
    fn texts_survive_every_format(texts in prop::collection::vec("\\PC{0,12}[\"a,\\\\é]\\PC{0,3}", 1..5)) {
        let quoted = |text: &String| format!("\"{}\"", text.replace('"', "\"\""));
        let files = [
            ("c.txt", texts.join("\n")),
            ("c.tsv", format!("caption\n{}", texts.join("\n"))),
            ("c.csv", format!("caption\n{}", texts.iter().map(quoted).collect::<Vec<_>>().join("\r\n"))),
            ("c.jsonl", texts.iter().map(|text| json!({"caption": text}).to_string()).collect::<Vec<_>>().join("\n")),
            ("c.json", json!({"annotations": texts.iter().map(|text| json!({"caption": text})).collect::<Vec<_>>()}).to_string()),
        ];
        for (name, content) in files {
            let corpus = read(name, content, &options()).unwrap();
            let found: Vec<&str> = corpus.iter().map(|caption| caption.text).collect();
            prop_assert_eq!(&found, &texts, "{}", name);
        }
    }
}
