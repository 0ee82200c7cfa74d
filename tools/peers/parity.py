"""Does `syntic generate` make what diffusers (f32, CPU) makes? Runs both over schedulers and step counts and compares.

    python tools/peers/parity.py --syntic target/release/syntic --model DIR

Four different captions in one batch, a non-square image, the same initial latents on both sides. Then the cases that need
the same noise too: `--rng torch-cpu` against diffusers' own generators, for the schedulers that draw at every step and for
one that does not. Prints a table; exit code 1 where a case is over the tolerances of diffusers_compare.py.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from diffusers_compare import (
    LATENT_TOLERANCE, PIXELS_WITHIN_ONE, SCHEDULERS, Settings, compare_latents, compare_pixels, generate, load_pipeline,
    read_captions, read_images,
)  # fmt: skip
from scheduler_table import STOCHASTIC

CAPTIONS = """A black cat asleep on a red sofa.
two dogs run along the beach at sunset, one of them carries a stick
A crowded street market with fruit, umbrellas & bicycles: people talk, haggle and eat under paper lanterns while it rains
a plate of food
"""

# LCM is made for few steps. With more, and guidance, rounding grows too far to compare: on the built-in model (20 steps, guidance 7.5)
# diffusers differs from itself by 4e-4 when its start changes by 1e-7.
LCM_STEPS = 8
DETERMINISTIC = [name for name in SCHEDULERS if name not in STOCHASTIC]


def cases(args):
    """(settings, rng) of every run; rng None means that the initial latents are given."""
    base = Settings(height=args.height, width=args.width)
    for scheduler in args.schedulers:
        for steps in args.steps:
            if scheduler == "lcm" and steps > LCM_STEPS:
                print(f"lcm with {steps} steps is not compared: more than {LCM_STEPS}")
            elif scheduler in DETERMINISTIC:
                yield replace(base, scheduler=scheduler, steps=steps), None
            elif steps > 1:
                yield replace(base, scheduler=scheduler, steps=steps), "torch-cpu"
    steps = args.steps[0]
    yield replace(base, scheduler="auto", steps=steps, negative="blurry, low quality"), None
    yield replace(base, scheduler="auto", steps=steps, guidance=1.0), None
    yield replace(base, scheduler="auto", steps=steps, seed=7), "torch-cpu"


def run_syntic(args, captions, settings, init, out):
    """Runs the binary; returns its final latents and pixels. `init` is a file, or None for `--rng torch-cpu`."""
    command = [args.syntic, "generate", "--model", args.model, "--captions", captions, "--out", out / "shards"]
    command += ["--scheduler", settings.scheduler, "--steps", settings.steps, "--guidance", settings.guidance]
    command += ["--height", settings.height, "--width", settings.width, "--seed", settings.seed, "--format", "png"]
    command += ["--negative", settings.negative] if settings.negative else []
    command += ["--init-latents", init] if init else ["--rng", "torch-cpu"]
    command += ["--threads", args.threads] if args.threads else []
    command += ["--save-latents", out / "latents.safetensors", *args.extra]
    command = [str(part) for part in command]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nexit code {result.returncode}\n{result.stderr}{result.stdout}")
    return safetensors.torch.load_file(out / "latents.safetensors")["latents"], read_images(out / "shards")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--syntic", required=True, help="the binary")
    parser.add_argument("--model", required=True, help="model folder, with tokenizer")
    parser.add_argument("--captions", help="text file, one caption a line; default: four built-in ones")
    parser.add_argument("--schedulers", nargs="+", default=list(SCHEDULERS), choices=list(SCHEDULERS))
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 1, 7, 20])
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--threads", type=int, help="of both sides; default: all cores")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="flags for syntic generate; last")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    failed = 0
    heads = f"{'scheduler':<13}{'steps':>5}{'guidance':>9}  {'start':<10}"
    print(heads + f"{'latents rel L2':>15}{'pixels within 1':>17}{'largest':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        captions = Path(args.captions) if args.captions else scratch / "captions.txt"
        if not args.captions:
            captions.write_text(CAPTIONS, encoding="utf-8")
        texts = read_captions(captions)
        pipe = load_pipeline(args.model)
        shape = (len(texts), pipe.unet.config.in_channels, args.height // pipe.vae_scale_factor, args.width // pipe.vae_scale_factor)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(20))
        init = scratch / "init.safetensors"
        safetensors.torch.save_file({"latents": start}, init)
        for number, (settings, rng) in enumerate(cases(args)):
            out = scratch / str(number)
            out.mkdir()
            latents, pixels = run_syntic(args, captions, settings, None if rng else init, out)
            reference, reference_pixels = generate(pipe, texts, settings, None if rng else start)
            error = compare_latents(latents, reference)
            within, largest = compare_pixels(pixels, reference_pixels)
            good = error <= LATENT_TOLERANCE and within >= PIXELS_WITHIN_ONE
            failed += not good
            negative = "" if not settings.negative else "  with a negative prompt"
            print(
                f"{settings.scheduler:<13}{settings.steps:>5}{settings.guidance:>9}  {rng or 'given':<10}{error:>15.2e}"
                f"{within:>17.4%}{largest:>8}{'' if good else '  OVER'}{negative}",
                flush=True,
            )
    print(f"{failed} over the tolerance ({LATENT_TOLERANCE:.0e}; {PIXELS_WITHIN_ONE:.1%} within one level)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
