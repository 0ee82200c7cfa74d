//! The special tokens of a tokenizer folder: which they are, and how they are cut out of a text.
//!
//! They are spread over up to four files whose precedence is that of transformers 5.23: with `added_tokens_decoder` in
//! `tokenizer_config.json`, that file alone counts; without it, `special_tokens_map.json` overrides it, and
//! `added_tokens.json` and the `added_tokens` of `tokenizer.json` describe further tokens.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::files::{read_object, shorten};
use crate::{Error, Result};

const START_OF_TEXT: &str = "<|startoftext|>";
const END_OF_TEXT: &str = "<|endoftext|>";

/// The named tokens in the order in which they are registered, with CLIP's defaults. Of two entries with the same content, the
/// later one decides how it is matched.
const NAMED: [(&str, Option<&str>); 7] = [
    ("bos_token", Some(START_OF_TEXT)),
    ("eos_token", Some(END_OF_TEXT)),
    ("unk_token", Some(END_OF_TEXT)),
    ("sep_token", None),
    ("pad_token", Some(END_OF_TEXT)),
    ("cls_token", None),
    ("mask_token", None),
];

/// The resolved special tokens.
pub(super) struct SpecialTokens {
    pub bos: AddedToken,
    pub eos: AddedToken,
    pub unk: AddedToken,
    pub pad: AddedToken,
    /// Tokens that a file declares with an id, by id.
    pub declared: BTreeMap<u32, AddedToken>,
    /// All of them, in the order of registration.
    pub in_order: Vec<AddedToken>,
    /// The file to name in messages.
    pub source: PathBuf,
}

/// A token with its id, in `added_tokens` of `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct AddedEntry {
    id: u32,
    #[serde(flatten)]
    token: Described,
}

/// A token written as an object. Its `lstrip` and `rstrip` are of no consequence: white space never becomes an id.
#[derive(Deserialize)]
struct Described {
    content: String,
    #[serde(default)]
    single_word: bool,
    normalized: Option<bool>,
    special: Option<bool>,
}

impl Described {
    /// `special` is for files that leave it out; a token is matched before normalization when it is special, unless told.
    fn into_token(self, special: bool) -> AddedToken {
        let special = self.special.unwrap_or(special);
        AddedToken::from(self.content, special).single_word(self.single_word).normalized(self.normalized.unwrap_or(!special))
    }
}

impl SpecialTokens {
    /// Collects the tokens of `folder`; `config` is its `tokenizer_config.json`, `added` comes from its `tokenizer.json`.
    pub fn resolve(folder: &Path, config: &Map<String, Value>, added: Vec<AddedEntry>) -> Result<SpecialTokens> {
        let config_path = folder.join("tokenizer_config.json");
        let map_path = folder.join("special_tokens_map.json");
        let decoder = config.get("added_tokens_decoder").filter(|value| !value.is_null());
        let map = if decoder.is_some() { None } else { read_object(&map_path)? };

        // The value of a key and the file it comes from.
        let find = |key: &str| {
            let from_map = map.as_ref().and_then(|map| map.get(key)).map(|value| (&map_path, value));
            from_map.or_else(|| config.get(key).map(|value| (&config_path, value)))
        };
        let mut named = Vec::new();
        for (key, default) in NAMED {
            let token = match find(key) {
                Some((_, Value::Null)) if default.is_none() => None,
                Some((path, value)) => Some(token(path, key, value, path == &map_path)?),
                None => default.map(|content| AddedToken::from(content, true)),
            };
            named.extend(token.map(|token| (key, token)));
        }
        let mut extra = Vec::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            if let Some((path, Value::Array(values))) = find(key) {
                for value in values {
                    extra.push(token(path, key, value, true)?);
                }
            }
        }

