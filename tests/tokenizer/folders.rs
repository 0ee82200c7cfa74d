//! Tokenizer folders that are odd, and folders that do not hold together.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use syntic::Error;
use syntic::tokenizer::ClipTokenizer;
use tempfile::TempDir;

/// A vocabulary that is quick to load: a, b, their word-final forms, one merge, begin and end.
fn small_vocab() -> Value {
    json!({"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6})
}

/// Opens a folder with these files.
fn open(files: &[(&str, &str)]) -> syntic::Result<ClipTokenizer> {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    ClipTokenizer::open(folder.path())
}

/// Opens the small vocabulary with changes.
fn open_small(vocab: &Value, merges: &str, config: &Value) -> syntic::Result<ClipTokenizer> {
    open(&[("vocab.json", &vocab.to_string()), ("merges.txt", merges), ("tokenizer_config.json", &config.to_string())])
}

#[test]
fn small_vocabulary_works() {
    let tokenizer = open_small(&small_vocab(), "#version: 0.2\r\na b</w>\r\n\r\n", &json!({"model_max_length": 6})).unwrap();
    assert_eq!(tokenizer.encode("AB b a").unwrap().ids, [5, 4, 3, 2, 6, 6]);
    // A character the vocabulary lacks becomes the unknown token, which is end-of-text.
    assert_eq!(tokenizer.encode("z").unwrap().ids, [5, 6, 6, 6, 6, 6]);
    assert_eq!(tokenizer.encode("z").unwrap().tokens, 3);
}

#[test]
fn lengths_that_mean_no_limit_are_clip_s_own() {
    for length in [json!(1e30), json!(1000000000000000019884624838656.0), Value::Null] {
        assert_eq!(open_small(&small_vocab(), "", &json!({"model_max_length": length})).unwrap().max_length(), 77);
    }
}

/// The error of a broken folder must be an input error and mention all of `words`.
#[track_caller]
fn refused(result: syntic::Result<ClipTokenizer>, words: &[&str]) {
    let error = result.expect_err("a broken folder was accepted");
    let message = error.to_string();
    assert_eq!(error.exit_code(), 2, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn missing_files_are_named() {
    refused(
        ClipTokenizer::open(Path::new("/no/such/folder")),
        &["/no/such/folder", "tokenizer.json", "vocab.json", "merges.txt"],
    );
    refused(open(&[("vocab.json", &small_vocab().to_string())]), &["merges.txt"]);
    assert!(matches!(open(&[("vocab.json", &small_vocab().to_string())]), Err(Error::Io { .. })));
}

#[test]
fn a_broken_vocabulary_is_refused() {
    let with = |token: &str, id: Value| {
        let mut vocab = small_vocab();
        vocab[token] = id;
        open_small(&vocab, "", &json!({}))
    };
    refused(with("c", json!(3)), &["vocab.json", "`c`", "id 3", "another token"]);
    for id in [json!(-1), json!(1.5), json!("7"), json!(4_294_967_297u64), json!(1 << 20), Value::Null] {
        refused(with("c", id.clone()), &["vocab.json", "line 1", "`c`", &id.to_string()]);
    }
    refused(with("", json!(7)), &["vocab.json", "empty"]);
    refused(open(&[("vocab.json", r#"{"a": 0, "a": 1}"#), ("merges.txt", "")]), &["vocab.json", "`a`", "twice"]);
    refused(open(&[("vocab.json", "{}"), ("merges.txt", "")]), &["vocab.json", "empty"]);
    refused(open(&[("vocab.json", "{\n\"a\": 0,"), ("merges.txt", "")]), &["vocab.json", "line 2"]);
    refused(open(&[("vocab.json", "[1]"), ("merges.txt", "")]), &["vocab.json", "object from token to id"]);
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("vocab.json"), b"{\"\xff\": 0}").unwrap();
    refused(ClipTokenizer::open(folder.path()), &["vocab.json", "byte 2", "UTF-8"]);
}

#[test]
fn missing_special_tokens_are_refused() {
    for (token, key) in [("<|startoftext|>", "bos_token"), ("<|endoftext|>", "eos_token")] {
        let mut vocab = small_vocab();
        vocab.as_object_mut().unwrap().remove(token);
        refused(open_small(&vocab, "", &json!({})), &["vocab.json", key, token]);
    }
    refused(open_small(&small_vocab(), "", &json!({"pad_token": "!"})), &["pad_token", "`!`"]);
    refused(open_small(&small_vocab(), "", &json!({"pad_token": null})), &["tokenizer_config.json", "pad_token", "null"]);
    refused(open_small(&small_vocab(), "", &json!({"eos_token": {"text": "x"}})), &["eos_token", "content"]);
    refused(open_small(&small_vocab(), "", &json!({"bos_token": " "})), &["bos_token", "empty"]);
    let config = json!({"added_tokens_decoder": {"9": {"content": "<cat>"}}});
    refused(open_small(&small_vocab(), "", &config), &["<cat>", "id 9", "id 7"]);
    let config = json!({"added_tokens_decoder": {"x": {"content": "<cat>"}}});
    refused(open_small(&small_vocab(), "", &config), &["added_tokens_decoder", "id below"]);
}

#[test]
fn merges_must_fit_the_vocabulary() {
    refused(
        open_small(&small_vocab(), "#version: 0.2\na b</w>\na c</w>", &json!({})),
        &["merges.txt", "line 3", "`a c</w>`", "`c</w>`"],
    );
    refused(open_small(&small_vocab(), "b a</w>", &json!({})), &["merges.txt", "line 1", "`ba</w>`"]);
    for line in ["ab", "a b</w> c", "a  b</w>", " a", "a "] {
        refused(
            open_small(&small_vocab(), &format!("a b</w>\n{line}\na b</w>"), &json!({})),
            &["merges.txt", "line 2", "two tokens"],
        );
    }
}

#[test]
fn settings_that_would_change_the_ids_are_refused() {
    for (key, value) in [
        ("tokenizer_class", json!("T5Tokenizer")),
        ("truncation_side", json!("left")),
        ("padding_side", json!("left")),
        ("split_special_tokens", json!(true)),
        ("model_max_length", json!(2)),
        ("model_max_length", json!(-77)),
        ("model_max_length", json!("77")),
    ] {
        refused(open_small(&small_vocab(), "", &json!({key: value})), &["tokenizer_config.json", key, &value.to_string()]);
    }
}

#[test]
fn tokenizer_json_takes_both_forms_of_merges_and_must_be_clip_s() {
    let file = |change: &dyn Fn(&mut Value)| {
        let mut file =
            json!({"model": {"type": "BPE", "vocab": small_vocab(), "merges": ["a b</w>"], "end_of_word_suffix": "</w>"}});
        change(&mut file);
        open(&[("tokenizer.json", &file.to_string()), ("vocab.json", "not read")])
    };
    for merges in [json!(["a b</w>"]), json!([["a", "b</w>"]])] {
        let tokenizer = file(&|file| file["model"]["merges"] = merges.clone()).unwrap();
        assert_eq!(tokenizer.encode("ab").unwrap().ids[..3], [5, 4, 6]);
    }
    refused(file(&|file| file["model"]["type"] = json!("Unigram")), &["tokenizer.json", "model.type", "Unigram"]);
    refused(file(&|file| file["model"]["end_of_word_suffix"] = Value::Null), &["tokenizer.json", "end_of_word_suffix"]);
    refused(file(&|file| file["model"]["merges"] = json!([["a", "z"]])), &["tokenizer.json", "model.merges", "`z`"]);
    refused(file(&|file| file["model"]["merges"] = json!([["a"]])), &["tokenizer.json", "line 1"]);
    refused(file(&|file| *file = json!({})), &["tokenizer.json", "model"]);
}

#[test]
fn the_special_tokens_map_gives_way_to_the_decoder() {
    let map = json!({"pad_token": "a"}).to_string();
    let files = |config: Value| {
        let vocab = small_vocab().to_string();
        open(&[
            ("vocab.json", &vocab),
            ("merges.txt", ""),
            ("tokenizer_config.json", &config.to_string()),
            ("special_tokens_map.json", &map),
        ])
    };
    assert_eq!(files(json!({"pad_token": "b"})).unwrap().pad(), 0);
    assert_eq!(files(json!({"pad_token": "b", "added_tokens_decoder": {}})).unwrap().pad(), 1);
}

fn any_json() -> impl Strategy<Value = Value> {
    let token = prop_oneof![Just("a".to_string()), Just("<|endoftext|>".to_string()), Just(" ".to_string()), ".{0,4}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..12).prop_map(Value::from),
        token.clone().prop_map(Value::from)
    ];
    let object_of = move |inner: BoxedStrategy<Value>| {
        let key = prop_oneof![token.clone(), prop::sample::select(KEYS).prop_map(String::from)];
        prop::collection::btree_map(key, inner, 0..6).prop_map(|map| Value::Object(Map::from_iter(map)))
    };
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array), object_of(inner.boxed())]
    })
}

const KEYS: &[&str] = &[
    "model",
    "vocab",
    "merges",
    "end_of_word_suffix",
    "added_tokens",
    "added_tokens_decoder",
    "content",
    "normalized",
    "single_word",
    "bos_token",
    "eos_token",
    "pad_token",
    "extra_special_tokens",
    "model_max_length",
    "7",
    "id",
];

/// Either a proper file or something made up, so that the code behind the first check is reached too.
fn mostly(good: Value) -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(good.to_string()), 1 => any_json().prop_map(|json| json.to_string()), 1 => ".{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_folder_makes_it_panic(
        vocab in mostly(small_vocab()),
        merges in prop_oneof!["[ab</w> \n]{0,24}", "\\PC{0,30}", Just("a b</w>".to_string())],
        config in mostly(json!({})),
        map in mostly(json!({"pad_token": "a"})),
        added in mostly(json!({"<x>": 7})),
        text in "\\PC{0,20}",
    ) {
        let files = [
            ("vocab.json", vocab.as_str()), ("merges.txt", &merges), ("tokenizer_config.json", &config),
            ("special_tokens_map.json", &map), ("added_tokens.json", &added),
        ];
        if let Ok(tokenizer) = open(&files) {
            prop_assert_eq!(tokenizer.encode(&text).unwrap().ids.len(), tokenizer.max_length());
        }
    }

    #[test]
    fn no_tokenizer_json_makes_it_panic(
        vocab in prop_oneof![Just(small_vocab()), any_json()],
        merges in any_json(),
        added in any_json(),
        text in "\\PC{0,20}",
    ) {
        let file = json!({"model": {"vocab": vocab, "merges": merges, "end_of_word_suffix": "</w>"}, "added_tokens": added});
        if let Ok(tokenizer) = open(&[("tokenizer.json", &file.to_string())]) {
            tokenizer.encode(&text).unwrap();
        }
    }
}
