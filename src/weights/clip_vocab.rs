//! The files of CLIP's tokenizer, from a compact copy of its merge list (origin and license: `assets/README.md`).

use crate::files::write_atomic_from;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// For each merge, in order, the ids of its two halves as little-endian u16.
const MERGES: &[u8] = include_bytes!("assets/clip_merges.bin");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// CLIP's vocabulary and merges as text.
struct Vocabulary {
    /// Tokens by id: 256 bytes, the same ending a word, one for each merge, start and end.
    tokens: Vec<String>,
    /// Pairs of tokens, in order of their priority.
    merges: Vec<String>,
}

impl Vocabulary {
    fn clip() -> Result<Vocabulary> {
        let letters = byte_letters();
        let mut tokens: Vec<String> = letters.iter().map(|c| c.to_string()).collect();
        tokens.extend(letters.iter().map(|c| format!("{c}</w>")));
        let mut merges = Vec::with_capacity(MERGES.len() / 4);
        for pair in MERGES.as_chunks::<4>().0 {
            let half = |low, high| tokens.get(usize::from(u16::from_le_bytes([low, high])));
            let (Some(left), Some(right)) = (half(pair[0], pair[1]), half(pair[2], pair[3])) else {
                return Err(Error::Internal { op: "clip vocabulary", message: "a merge of tokens that do not exist yet".into() });
            };
            let (merge, token) = (format!("{left} {right}"), format!("{left}{right}"));
            merges.push(merge);
            tokens.push(token);
        }
        tokens.extend([START.into(), END.into()]);
        Ok(Vocabulary { tokens, merges })
    }
}

/// The character that stands for each byte in a byte-level vocabulary (GPT-2), in order of token ids: printable bytes stand for
/// themselves and come first, the others take the characters from U+0100 on.
fn byte_letters() -> Vec<char> {
    let printable = |b: &u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=255u8).filter(printable).map(char::from);
    let others = (0..=255u8).filter(|b| !printable(b)).count() as u32;
    own.chain((0..others).filter_map(|n| char::from_u32(256 + n))).collect()
}

/// Writes `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json` as transformers reads them. `pad` is
/// the token that fills up short captions.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written.
pub(super) fn write_tokenizer(folder: &Path, pad: &str) -> Result<()> {
    let vocabulary = Vocabulary::clip()?;
    let ids: Map<String, Value> = vocabulary.tokens.into_iter().zip(0..).map(|(token, id)| (token, Value::from(id))).collect();
    write_atomic_from(&folder.join("vocab.json"), |file| Ok(serde_json::to_writer(file, &ids)?))?;
    write_atomic_from(&folder.join("merges.txt"), |file| {
        writeln!(file, "#version: 0.2")?;
        vocabulary.merges.iter().try_for_each(|merge| writeln!(file, "{merge}"))
    })?;

    let token = |text: &str| json!({"content": text, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false});
    let special = json!({"bos_token": token(START), "eos_token": token(END), "pad_token": pad, "unk_token": token(END)});
    let added = |text: &str| {
        let mut value = token(text);
        value["__type"] = "AddedToken".into();
        value
    };
    let config = json!({
        "add_prefix_space": false, "bos_token": added(START), "do_lower_case": true, "eos_token": added(END), "errors": "replace",
        "model_max_length": 77, "pad_token": pad, "tokenizer_class": "CLIPTokenizer", "unk_token": added(END),
    });
    for (name, value) in [("special_tokens_map.json", special), ("tokenizer_config.json", config)] {
        write_atomic_from(&folder.join(name), |file| Ok(serde_json::to_writer_pretty(file, &value)?))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabulary_has_known_tokens_at_their_ids() {
        let clip = Vocabulary::clip().unwrap();
        assert_eq!((clip.tokens.len(), clip.merges.len()), (49408, 48894));
        let known = [(0, "!"), (256, "!</w>"), (320, "a</w>"), (539, "of</w>"), (1125, "photo</w>"), (2368, "cat</w>")];
        for (id, token) in known {
            assert_eq!(clip.tokens[id], token);
        }
        assert_eq!(clip.merges[0], "i n");
        assert_eq!(clip.merges[48893], "jeky ll</w>");
        assert_eq!(clip.tokens[49406..], [START, END]);
        let distinct: std::collections::HashSet<_> = clip.tokens.iter().collect();
        assert_eq!(distinct.len(), 49408);
    }

    #[test]
    fn bytes_have_distinct_letters() {
        let letters = byte_letters();
        assert_eq!((letters.len(), letters[0], letters[93], letters[94]), (256, '!', '~', '¡'));
        assert_eq!(letters[188], 'Ā'); // byte 0
    }
}
