"""Writes tests/golden/builtin: what diffusers and transformers compute with the built-in model.

    pip install -r tools/golden/requirements.txt
    python tools/golden/builtin.py

    expected/pipeline.safetensors                               as of tools/golden/models.py, for captions of the built-in world
    expected/inputs.json, text.safetensors, vision.safetensors  as of tools/golden/clip.py

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

from clip import write_features
from models import run_pipeline, write_tensors

ROOT = Path(__file__).parents[2]
CAPTIONS = [
    "a red star",
    "A large green house to the left of a small yellow boat on the water.",
    "on a sandy beach there are two purple fish and a blue ring",
    "A dark picture of a checkered white heart above an orange tree.",
]
NEGATIVE = "a blurry photo"
# Width, height, seed.
IMAGES = [(64, 64, 1), (64, 64, 2), (91, 70, 3)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "src/weights/assets/builtin")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/golden/builtin/expected")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    origin = {
        "made_by": "tools/golden/builtin.py", "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }  # fmt: skip
    meta = {"origin": json.dumps(origin)}
    tokenizer = CLIPTokenizer.from_pretrained(args.model / "clip")
    pipe = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32)
    clip = CLIPModel.from_pretrained(args.model / "clip", dtype=torch.float32).eval()
    preprocess = json.loads((args.model / "clip/preprocessor_config.json").read_text())

    def ids(texts):
        return pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids

    with torch.no_grad():
        results = run_pipeline(pipe, ids(CAPTIONS), ids([NEGATIVE]), ids([""]), (16, 24))
        write_tensors(args.out / "pipeline.safetensors", results, meta)
        write_features(args.out, clip, tokenizer, preprocess, CAPTIONS, IMAGES, meta)


if __name__ == "__main__":
    main()
