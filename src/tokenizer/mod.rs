//! CLIP's byte-pair tokenizer: a caption becomes the 77 ids that the text encoder reads.
//!
//! The text goes through these stages, which are those of `CLIPTokenizer` in transformers 5.23:
//!
//! 1. special tokens written in the text are cut out: those marked `normalized` after stage 2, the others before it;
//! 2. Unicode NFC, every run of white space becomes one space, lower case;
//! 3. words: a contraction (`'s`), a run of letters, ONE digit, or a run of anything else that is not white space;
//! 4. the UTF-8 bytes of a word as printable characters (GPT-2's table), the last one marked `</w>`;
//! 5. byte-pair merges, in the order of the merge list;
//! 6. begin-of-text, ids, end-of-text, padding. A long caption loses its last words, never the end-of-text id.
//!
//! Unlike OpenAI's original code, no HTML entity is decoded and no broken encoding is repaired: `&amp;` stays five characters.
//!
//! Which id pads depends on the model: Stable Diffusion 1.x repeats end-of-text, 2.x uses id 0, the token `!`. Since every
//! special token is cut out of the text as in stage 1, a `!` in a caption is id 0 for a 2.x model, in transformers and here.

mod files;
mod special;

use std::path::{Path, PathBuf};

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use self::files::Files;
use crate::{Error, Result};

/// Length of the text encoder's input when the folder does not say: CLIP's 77.
pub const DEFAULT_MAX_LENGTH: usize = 77;

/// Stage 3, as in OpenAI's `simple_tokenizer.py`: contractions, letters, one digit, anything else.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Marks the last piece of a word, in the vocabulary and in the merges.
const END_OF_WORD: &str = "</w>";

/// A caption as the text encoder reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Exactly [`ClipTokenizer::max_length`] ids: begin, words, end, padding.
    pub ids: Vec<u32>,
    /// Ids that the whole caption needs, begin and end included, before truncation and padding.
    pub tokens: usize,
    /// True when the caption did not fit, so that its last words are not in `ids`.
    pub truncated: bool,
}

/// The tokenizer of one model folder. Cheap to share between threads; encoding takes `&self`.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    folder: PathBuf,
    max_length: usize,
    vocab_size: u32,
    bos: u32,
    eos: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// Opens the `tokenizer` folder of a model: `tokenizer.json`, or else `vocab.json` and `merges.txt`; and, where present,
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` for the special tokens and the length.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Format`] for a malformed one, a token or id given twice, or a
    /// merge of unknown tokens; [`Error::Config`] for a setting that is wrong or not supported.
    pub fn open(folder: &Path) -> Result<ClipTokenizer> {
        let files = Files::read(folder)?;
        let unbuildable = |cause: tokenizers::Error| Error::format(folder, "", format!("not a usable CLIP tokenizer: {cause}"));
        let mut tokenizer = stages(files.vocab, files.merges, files.special.unk.content.clone()).map_err(unbuildable)?;
        tokenizer.add_tokens(files.special.in_order.iter().cloned()).map_err(unbuildable)?;

        let id_of = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| Error::format(folder, format!("token `{token}`"), "has no id"))
        };
        for (declared, token) in &files.special.declared {
            let actual = id_of(&token.content)?;
            if actual != *declared {
                let message =
                    format!("declared as id {declared}, but it is id {actual}: ids of added tokens follow the vocabulary's");
                return Err(Error::config(&files.special.source, format!("added token `{}`", token.content), message));
            }
        }
        let special = &files.special;
        let (bos, eos, pad) = (id_of(&special.bos.content)?, id_of(&special.eos.content)?, id_of(&special.pad.content)?);
        let vocab_size = special.declared.keys().fold(files.vocab_size, |size, id| size.max(id + 1));
        Ok(ClipTokenizer { tokenizer, folder: folder.to_path_buf(), max_length: files.max_length, vocab_size, bos, eos, pad })
    }

    /// The ids of a caption, truncated or padded to [`max_length`](Self::max_length). An empty caption is begin, end, padding.
    ///
    /// # Errors
    /// [`Error::Format`] naming the folder, when the vocabulary has no way to write a character of the text.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let words = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|cause| Error::format(&self.folder, "", format!("cannot encode a caption: {cause}")))?;
        let words = words.get_ids();
        let kept = words.len().min(self.max_length - 2);
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos);
        ids.extend_from_slice(&words[..kept]);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        Ok(Encoding { ids, tokens: words.len() + 2, truncated: kept < words.len() })
    }

    /// Ids in every [`Encoding`]: `model_max_length` of the folder, 77 if it does not say.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the largest id, so the number of rows the text encoder's embedding must have at least.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The begin-of-text id, first of every encoding.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The end-of-text id, right after the last word.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills the rest.
    pub fn pad(&self) -> u32 {
        self.pad
    }
}

/// Stages 2 to 5. The parts of a merge and its result must be in `vocab`, else the `tokenizers` crate panics.
fn stages(vocab: Vec<(String, u32)>, merges: Vec<(String, String)>, unk: String) -> tokenizers::Result<Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
        .unk_token(unk)
        .end_of_word_suffix(END_OF_WORD.into())
        .build()?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), ByteLevel::new(false, true, true).into()])));
    Ok(tokenizer)
}
