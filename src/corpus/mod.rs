//! Caption files: one reader for every format in which people keep captions.
//!
//! | format | what it is | caption | id | image |
//! |---|---|---|---|---|
//! | [`Txt`](Format::Txt) | one caption a line | the line | line number | - |
//! | [`Tsv`](Format::Tsv) | cells between tabs, no quoting | a column | line number | - |
//! | [`Csv`](Format::Csv) | RFC 4180, a header line | a column | line number | - |
//! | [`Jsonl`](Format::Jsonl) | one JSON object a line | `caption`, `text` or `prediction` | `id`, else line number | `image_id`, `image` |
//! | [`Coco`](Format::Coco) | COCO annotations or results | `annotations[].caption` | `id` | `image_id` |
//! | [`Karpathy`](Format::Karpathy) | `dataset_coco.json` and its kin | `images[].sentences[].raw` | `sentid` | `cocoid`, `filename` or `imgid` |
//!
//! Captions keep the order of the file, and their position is their identity: sample `i` of a run is caption `i`. So nothing is
//! skipped silently. A caption that is empty or only white space is an error which names its place, blank lines of every
//! line-based format included. Texts are kept as written, apart from a byte-order mark and the `\r` of a `\r\n`.
//!
//! All files must be UTF-8; an invalid byte is reported with its line and position. Files are read as a stream, into one
//! buffer of texts: the 414,113 captions of COCO take about 40 MB.

mod detect;
mod json;
mod table;
mod text;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use self::text::TextReader;
use crate::files::hex;
use crate::{Error, Result};

/// The longest caption accepted, in bytes. CLIP reads 77 tokens, some 300 bytes of English; a longer "caption" than this is a
/// sign of a wrong file.
pub const MAX_CAPTION_BYTES: usize = 64 << 10;

/// The largest file accepted, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

/// The longest id or image name accepted, in bytes.
const MAX_ID_BYTES: usize = 4 << 10;

/// Problems of single captions that an error spells out; of the others it gives the number.
const PROBLEMS_SHOWN: usize = 5;

/// How captions are laid out in a file; see the [module](self) for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One caption a line.
    Txt,
    /// Tab-separated cells, as in Conceptual Captions.
    Tsv,
    /// Comma-separated cells with quoting.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// COCO annotations (`annotations[]`) or COCO results (an array).
    Coco,
    /// Karpathy's splits of COCO, Flickr8k and Flickr30k.
    Karpathy,
}

impl Format {
    /// Every format with its name on the command line.
    pub const NAMES: [(&str, Format); 6] = [
        ("txt", Format::Txt),
        ("tsv", Format::Tsv),
        ("csv", Format::Csv),
        ("jsonl", Format::Jsonl),
        ("coco", Format::Coco),
        ("karpathy", Format::Karpathy),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = Format::NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Format> {
        let found = Format::NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
        found.ok_or_else(|| {
            let names = Format::NAMES.map(|(name, _)| name).join(", ");
            Error::usage(format!("`{text}` is not a caption format"), format!("use one of {names}"))
        })
    }
}

/// How to read a caption file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorpusOptions {
    /// The format; `None` finds it from the extension and the first bytes.
    pub format: Option<Format>,
    /// Karpathy files only, and needed there: `train` (which includes `restval`), `restval`, `val`, `test` or `all`.
    pub split: Option<String>,
    /// Tsv, csv and jsonl only: the name of the caption's column or key; for tsv and csv also its number, from 1.
    pub column: Option<String>,
}

/// One caption of a [`Corpus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caption<'a> {
    /// Position in the corpus, from 0.
    pub index: u64,
    /// Its id in the source: the annotation's id, or the number of its line, from 1.
    pub id: &'a str,
    /// The image it describes, where the source says so.
    pub image: Option<&'a str>,
    /// The caption as written; never empty or only white space.
    pub text: &'a str,
}

/// The captions of one file, in its order.
#[derive(Debug, Clone)]
pub struct Corpus {
    format: Format,
    texts: Strings,
    ids: Strings,
    images: Strings,
}

