"""What the exported folder can do: it is read back as any user reads it, in f32 from its f16 weights."""

import json

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPModel

import clip
import tokenizer as bpe
import vae
from data import COLOURS
from logs import say

STEPS = 20
GUIDANCE = (2.0, 3.0, 4.0, 6.0)


def load(out, device):
    pipeline = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, CLIPModel.from_pretrained(out / "clip", dtype=torch.float32).to(device).eval()


def generate(pipeline, captions, guidance, seed=0, batch=50):
    """Pictures [N, 3, 64, 64] f32 in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    parts = [captions[start : start + batch] for start in range(0, len(captions), batch)]
    images = [pipeline(part, num_inference_steps=STEPS, guidance_scale=guidance, generator=generator, output_type="np").images for part in parts]
    return torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).mul(2).sub(1)


def named(model, tokenizer, images):
    """Shares of the pictures of `clip.single_captions` whose kind, and whose colour, CLIP names rightly among all 96 pairs."""
    chosen = clip.nearest_single(model, tokenizer, images)
    truth = torch.arange(len(chosen))
    kind = (chosen // len(COLOURS) == truth // len(COLOURS)).float().mean().item()
    return {"kind": kind, "colour": (chosen % len(COLOURS) == truth % len(COLOURS)).float().mean().item()}


def evaluate(out, split, device, samples):
    """Figures on `split`: retrieval of real pictures, autoencoder, and generated pictures for a range of guidances."""
    pipeline, model = load(out, device)
    tokenizer = bpe.load(out / "clip")
    real = clip.evaluate(split, tokenizer, device)(model)
    figures = {"clip": real, "vae": {"psnr_db": vae.psnr(pipeline.vae, split, device)}, "generated": {}}
    say(f"CLIP, real pictures: {real['retrieval_at_1_of_100']:.1%} of captions find theirs among 100; VAE: {figures['vae']['psnr_db']:.2f} dB")
    captions = split.first_captions(samples)
    text = clip.text_features(model, tokenizer, captions)
    for guidance in GUIDANCE:
        found = clip.retrieval(text, clip.image_features(model, generate(pipeline, captions, guidance).to(device)))
        single = named(model, tokenizer, generate(pipeline, clip.single_captions(), guidance).to(device))
        figures["generated"][guidance] = {"retrieval_at_1_of_100": found, **single}
        say(f"guidance {guidance}: {found:.1%} of captions find their generated picture; kind {single['kind']:.1%}, colour {single['colour']:.1%}")
    best = max(figures["generated"], key=lambda guidance: sum(figures["generated"][guidance].values()))
    figures["best_guidance"] = best
    sheet(out.parent / f"{out.name}-sheet.png", split, pipeline, best, device)
    return figures


def sheet(path, split, pipeline, guidance, device, columns=16):
    """Rows of three: real pictures, the same through the autoencoder, generated from their captions; then kinds by colours."""
    groups = []
    for start in range(0, min(len(split), 4 * columns) - columns + 1, columns):
        real = split.pixels(torch.arange(start, start + columns), device)
        with torch.no_grad():
            decoded = pipeline.vae.decode(pipeline.vae.encode(real).latent_dist.mean).sample.clamp(-1, 1)
        captions = [caption[0] for caption in split.captions[start : start + columns]]
        groups += [real.cpu(), decoded.cpu(), generate(pipeline, captions, guidance)]
    groups.append(generate(pipeline, clip.single_captions(), guidance))
    tiles = torch.cat(groups).add(1).mul(127.5).round().clamp(0, 255).byte()
    rows = tiles.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray(rows.contiguous().numpy()).save(path)
    say(f"{path}: real, decoded and generated pictures")


def write_record(out, record):
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
