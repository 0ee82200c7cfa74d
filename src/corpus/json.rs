//! JSON caption files: jsonl, COCO, Karpathy. The large ones are parsed as a stream, one entry in memory at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::table::{CAPTION_NAMES, shorten};
use super::text::{TextReader, line_error, read_error};
use super::{Collector, Origin};
use crate::{Error, Result};

/// One object a line.
pub(super) fn read_jsonl<R: Read>(mut text: TextReader<R>, column: Option<&str>, captions: &mut Collector) -> Result<()> {
    let path = text.path();
    while let Some((number, line)) = text.next_line()? {
        let parsed = serde_json::from_str::<Map<String, Value>>(line);
        let object = parsed.map_err(|cause| line_error(path, number, format!("not a JSON object: {}", explain(&cause))))?;
        let found = match column {
            Some(column) => object.get(column),
            None => CAPTION_NAMES.iter().find_map(|name| object.get(*name)),
        };
        let Some(caption) = found else {
            let keys: Vec<String> = object.keys().take(8).map(|key| format!("`{}`", shorten(key))).collect();
            let wanted = column.map_or_else(|| CAPTION_NAMES.join("` or `"), String::from);
            let message = format!("no key `{wanted}` for the caption: the keys are {}", keys.join(", "));
            return Err(line_error(path, number, message));
        };
        let Value::String(caption) = caption else { return Err(line_error(path, number, "the caption is not a string")) };
        let id = object.get("id").and_then(scalar).unwrap_or_else(|| number.to_string());
        let image = ["image_id", "image"].iter().find_map(|key| object.get(*key).and_then(scalar)).unwrap_or_default();
        captions.push(caption, Origin { id: &id, image: &image, place: &format_args!("line {number}") });
    }
    Ok(())
}

/// The parser's message; it calls half of a surrogate pair an unexpected end of the escape.
fn explain(cause: &serde_json::Error) -> String {
    let message = cause.to_string();
    let half = message.contains("hex escape");
    if half {
        format!("{message}: a lone surrogate (`\\ud800` to `\\udfff` without its other half) is not text")
    } else {
        message
    }
}

/// A string or number as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The `annotations` of COCO, or the array of a COCO results file, in the order of the file.
pub(super) fn read_coco<R: Read>(text: TextReader<R>, captions: &mut Collector) -> Result<()> {
    #[derive(Deserialize)]
    struct Annotation {
        #[serde(default)]
        id: Id,
        #[serde(default)]
        image_id: Id,
        caption: String,
    }
    let keep = |index: u64, annotation: Annotation| {
        let id = if annotation.id.0.is_empty() { index.to_string() } else { annotation.id.0 };
        let place = format_args!("annotations[{index}]");
        captions.push(&annotation.caption, Origin { id: &id, image: &annotation.image_id.0, place: &place });
    };
    stream_entries(text, "annotations", keep)
}

/// The sentences of the images of one split, in the order of the file.
pub(super) fn read_karpathy<R: Read>(text: TextReader<R>, split: Option<&str>, captions: &mut Collector) -> Result<()> {
    #[derive(Deserialize)]
    struct Image {
        split: String,
        #[serde(default)]
        cocoid: Id,
        #[serde(default)]
        filename: Id,
        #[serde(default)]
        imgid: Id,
        sentences: Vec<Sentence>,
    }
    #[derive(Deserialize)]
    struct Sentence {
        raw: String,
        #[serde(default)]
        sentid: Id,
    }
    let path = text.path();
    let mut splits = BTreeMap::new();
    let keep = |index: u64, entry: Image| {
        let wanted = match split {
            Some("train") => entry.split == "train" || entry.split == "restval",
            Some("all") => true,
            other => other == Some(entry.split.as_str()),
        };
        if splits.len() < 16 || splits.contains_key(&entry.split) {
            *splits.entry(entry.split).or_insert(0u64) += 1;
        }
        let image = [entry.cocoid.0, entry.filename.0, entry.imgid.0].into_iter().find(|name| !name.is_empty());
        let image = image.unwrap_or_default();
        for (number, sentence) in entry.sentences.iter().enumerate().filter(|_| wanted) {
            let place = format_args!("images[{index}].sentences[{number}]");
            captions.push(&sentence.raw, Origin { id: &sentence.sentid.0, image: &image, place: &place });
        }
    };
    stream_entries(text, "images", keep)?;
    let has_split = match split {
        None => false,
        Some("all") => true,
        Some("train") => splits.contains_key("train") || splits.contains_key("restval"),
        Some(other) => splits.contains_key(other),
    };
    if has_split || splits.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = splits.iter().map(|(name, images)| format!("{name} ({images})")).collect();
    let problem = split.map_or("a split must be chosen".into(), |split| format!("no split `{split}`"));
    let message = format!("{}: {problem}: the splits and their images are {}", path.display(), found.join(", "));
    Err(Error::usage(message, "choose a split; `train` includes `restval`, `all` takes everything"))
}

