"""Writes tests/golden/builtin: what diffusers and transformers compute with the built-in model.

    pip install -r tools/golden/requirements.txt
    python tools/golden/builtin.py

    expected/pipeline.safetensors   as of tools/golden/models.py, for four captions of the built-in world
    expected/clip.safetensors       pixels [N, 64, 64, 3] u8, ids [N, T] i64 -> image_embeds, text_embeds [N, D], unit length

Weights are read as f32. Versions and the generating command are in the metadata of each file.
"""

import argparse
import json
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from models import run_pipeline, write_tensors

ROOT = Path(__file__).parents[2]
CAPTIONS = [
    "a red star",
    "A large green house to the left of a small yellow boat on the water.",
    "on a sandy beach there are two purple fish and a blue ring",
    "A dark picture of a checkered white heart above an orange tree.",
]
NEGATIVE = "a blurry photo"


def expect_pipeline(folder, tokenizer):
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    encode = tokenizer_of(tokenizer)
    return run_pipeline(pipe, encode(CAPTIONS), encode([NEGATIVE]), encode([""]), (16, 24))


def expect_clip(folder, tokenizer):
    """Features of noise in blocks of 8 x 8, a patch each: pictures of which every value counts."""
    model = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    config = json.loads((folder / "clip/preprocessor_config.json").read_text())
    blocks = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(3)).float()
    grain = torch.randint(-30, 31, (4, 3, 64, 64), generator=torch.Generator().manual_seed(4))
    pixels = (blocks.repeat_interleave(8, 2).repeat_interleave(8, 3) + grain).clamp(0, 255)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("image_mean", "image_std"))
    ids = tokenizer_of(tokenizer)(CAPTIONS)
    found = model(input_ids=ids, pixel_values=(pixels * config["rescale_factor"] - mean) / std)
    return {
        "pixels": pixels.permute(0, 2, 3, 1).to(torch.uint8), "ids": ids,
        "image_embeds": found.image_embeds, "text_embeds": found.text_embeds,
    }  # fmt: skip


def tokenizer_of(tokenizer):
    return lambda texts: tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "src/weights/assets/builtin")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/golden/builtin")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    origin = {
        "made_by": "tools/golden/builtin.py", "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(args.model / "tokenizer")
    with torch.no_grad():
        for name, expect in [("pipeline", expect_pipeline), ("clip", expect_clip)]:
            write_tensors(args.out / f"expected/{name}.safetensors", expect(args.model, tokenizer), {"origin": json.dumps(origin)})


if __name__ == "__main__":
    main()
