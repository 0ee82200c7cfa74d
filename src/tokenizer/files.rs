//! Reads the vocabulary, the merges and the settings of a tokenizer folder, and refuses what does not hold together.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::special::{AddedEntry, SpecialTokens};
use super::{DEFAULT_MAX_LENGTH, END_OF_WORD};
use crate::weights::read_text;
use crate::{Error, Result};

/// CLIP's `tokenizer.json` is 3.6 MB, its `vocab.json` 1.1 MB, its `merges.txt` 0.5 MB.
const MAX_DATA_BYTES: u64 = 64 << 20;
/// Configuration files are a few kB; those with many added tokens stay below this.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Ids are rows of an embedding table; CLIP has 49,408.
const MAX_VOCAB: u64 = 1 << 20;
/// Lengths from here on are how transformers writes "no limit" (its LARGE_INTEGER).
const NO_LIMIT: f64 = 1e20;

/// What a tokenizer folder says, checked.
pub(super) struct Files {
    pub vocab: Vec<(String, u32)>,
    /// One more than the largest id of `vocab`.
    pub vocab_size: u32,
    pub merges: Vec<(String, String)>,
    pub special: SpecialTokens,
    pub max_length: usize,
}

impl Files {
    /// `tokenizer.json` wins over `vocab.json` and `merges.txt`, as in transformers.
    pub fn read(folder: &Path) -> Result<Files> {
        let single = folder.join("tokenizer.json");
        let vocab_path = folder.join("vocab.json");
        let (model, added, source) = if single.exists() {
            let file: TokenizerJson = parse(&single, &read_text(&single, MAX_DATA_BYTES)?)?;
            file.model.check_is_clip(&single)?;
            (file.model, file.added_tokens, single)
        } else if vocab_path.exists() {
            let vocab = parse(&vocab_path, &read_text(&vocab_path, MAX_DATA_BYTES)?)?;
            let merges_path = folder.join("merges.txt");
            let merges = parse_merges(&merges_path, &read_text(&merges_path, MAX_DATA_BYTES)?)?;
            check_merges(&merges_path, &vocab, &merges)?;
            (Model { kind: None, vocab, merges, end_of_word_suffix: None }, Vec::new(), vocab_path)
        } else {
            let message =
                "neither `tokenizer.json` nor `vocab.json` with `merges.txt` is here: expected the `tokenizer` folder of a model";
            return Err(Error::format(folder, "", message));
        };
        let vocab_size = check_vocab(&source, &model.vocab)?;

        let config_path = folder.join("tokenizer_config.json");
        let config = read_object(&config_path)?.unwrap_or_default();
        check_settings(&config_path, &config)?;
        let max_length = max_length(&config_path, &config)?;
        let special = SpecialTokens::resolve(folder, &config, added)?;
        let known: HashSet<&str> = model.vocab.0.iter().map(|(token, _)| token.as_str()).collect();
        special.check_known(&source, &known)?;
        let merges = model.merges.into_iter().map(|merge| (merge.left, merge.right)).collect();
        Ok(Files { vocab: model.vocab.0, vocab_size, merges, special, max_length })
    }
}

/// The part of `tokenizer.json` that belongs to the model; its pipeline is always CLIP's.
#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Entries,
    merges: Vec<Merge>,
    end_of_word_suffix: Option<String>,
}

impl Model {
    fn check_is_clip(&self, path: &Path) -> Result<()> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != "BPE") {
            return Err(Error::config(path, "model.type", format!("`{kind}` is not supported: CLIP's is `BPE`")));
        }
        let suffix = self.end_of_word_suffix.as_deref().unwrap_or("");
        if suffix != END_OF_WORD {
            return Err(Error::config(
                path,
                "model.end_of_word_suffix",
                format!("`{suffix}` is not supported: CLIP's is `{END_OF_WORD}`"),
            ));
        }
        check_merges(path, &self.vocab, &self.merges)
    }
}

/// A merge, and where it stands.
struct Merge {
    left: String,
    right: String,
    place: String,
}

/// Either `"a b"` or `["a", "b"]`; both are in use.
impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Merge, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Line(String),
            Pair(String, String),
        }
        let parts = match Form::deserialize(deserializer)? {
            Form::Line(line) => split_merge(&line),
            Form::Pair(left, right) => Some((left, right)),
        };
        let (left, right) = parts.ok_or_else(|| serde::de::Error::custom("a merge is two tokens with one space between them"))?;
        Ok(Merge { left, right, place: "key `model.merges`".into() })
    }
}

