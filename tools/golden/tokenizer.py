"""Writes tests/golden/tokenizer.json: texts, and the token ids that transformers' CLIPTokenizer gives for them.

    python tools/golden/tokenizer.py [--vocab bpe_simple_vocab_16e6.txt.gz]

Needs transformers, and open_clip_torch for CLIP's merges unless --vocab names them.
Each variant is a tokenizer folder: its settings are part of the golden file, so that the Rust test builds the same folder.
"""

import argparse
import json
import tempfile
from pathlib import Path

import tokenizers
import transformers

from clip_vocab import default_vocab, merges_and_vocab, write_vocab

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def matched_after_normalization(content):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}


def as_config(token):
    return {"__type": "AddedToken", **token}


# Settings in the forms found in published models.
VARIANTS = {
    # Stable Diffusion 1.x: pads with the end-of-text token.
    "sd1": {
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "bos_token": as_config(matched_after_normalization(BOS)),
            "do_lower_case": True,
            "eos_token": as_config(matched_after_normalization(EOS)),
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": EOS,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": as_config(matched_after_normalization(EOS)),
        },
        "special_tokens_map.json": {
            "bos_token": matched_after_normalization(BOS),
            "eos_token": matched_after_normalization(EOS),
            "pad_token": EOS,
            "unk_token": matched_after_normalization(EOS),
        },
    },
    # Stable Diffusion 2.x: special_tokens_map.json overrides the configuration and pads with "!", id 0.
    "sd2": {
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "bos_token": as_config(matched_after_normalization(BOS)),
            "do_lower_case": True,
            "eos_token": as_config(matched_after_normalization(EOS)),
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": EOS,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": as_config(matched_after_normalization(EOS)),
        },
        "special_tokens_map.json": {
            "bos_token": matched_after_normalization(BOS),
            "eos_token": matched_after_normalization(EOS),
            "pad_token": "!",
            "unk_token": matched_after_normalization(EOS),
        },
    },
    # As transformers 4 saves it since 4.34: all special tokens in added_tokens_decoder; the map is ignored.
    "decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "0": {**matched_after_normalization("!"), "normalized": False, "special": True},
                "49406": {**matched_after_normalization(BOS), "special": True},
                "49407": {**matched_after_normalization(EOS), "normalized": False, "special": True},
                "49408": {**matched_after_normalization("<My-Cat>"), "lstrip": True, "rstrip": True, "special": False},
                "49409": {**matched_after_normalization("zyx"), "single_word": True, "special": False},
            },
            "bos_token": BOS,
            "eos_token": EOS,
            "model_max_length": 24,
            "pad_token": "!",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": EOS,
        },
        "special_tokens_map.json": {"pad_token": EOS},
    },
    # No settings at all: CLIP's own.
    "bare": {},
}

TEXTS = [
    "a photo of a cat",
    "A PHOTO of a Cat",
    "",
    " ",
    " \t\r\n\u00a0\u2003\u3000 ",
    "  two   spaces\tand a\ttab\nand a line ",
    "a dog, a cat; and (maybe) a bird... no?!",
    "wow!!! stop! !",
    "it's they're I've I'm we'll he'd can't DON'T 'S rock'n'roll dogs' 'quoted'",
    "\u2018curly\u2019 it\u2019s \u201cquotes\u201d",
    "in 1999, 12345 people paid $3.50 for 50% of x2 4k h2o",
    "\u00bd cup, x\u00b2, \u2167, \u0663\u0664, \u4e09 1st 2nd",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "\u0130stanbul I\u0307 \u1e9e STRASSE stra\u00dfe \u01c5 \ufb01sh \u03a3\u0391\u03a3",
    "\u4e00\u53ea\u732b\u5750\u5728\u6c99\u53d1\u4e0a\u3002",
    "\u732b\u304c\u30bd\u30d5\u30a1\u306b\u5ea7\u3063\u3066\u3044\u308b \uff21\uff22\uff23\uff11\uff12",
    "\uac15\uc544\uc9c0 \u1100\u1161\u11bc",
    "\u0440\u044b\u0436\u0438\u0439 \u041a\u041e\u0422 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "a \U0001f431 and \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "zero\u200bwidth \u200cnon\u200djoin \ufeffbom\u2060word soft\u00adhyphen",
    "control \x00\x01\x07\x1b[31m \x7f\x85 \u2028 \u2029 end",
    "tom &amp; jerry &lt;b&gt; &#39;x&#39; &amp;amp; <br/> http://example.org/a_b?c=1#d",
    "snake_case kebab-case camelCase a/b\\c {x} [y] ~`^ @user #tag",
    "\u212a\u00b5\u2126 \u2460\u3392 \U0001d49c \u0958",
    "\ufffd \ufdd0 \uffff \U0010ffff \ue000",
    "before <|startoftext|> middle <|endoftext|> after<|endoftext|>",
    "<|STARTOFTEXT|> upper <|EndOfText|> mixed <|endoftext |>",
    "my <My-Cat> and <my-cat>s, <MY-CAT>",
    "a zyx, ZYX! zyxw wzyx zyx1 _zyx \u00e9zyx zyx-zyx",
    "</w> low</w> \u0120x",
    "word " * 75,
    "word " * 76,
    "word " * 300,
    "a" * 5000,
    "\u732b" * 400,
    "!" * 200,
    "antidisestablishmentarianism supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis " * 4,
]


def write_folder(folder, settings, merges, vocab):
    write_vocab(folder, merges, vocab)
    for file, content in settings.items():
        (folder / file).write_text(json.dumps(content))


def saved_again(folder, settings, merges, vocab):
    """Fills `folder` with what transformers makes of a folder with `settings`: a tokenizer.json in place of the vocabulary.

    Returns the settings in it; the vocabulary and merges inside tokenizer.json are left empty, for the reader to fill.
    """
    with tempfile.TemporaryDirectory() as original:
        write_folder(Path(original), settings, merges, vocab)
        transformers.CLIPTokenizer.from_pretrained(original).save_pretrained(folder)
    files = {path.name: json.loads(path.read_text()) for path in sorted(folder.iterdir())}
    model = files["tokenizer.json"]["model"]
    assert model["vocab"] == vocab and [" ".join(pair) for pair in model["merges"]] == merges
    model["vocab"], model["merges"] = {}, []
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "tests/golden/tokenizer.json")
    args = parser.parse_args()
    merges, vocab = merges_and_vocab(args.vocab or default_vocab())
    result = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "variants": {},
        "texts": TEXTS,
    }
    for name, settings in {**VARIANTS, "saved": None}.items():
        with tempfile.TemporaryDirectory() as folder:
            if settings is None:
                settings = saved_again(Path(folder), VARIANTS["sd2"], merges, vocab)
            else:
                write_folder(Path(folder), settings, merges, vocab)
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
        length = settings.get("tokenizer_config.json", {}).get("model_max_length", 77)
        cases = []
        for text in TEXTS:
            ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
            assert len(ids) == length
            tokens = len(tokenizer(text).input_ids)
            # Padding is left out here: the reader fills up to `length` with `pad`.
            cases.append({"tokens": tokens, "ids": ids[:tokens]})
            assert ids[tokens:] == [tokenizer.pad_token_id] * (length - tokens)
        result["variants"][name] = {"settings": settings, "length": length, "pad": tokenizer.pad_token_id, "cases": cases}
    text = json.dumps(result, ensure_ascii=True, indent=None, separators=(",", ":"))
    args.out.write_text(text.replace('{"tokens"', '\n{"tokens"').replace('"texts":', '\n"texts":') + "\n")


if __name__ == "__main__":
    main()
