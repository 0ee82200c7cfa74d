"""Trains the small models of the built-in world, on pictures and captions that `syntic tinyworld` draws.

    python tools/tinyworld/train.py --syntic target/release/syntic --data DIR --work DIR --out DIR

CLIP first; its text tower, frozen, then tells the generator what to draw; the generator works on the latents of the autoencoder.
Run again after an interruption, it goes on where it was. `--scale 0.01` tries everything out in a few minutes.
"""

import argparse
import json
import platform
import time
from functools import partial
from pathlib import Path

import diffusers
import torch
import transformers

import clip
import data
import evaluate
import export
import loop
import muon
import tokenizer as bpe
import unet
import vae
from logs import say

PICTURES, HELD_OUT = 50_000, 2_000
STEPS = {"clip": 1200, "vae": 1800, "unet": 8_000}
STAGES = list(STEPS)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--syntic", default="target/release/syntic", help="binary that draws the world, for data that is missing")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds, or is to hold, pretrain/ and val/")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="checkpoints, metrics and loss curves")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the trained models")
    parser.add_argument("--only", choices=STAGES, help="stop after this stage, and export nothing; unet trains the other two first where they are not trained")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="share of the pictures and of the steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main():
    started = time.monotonic()
    args = arguments()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    run = loop.Run(torch.device(args.device), args.work, checkpoint_minutes=5, seconds_per_line=30 * min(1, max(args.scale, 0.05)))
    steps = {stage: max(10, round(args.scale * count)) for stage, count in STEPS.items()}

    train_split = data.load(args.data, "pretrain", max(512, round(args.scale * PICTURES)), args.seed, args.syntic)
    val = data.load(args.data, "val", max(200, round(args.scale * HELD_OUT)), args.seed, args.syntic)
    ids, tokens = tokenize(args.work / "tokenizer", train_split)
    export.check_parameters(clip.build(len(tokens)), vae.build(), unet.build())
    # What stages are made from, beside their code: with other data a checkpoint is not continued.
    seen = loop.digest(json.dumps(train_split.captions), train_split.images, train_split.kinds)
    models, seconds = {}, {"rest": -started}

    def stage(module, model, origin, loss, figures, kin=None):
        name = module.__name__
        recipe = module.recipe(steps[name], args.seed)
        parameters = sum(p.numel() for p in model.parameters())
        say(f"{name}: {parameters / 1e6:.2f} M parameters, {recipe.steps} steps of {recipe.batch}")
        sources = [Path(m.__file__).read_text() for m in (module, data, bpe, loop, muon)]
        begun = time.monotonic()
        models[name], seconds[name] = loop.train(name, model, recipe, len(train_split), loop.digest(origin, *sources), loss, figures, run, kin)
        seconds["rest"] -= time.monotonic() - begun

    def wanted(name):
        return args.only in (None, name, "unet")

    if wanted("clip"):
        torch.manual_seed(args.seed)
        figures = clip.evaluate(val, tokens, run.device)
        pupil = clip.Pupil(clip.build(len(tokens)), clip.words(ids[:4096], len(tokens)).mean(0))
        stage(clip, pupil, seen, clip.loss(train_split, ids, run.device), lambda pupil: figures(pupil.clip), train_split.kin)
        models["clip"] = models["clip"].clip
    if wanted("vae"):
        torch.manual_seed(args.seed)
        stage(vae, vae.build(), seen, vae.loss(train_split, run.device), vae.evaluate(val, run))
    if args.only in ("clip", "vae"):
        return
    origin = loop.digest(seen, models["clip"].text_model, models["vae"])
    latents = whitened_latents(models["vae"], train_split, run)
    text = models["clip"].text_model
    empty = bpe.encode(tokens, [""])[0].to(ids.dtype)
    torch.manual_seed(args.seed)
    figures = partial(generated, models, tokens, val.first_captions(100))
    teach = unet.loss(latents, train_split.kinds, ids, empty, text, run.device)
    stage(unet, unet.Pupil(unet.build()), origin, teach, lambda pupil: figures(pupil.unet))
    models["unet"] = models["unet"].unet
    if args.only:
        return

    export.write(args.out, models["clip"], models["vae"], models["unet"], args.work / "tokenizer")
    figures = evaluate.evaluate(args.out, val, run.device, samples=max(100, round(args.scale * 300)))
    seconds["rest"] += time.monotonic()  # of this call: data, tokenizer, latents, export and figures
    record = {
        "versions": {"python": platform.python_version(), **{m.__name__: m.__version__ for m in (torch, diffusers, transformers)}},
        "world": data.WORLD, "seed": args.seed, "pictures": len(train_split), "steps": steps, "device": args.device, "threads": args.threads,
        "seconds": {name: round(value) for name, value in seconds.items()}, "held_out": figures,
    }  # fmt: skip
    evaluate.write_record(args.out, record)
    say(f"{args.out}: {export.check_size(args.out) / 2**20:.2f} MiB\n{json.dumps(record, indent=2)}")


def tokenize(folder, split):
    """Ids of all captions [N, 5, 32] int16, and the tokenizer, which is trained on them."""
    flat = [caption for captions in split.captions for caption in captions]
    bpe.write(folder, bpe.train(flat))
    tokens = bpe.load(folder)
    ids = bpe.encode(tokens, flat)
    say(f"tokenizer: {len(tokens)} tokens; longest caption: {int((ids != ids[0, -1]).sum(1).max()) + 1} tokens")
    return ids.to(torch.int16).unflatten(0, (len(split), -1)), tokens


def whitened_latents(model, split, run):
    """Latents of the training pictures, of mean 0 and deviation 1 in every channel; `model` is changed to make such."""
    found = vae.latents(model, split, run)
    return vae.whiten(model, found)


def generated(models, tokens, captions, model):
    """What CLIP says of pictures generated along the way, at one guidance."""
    parts = (model, models["vae"], models["clip"].text_model, tokens)
    text = clip.text_features(models["clip"], tokens, captions)
    found = clip.retrieval(text, clip.image_features(models["clip"], unet.sample(parts, captions, guidance=3.0)))
    single = evaluate.named(models["clip"], tokens, unet.sample(parts, clip.single_captions(), guidance=3.0))
    return {"retrieval_at_1_of_100": found, **single}


if __name__ == "__main__":
    main()