        let declared = match decoder {
            Some(value) => decoder_tokens(&config_path, value)?,
            None => legacy_tokens(folder, added, &named)?,
        };
        // A declared token keeps its own way of being matched, whatever the named entry says.
        let is_declared = |token: &AddedToken| declared.values().any(|other| other.content == token.content);
        let names = named.iter().map(|(_, token)| token.clone()).chain(extra);
        let in_order = declared.values().cloned().chain(names.filter(|token| !is_declared(token))).collect();
        let get = |key: &str| named.iter().find(|(name, _)| *name == key).map(|(_, token)| token.clone());
        let missing = |key: &str| Error::config(&config_path, key, "is needed");
        Ok(SpecialTokens {
            bos: get("bos_token").ok_or_else(|| missing("bos_token"))?,
            eos: get("eos_token").ok_or_else(|| missing("eos_token"))?,
            unk: get("unk_token").ok_or_else(|| missing("unk_token"))?,
            pad: get("pad_token").ok_or_else(|| missing("pad_token"))?,
            declared,
            in_order,
            source: config_path,
        })
    }

    /// Every token must have an id: in the vocabulary or declared. The unknown token must be in the vocabulary itself.
    pub fn check_known(&self, path: &Path, vocab: &HashSet<&str>) -> Result<()> {
        let declared: HashSet<&str> = self.declared.values().map(|token| token.content.as_str()).collect();
        let named = [("bos_token", &self.bos), ("eos_token", &self.eos), ("unk_token", &self.unk), ("pad_token", &self.pad)];
        let rest = self.in_order.iter().map(|token| ("special token", token));
        for (key, token) in named.into_iter().chain(rest) {
            let content = token.content.as_str();
            if !(vocab.contains(content) || declared.contains(content) && key != "unk_token") {
                let message = format!("the {key} is `{}`, which the vocabulary does not have", shorten(content));
                return Err(Error::format(path, format!("token `{}`", shorten(content)), message));
            }
        }
        Ok(())
    }
}

/// A token written as a string or as an object.
fn token(path: &Path, key: &str, value: &Value, special: bool) -> Result<AddedToken> {
    let token = match value {
        Value::String(content) => AddedToken::from(content.clone(), true),
        Value::Object(_) => describe(path, key, value)?.into_token(special),
        other => return Err(Error::config(path, key, format!("expected a token, found {}", shorten(&other.to_string())))),
    };
    if token.content.trim().is_empty() {
        return Err(Error::config(path, key, "a special token cannot be empty or white space"));
    }
    Ok(token)
}

fn describe(path: &Path, key: &str, value: &Value) -> Result<Described> {
    Described::deserialize(value).map_err(|cause| Error::config(path, key, format!("not a token: {cause}")))
}

/// `added_tokens_decoder`: an object from id to token.
fn decoder_tokens(path: &Path, value: &Value) -> Result<BTreeMap<u32, AddedToken>> {
    let key = "added_tokens_decoder";
    let Value::Object(entries) = value else { return Err(Error::config(path, key, "expected an object from id to token")) };
    let mut tokens = BTreeMap::new();
    for (id, value) in entries {
        tokens.insert(parse_id(path, key, id.parse().ok())?, token(path, &format!("{key}.{}", shorten(id)), value, false)?);
    }
    Ok(tokens)
}

/// `added_tokens.json`, then `added_tokens` of `tokenizer.json`.
fn legacy_tokens(folder: &Path, added: Vec<AddedEntry>, named: &[(&str, AddedToken)]) -> Result<BTreeMap<u32, AddedToken>> {
    let mut tokens = BTreeMap::new();
    let path = folder.join("added_tokens.json");
    for (content, id) in read_object(&path)?.unwrap_or_default() {
        let special = named.iter().any(|(_, token)| token.content == content);
        tokens.insert(parse_id(&path, &content, id.as_u64())?, AddedToken::from(content, special));
    }
    let path = folder.join("tokenizer.json");
    for AddedEntry { id, token } in added {
        tokens.insert(parse_id(&path, "added_tokens", Some(id.into()))?, token.into_token(false));
    }
    match tokens.values().find(|token| token.content.trim().is_empty()) {
        Some(_) => Err(Error::config(path, "added_tokens", "a special token cannot be empty or white space")),
        None => Ok(tokens),
    }
}

fn parse_id(path: &Path, key: &str, id: Option<u64>) -> Result<u32> {
    let id = id.filter(|id| *id < 1 << 20).and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| Error::config(path, shorten(key), "expected an id below 1048576"))
}
