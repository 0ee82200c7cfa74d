"""Writes tests/golden/builtin: what diffusers and transformers compute with the built-in model.

    pip install -r tools/golden/requirements.txt
    python tools/golden/builtin.py

    expected/pipeline.safetensors                               as of tools/golden/models.py, for captions of the built-in world; and
                                                                latents.bf16.SCHEDULER.20, with matrix products in bf16 (autocast)
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
from scheduler_table import make_scheduler

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


def bf16_latents(pipe, base, results):
    """Final latents of the prompts of `run_pipeline`, as torch rounds the operands of products."""
    start = results["init_latents"]
    height, width = (side * pipe.vae_scale_factor for side in start.shape[2:])
    with torch.autocast("cpu", torch.bfloat16):
        embeds = pipe.text_encoder(results["ids.prompts"])[0].float()
        nothing = pipe.text_encoder(results["ids.empty"].expand(len(embeds), -1))[0].float()
        for name in ("pndm", "dpm++", "unipc"):
            pipe.scheduler = make_scheduler(name, base)
            latents = pipe(
                prompt_embeds=embeds, negative_prompt_embeds=nothing, latents=start, height=height, width=width,
                num_inference_steps=20, guidance_scale=7.5, output_type="latent",
            ).images  # fmt: skip
            yield f"latents.bf16.{name}.20", latents.float()


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
        base = pipe.scheduler
        results = run_pipeline(pipe, ids(CAPTIONS), ids([NEGATIVE]), ids([""]), (16, 24))
        results = {name: tensor for name, tensor in results.items() if not name.startswith("noise.")}  # the tests draw it themselves
        results |= bf16_latents(pipe, base, results)
        write_tensors(args.out / "pipeline.safetensors", results, meta)
        write_features(args.out, clip, tokenizer, preprocess, CAPTIONS, IMAGES, meta)


if __name__ == "__main__":
    main()
