"""CLIP's vocabulary, as the vocab.json and merges.txt that published models hold, from OpenAI's list of merges."""

import gzip
import json
from pathlib import Path

VOCAB_SIZE = 49_408


def default_vocab():
    """The list of merges that the open_clip_torch package carries."""
    import importlib.util

    return Path(importlib.util.find_spec("open_clip").origin).parent / "bpe_simple_vocab_16e6.txt.gz"


def byte_characters():
    """The printable character that stands for each byte, in the order of their ids: GPT-2's table."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def merges_and_vocab(path):
    """All the merges that CLIP uses, and the token-to-id map that follows from their order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    characters = byte_characters()
    merges = lines[1 : VOCAB_SIZE - 2 * len(characters) - 2 + 1]
    tokens = characters + [c + "</w>" for c in characters] + ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(tokens) == VOCAB_SIZE
    return merges, {token: index for index, token in enumerate(tokens)}


def write_vocab(folder, merges, vocab):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
