"""A byte-level BPE tokenizer in CLIP's files, whose merges make one token of every word of the captions."""

import json

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32
# CLIP's split of a text into words (openai/CLIP, simple_tokenizer.py).
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_letters():
    """The character that stands for each byte (GPT-2): printable bytes first, as themselves, the others from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in own] + [chr(256 + n) for n in range(256 - len(own))]


def train(captions):
    """Merges in order of their priority, each "left right"."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Room for more merges than the words can give: training ends when each word is one token.
    trainer = trainers.BpeTrainer(vocab_size=8192, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(captions, trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [" ".join(merge) if isinstance(merge, list) else merge for merge in merges]


def write(folder, merges):
    """vocab.json, merges.txt and the settings, as CLIP's tokenizer has them."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges] + [START, END]
    if len(set(tokens)) != len(tokens):
        raise SystemExit("two merges make the same token")

    def token(text):
        return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    def added(text):
        return {**token(text), "__type": "AddedToken"}

    special = {"bos_token": token(START), "eos_token": token(END), "pad_token": END, "unk_token": token(END)}
    config = {
        "add_prefix_space": False, "bos_token": added(START), "do_lower_case": True, "eos_token": added(END), "errors": "replace",
        "model_max_length": MAX_TOKENS, "pad_token": END, "tokenizer_class": "CLIPTokenizer", "unk_token": added(END),
    }  # fmt: skip
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def load(folder):
    return CLIPTokenizer.from_pretrained(folder)


def encode(tokenizer, captions, longest=MAX_TOKENS):
    """Token ids [N, 32] int64, filled up with the end token; captions that are longer are an error."""
    ids = tokenizer(list(captions), padding="max_length", max_length=longest, truncation=False, return_tensors="pt").input_ids
    if ids.shape[1] > longest:
        raise SystemExit(f"a caption has {ids.shape[1]} tokens, more than the model's {longest}")
    return ids
