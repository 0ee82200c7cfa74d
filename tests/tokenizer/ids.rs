//! Ids for awkward texts, as transformers gives them.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;
use syntic::tokenizer::ClipTokenizer;
use syntic::weights::Arch;
use tempfile::TempDir;

use crate::support::{clip_vocabulary, random_tokenizer, write_folder};

/// Written by tools/golden/tokenizer.py.
static GOLDEN: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../golden/tokenizer.json")).unwrap());

fn golden_tokenizer(variant: &str) -> ClipTokenizer {
    let folder = TempDir::new().unwrap();
    write_folder(folder.path(), clip_vocabulary(), GOLDEN["variants"][variant]["settings"].as_object().unwrap());
    ClipTokenizer::open(folder.path()).unwrap()
}

#[test]
fn ids_equal_those_of_transformers() {
    for (variant, expected) in GOLDEN["variants"].as_object().unwrap() {
        let tokenizer = golden_tokenizer(variant);
        let pad = expected["pad"].as_u64().unwrap() as u32;
        let length = expected["length"].as_u64().unwrap() as usize;
        assert_eq!((tokenizer.pad(), tokenizer.max_length()), (pad, length), "{variant}");
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (49_406, 49_407), "{variant}");
        let cases = expected["cases"].as_array().unwrap();
        let texts = GOLDEN["texts"].as_array().unwrap();
        assert_eq!(cases.len(), texts.len(), "{variant}");
        for (text, case) in texts.iter().zip(cases) {
            let text = text.as_str().unwrap();
            let mut ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            ids.resize(length, pad);
            let tokens = case["tokens"].as_u64().unwrap() as usize;
            let found = tokenizer.encode(text).unwrap();
            assert_eq!(found.ids, ids, "{variant}: {text:?}");
            assert_eq!((found.tokens, found.truncated), (tokens, tokens > length), "{variant}: {text:?}");
        }
    }
}

#[test]
fn random_models_tokenize_like_the_published_ones() {
    let parent = TempDir::new().unwrap();
    for (arch, variant) in [(Arch::Sd15, "sd1"), (Arch::Sd21, "sd2"), (Arch::Tiny, "sd1")] {
        let (random, published) = (ClipTokenizer::open(&random_tokenizer(&parent, arch)).unwrap(), golden_tokenizer(variant));
        let texts = GOLDEN["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        assert!(texts.into_iter().all(|text| random.encode(text).unwrap() == published.encode(text).unwrap()), "{}", arch.name());
    }
}

#[test]
fn truncation_keeps_the_end_of_text() {
    let tokenizer = golden_tokenizer("sd1");
    for (words, tokens, truncated) in [(74, 76, false), (75, 77, false), (76, 78, true), (500, 502, true)] {
        let encoding = tokenizer.encode(&"cat ".repeat(words)).unwrap();
        assert_eq!((encoding.ids.len(), encoding.tokens, encoding.truncated), (77, tokens, truncated));
        assert_eq!((encoding.ids[0], encoding.ids[76]), (tokenizer.bos(), tokenizer.eos()));
    }
}

#[test]
fn vocab_size_counts_added_tokens() {
    assert_eq!(golden_tokenizer("sd1").vocab_size(), 49_408);
    assert_eq!(golden_tokenizer("decoder").vocab_size(), 49_410);
}

#[test]
fn any_text_gets_a_full_encoding() {
    let tokenizer = golden_tokenizer("sd2");
    proptest!(ProptestConfig { cases: 300, ..ProptestConfig::default() }, |(text in any::<String>())| {
        let encoding = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(encoding.ids.len(), 77);
        prop_assert!(encoding.ids.iter().all(|id| *id < tokenizer.vocab_size()));
        prop_assert_eq!(encoding.ids[(encoding.tokens - 1).min(76)], tokenizer.eos());
    });
}
