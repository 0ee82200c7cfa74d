"""Writes src/weights/assets/clip_merges.bin from the merge list of CLIP's tokenizer.

The list, bpe_simple_vocab_16e6.txt.gz, comes with the open_clip_torch package (checked with 3.3.0). CLIP uses the first
48,894 of its merges. A vocabulary is 256 bytes, the same 256 ending a word, one token for each merge in order, and two
special tokens; so a merge is stored as the ids of its two halves, as little-endian u16.

usage: python tools/clip_merges.py src/weights/assets/clip_merges.bin
"""

import gzip
import os
import struct
import sys

import open_clip
from open_clip.tokenizer import bytes_to_unicode

MERGES = 49408 - 2 * 256 - 2


def main(out):
    path = os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        lines = f.read().split("\n")[1 : MERGES + 1]
    letters = list(bytes_to_unicode().values())
    ids = {token: i for i, token in enumerate(letters + [c + "</w>" for c in letters])}
    with open(out, "wb") as f:
        for line in lines:
            left, right = line.split()
            f.write(struct.pack("<HH", ids[left], ids[right]))
            ids[left + right] = len(ids)
    assert len(ids) == 49406, len(ids)


if __name__ == "__main__":
    main(sys.argv[1])