/// An id: an integer or a string, kept as text. Empty when missing or null.
#[derive(Default)]
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Id, D::Error> {
        struct AnyId;
        impl Visitor<'_> for AnyId {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an id, which is an integer or a string")
            }

            fn visit_u64<E>(self, id: u64) -> std::result::Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E>(self, id: i64) -> std::result::Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_str<E>(self, id: &str) -> std::result::Result<Id, E> {
                Ok(Id(id.into()))
            }

            fn visit_unit<E>(self) -> std::result::Result<Id, E> {
                Ok(Id::default())
            }
        }
        deserializer.deserialize_any(AnyId)
    }
}

/// Calls `keep` with the number, from 0, and the value of each entry of the array under `key` of the top-level object, or of
/// the top-level array.
fn stream_entries<R: Read, T: for<'de> Deserialize<'de>>(text: TextReader<R>, key: &str, keep: impl FnMut(u64, T)) -> Result<()> {
    let path = text.path();
    let mut parser = serde_json::Deserializer::from_reader(text.into_source());
    let mut entries = Entries { keep, read: 0, place: Place::Before, item: PhantomData };
    let parsed = parser.deserialize_any(Document { key, entries: &mut entries }).and_then(|()| parser.end());
    match (parsed, entries.place) {
        (Ok(()), Place::Before) => {
            let message = format!("has no key `{key}`: if this is another format, name it");
            Err(Error::format(path, "", message))
        }
        (Ok(()), _) => Ok(()),
        (Err(cause), _) if cause.is_io() => Err(read_error(path, cause.into())),
        (Err(cause), Place::Inside) => Err(Error::format(path, format!("{key}[{}]", entries.read), explain(&cause))),
        (Err(cause), _) => Err(Error::format(path, format!("line {}", cause.line()), explain(&cause))),
    }
}

/// Where a parser is, relative to the array of entries.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Before,
    Inside,
    After,
}

/// The array of entries, each handed to `keep` as soon as it is read.
struct Entries<T, F> {
    keep: F,
    read: u64,
    place: Place,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(u64, T)> DeserializeSeed<'de> for &mut Entries<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(u64, T)> Visitor<'de> for &mut Entries<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects with captions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> std::result::Result<(), A::Error> {
        self.place = Place::Inside;
        while let Some(entry) = entries.next_element()? {
            (self.keep)(self.read, entry);
            self.read += 1;
        }
        self.place = Place::After;
        Ok(())
    }
}

/// The top level of a file.
struct Document<'a, T, F> {
    key: &'a str,
    entries: &'a mut Entries<T, F>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(u64, T)> Visitor<'de> for Document<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object with the array `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key != self.key {
                map.next_value::<IgnoredAny>()?;
            } else if self.entries.place == Place::Before {
                map.next_value_seed(&mut *self.entries)?;
            } else {
                return Err(serde::de::Error::custom(format_args!("the key `{key}` appears twice")));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> std::result::Result<(), A::Error> {
        self.entries.visit_seq(entries)
    }
}
