//! The tokenizer against transformers on real captions: the first 20,000 of COCO 2014 train, digests of a thousand each.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use syntic::corpus::{Corpus, CorpusOptions, Format};
use syntic::tokenizer::ClipTokenizer;
use syntic::weights::Arch;
use tempfile::TempDir;

use crate::support::random_tokenizer;

/// Written by tools/corpus/token_ids.py.
#[derive(Deserialize)]
struct Golden {
    corpus: String,
    length: usize,
    block: usize,
    sha256: Vec<String>,
}

#[test]
#[ignore = "needs the captions that tools/corpus/fetch downloads"]
fn ids_of_real_captions_equal_those_of_transformers() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/token_ids.json")).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/corpus").join(&golden.corpus);
    assert!(path.exists(), "{} is not there: run tools/corpus/fetch first", path.display());
    let corpus = Corpus::open(&path, &CorpusOptions::default()).unwrap();
    assert_eq!((corpus.format(), corpus.len()), (Format::Coco, 414_113));
    let first = corpus.get(0).unwrap();
    assert_eq!((first.id, first.image, first.text), ("48", Some("318556"), "A very clean and well decorated empty bathroom"));

    let folder = TempDir::new().unwrap();
    let tokenizer = ClipTokenizer::open(&random_tokenizer(&folder, Arch::Sd15)).unwrap();
    assert_eq!((tokenizer.max_length(), golden.sha256.len() * golden.block), (golden.length, 20_000));
    for (block, expected) in golden.sha256.iter().enumerate() {
        let mut hasher = Sha256::new();
        for index in block * golden.block..(block + 1) * golden.block {
            let ids = tokenizer.encode(corpus.get(index).unwrap().text).unwrap().ids;
            for id in ids {
                hasher.update(u16::try_from(id).unwrap().to_le_bytes());
            }
        }
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, *expected, "block {block}: compare with tools/corpus/token_ids.py --block {block}");
    }
}
