"""Writes tests/golden/token_ids.json: digests of the ids that transformers' CLIPTokenizer gives for real captions.

    tools/corpus/fetch
    python tools/corpus/token_ids.py [--vocab bpe_simple_vocab_16e6.txt.gz]

The captions are the first 20,000 of COCO 2014 train, in the order of the file; the tokenizer is that of Stable Diffusion 1.x.
For each 1,000 captions: the SHA-256 of their ids [1000, 77] as little-endian 16-bit integers. Needs transformers and numpy, and
open_clip_torch for CLIP's merges unless --vocab names them. With --block N it prints the ids of that block, to find a difference.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy
import tokenizers
import transformers

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/golden"))
from clip_vocab import default_vocab, merges_and_vocab, write_vocab  # noqa: E402

CAPTIONS, BLOCK, LENGTH = 20_000, 1_000, 77


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--corpus", type=Path, default=ROOT / "target/corpus/captions_train2014.json")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/golden/token_ids.json")
    parser.add_argument("--block", type=int, help="print the ids of this block, one caption a line, and write nothing")
    args = parser.parse_args()
    captions = [entry["caption"] for entry in json.loads(args.corpus.read_text(encoding="utf-8"))["annotations"][:CAPTIONS]]
    with tempfile.TemporaryDirectory() as folder:
        write_vocab(Path(folder), *merges_and_vocab(args.vocab or default_vocab()))
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True).input_ids
    ids = numpy.array(ids, dtype="<u2").reshape(CAPTIONS // BLOCK, BLOCK, LENGTH)
    if args.block is not None:
        for row in ids[args.block]:
            print(*row)
        return
    result = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "corpus": args.corpus.name,
        "length": LENGTH,
        "block": BLOCK,
        "sha256": [hashlib.sha256(block.tobytes()).hexdigest() for block in ids],
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