fn split_merge(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then(|| (left.into(), right.into()))
}

/// `merges.txt`: a version comment, then one merge a line, the most frequent first.
fn parse_merges(path: &Path, text: &str) -> Result<Vec<Merge>> {
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.trim_end().lines()).filter(|(_, line)| !line.starts_with("#version")) {
        let Some((left, right)) = split_merge(line) else {
            let message = format!("expected two tokens with one space between them, found `{}`", shorten(line));
            return Err(Error::format(path, format!("line {number}"), message));
        };
        merges.push(Merge { left, right, place: format!("line {number}") });
    }
    Ok(merges)
}

fn check_merges(path: &Path, vocab: &Entries, merges: &[Merge]) -> Result<()> {
    let known: HashSet<&str> = vocab.0.iter().map(|(token, _)| token.as_str()).collect();
    for Merge { left, right, place } in merges {
        let joined = format!("{left}{right}");
        for token in [left, right, &joined] {
            if !known.contains(token.as_str()) {
                let merge = format!("{} {}", shorten(left), shorten(right));
                let message =
                    format!("the merge `{merge}` needs the token `{}`, which the vocabulary does not have", shorten(token));
                return Err(Error::format(path, place, message));
            }
        }
    }
    Ok(())
}

/// The token-to-id object of a vocabulary, with repeated tokens still visible.
struct Entries(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Entries, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(token) = map.next_key::<String>()? {
                    let id: Value = map.next_value()?;
                    let small = id.as_u64().filter(|id| *id < MAX_VOCAB);
                    let small = small.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                        let token = shorten(&token);
                        serde::de::Error::custom(format!("the id of token `{token}` is {id}, not an integer below {MAX_VOCAB}"))
                    })?;
                    entries.push((token, small));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// No token and no id twice. Returns one more than the largest id.
fn check_vocab(path: &Path, vocab: &Entries) -> Result<u32> {
    let (mut tokens, mut ids) = (HashSet::new(), HashSet::new());
    for (token, id) in &vocab.0 {
        let place = || format!("token `{}`", shorten(token));
        if token.is_empty() {
            return Err(Error::format(path, place(), "a token cannot be empty"));
        }
        if !tokens.insert(token) {
            return Err(Error::format(path, place(), "appears twice in the vocabulary"));
        }
        if !ids.insert(id) {
            return Err(Error::format(path, place(), format!("its id {id} belongs to another token too")));
        }
    }
    ids.iter().max().map(|max| *max + 1).ok_or_else(|| Error::format(path, "", "the vocabulary is empty"))
}

/// Settings that change the ids and that this tokenizer does not implement.
fn check_settings(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let supported: [(&str, &[Value]); 5] = [
        ("tokenizer_class", &["CLIPTokenizer".into(), "CLIPTokenizerFast".into()]),
        ("truncation_side", &["right".into()]),
        ("padding_side", &["right".into()]),
        ("split_special_tokens", &[false.into()]),
        ("add_prefix_space", &[false.into()]),
    ];
    for (key, values) in supported {
        if let Some(found) = config.get(key).filter(|found| !found.is_null() && !values.contains(found)) {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            return Err(Error::config(path, key, format!("{found} is not supported: only {} is", values.join(" or "))));
        }
    }
    Ok(())
}

fn max_length(path: &Path, config: &Map<String, Value>) -> Result<usize> {
    let Some(value) = config.get("model_max_length").filter(|value| !value.is_null()) else { return Ok(DEFAULT_MAX_LENGTH) };
    if value.as_f64().is_some_and(|length| length >= NO_LIMIT) {
        return Ok(DEFAULT_MAX_LENGTH);
    }
    let length = value.as_u64().filter(|length| (3..=4096).contains(length)).and_then(|length| usize::try_from(length).ok());
    length.ok_or_else(|| Error::config(path, "model_max_length", format!("{value} is not a length from 3 to 4096")))
}

/// A JSON object, or nothing when the file does not exist.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    parse(path, &read_text(path, MAX_CONFIG_BYTES)?).map(Some)
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| Error::format(path, format!("line {}", cause.line()), cause.to_string()))
}

/// At most 40 characters of a token or line, for a message.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}