impl Corpus {
    /// Reads a caption file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Format`] naming the line or entry when it is malformed, not UTF-8, or
    /// holds an empty caption or none at all; [`Error::Usage`] when the options do not suit it.
    pub fn open(path: &Path, options: &CorpusOptions) -> Result<Corpus> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Corpus::read(file, path, options)
    }

    /// Reads captions from any source, such as standard input; `path` serves for its extension and in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(source: impl Read, path: &Path, options: &CorpusOptions) -> Result<Corpus> {
        let text = TextReader::start(source, path)?;
        let format = options.format.unwrap_or_else(|| detect::format(path, text.head()));
        check_options(path, format, options)?;
        let mut captions = Collector::new(path, format);
        match format {
            Format::Txt => table::read_txt(text, &mut captions)?,
            Format::Tsv => table::read_tsv(text, options.column.as_deref(), &mut captions)?,
            Format::Csv => table::read_csv(text, options.column.as_deref(), &mut captions)?,
            Format::Jsonl => json::read_jsonl(text, options.column.as_deref(), &mut captions)?,
            Format::Coco => json::read_coco(text, &mut captions)?,
            Format::Karpathy => json::read_karpathy(text, options.split.as_deref(), &mut captions)?,
        }
        captions.finish()
    }

    /// The format it was read as.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of captions, at least 1.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Always false: a file without captions is an error.
    pub fn is_empty(&self) -> bool {
        self.texts.len() == 0
    }

    /// Caption `index`, from 0; `None` past the end.
    pub fn get(&self, index: usize) -> Option<Caption<'_>> {
        (index < self.len()).then(|| self.caption(index))
    }

    /// All captions in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Caption<'_>> {
        (0..self.len()).map(|index| self.caption(index))
    }

    /// `index` must be below the length, which is that of all three lists.
    fn caption(&self, index: usize) -> Caption<'_> {
        let image = self.images.at(index);
        let image = (!image.is_empty()).then_some(image);
        Caption { index: index as u64, id: self.ids.at(index), image, text: self.texts.at(index) }
    }

    /// SHA-256, in hexadecimal, of the texts, ids and images in order: equal for equal captions, whatever the file's format.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for list in [&self.texts, &self.ids, &self.images] {
            hasher.update((list.len() as u64).to_le_bytes());
            for end in &list.ends {
                hasher.update((*end as u64).to_le_bytes());
            }
            hasher.update(&list.bytes);
        }
        hex(&hasher.finalize())
    }
}

fn check_options(path: &Path, format: Format, options: &CorpusOptions) -> Result<()> {
    let unsuited = |option: &str, formats: &str| {
        let message = format!("{}: {option} does not apply to a {format} file", path.display());
        Err(Error::usage(message, format!("{option} is for {formats} files: leave it out, or force the format")))
    };
    if options.split.is_some() && format != Format::Karpathy {
        return unsuited("a split", "karpathy");
    }
    if options.column.is_some() && !matches!(format, Format::Tsv | Format::Csv | Format::Jsonl) {
        return unsuited("a caption column", "tsv, csv and jsonl");
    }
    Ok(())
}

/// Many strings in one buffer.
#[derive(Debug, Clone, Default)]
struct Strings {
    bytes: String,
    /// Where each string ends in `bytes`.
    ends: Vec<usize>,
}

impl Strings {
    fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn at(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// Where a caption comes from, apart from its text.
struct Origin<'a> {
    id: &'a str,
    image: &'a str,
    /// "line 3", "annotations[2]"
    place: &'a dyn fmt::Display,
}

/// Gathers captions and their problems, so that one error can report several.
struct Collector<'p> {
    path: &'p Path,
    corpus: Corpus,
    problems: u64,
    /// The first few: place and what is wrong.
    shown: Vec<(String, &'static str)>,
}

impl<'p> Collector<'p> {
    fn new(path: &'p Path, format: Format) -> Collector<'p> {
        let corpus = Corpus { format, texts: Strings::default(), ids: Strings::default(), images: Strings::default() };
        Collector { path, corpus, problems: 0, shown: Vec::new() }
    }

    fn push(&mut self, text: &str, origin: Origin) {
        let problem = if text.trim().is_empty() {
            "the caption is empty"
        } else if text.len() > MAX_CAPTION_BYTES {
            "the caption is longer than 64 KiB"
        } else if origin.id.len() > MAX_ID_BYTES || origin.image.len() > MAX_ID_BYTES {
            "the id is longer than 4 KiB"
        } else {
            self.corpus.texts.push(text);
            self.corpus.ids.push(origin.id);
            self.corpus.images.push(origin.image);
            return;
        };
        self.problems += 1;
        if self.shown.len() < PROBLEMS_SHOWN {
            self.shown.push((origin.place.to_string(), problem));
        }
    }

    fn finish(mut self) -> Result<Corpus> {
        let Some((place, problem)) = self.shown.first() else {
            if self.corpus.is_empty() {
                return Err(Error::format(self.path, "", format!("holds no captions (read as {})", self.corpus.format)));
            }
            for list in [&mut self.corpus.texts, &mut self.corpus.ids, &mut self.corpus.images] {
                list.shrink();
            }
            return Ok(self.corpus);
        };
        let mut message = (*problem).to_string();
        if self.problems > 1 {
            let places: Vec<&str> = self.shown.iter().map(|(place, _)| place.as_str()).collect();
            let more = if self.problems > self.shown.len() as u64 { ", ..." } else { "" };
            message.push_str(&format!(" ({} captions have a problem: {}{more})", self.problems, places.join(", ")));
        }
        message.push_str("; correct or remove it");
        Err(Error::format(self.path, place.clone(), message))
    }
}
