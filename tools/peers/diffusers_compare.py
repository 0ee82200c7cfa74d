"""Generates with diffusers (f32, CPU) what `syntic generate` was asked for, and compares latents and pixels.

    python tools/peers/diffusers_compare.py --model DIR --captions captions.txt --init-latents init.safetensors \
        --scheduler ddim --steps 7 --height 192 --width 128 --out ref \
        --syntic-latents ours.safetensors --syntic-images shards/

Writes `ref/latents.safetensors` (`latents` [N, 4, height / 8, width / 8] f32, before the VAE's scaling) and `ref/NNNNN.png`.
Without `--init-latents` each sample draws from its own torch CPU generator with seed + index, as `--rng torch-cpu` does.
Exit code 1 where latents differ by more than 2e-4 relative L2, or fewer than 99.9% of the pixel values are within one level.
"""

import argparse
import io
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from scheduler_table import SCHEDULERS, make_scheduler  # noqa: E402

LATENT_TOLERANCE = 2e-4
PIXELS_WITHIN_ONE = 0.999


@dataclass
class Settings:
    """What decides an image besides the model and the caption."""

    scheduler: str = "auto"
    steps: int = 20
    guidance: float = 7.5
    negative: str = ""
    height: int = 512
    width: int = 512
    seed: int = 42


def load_pipeline(model):
    """The pipeline in f32, with the scheduler of the checkpoint kept aside as `base_scheduler`."""
    weights = list((Path(model) / "unet").glob("*.safetensors"))
    variant = "fp16" if weights and all(".fp16" in path.name for path in weights) else None
    pipe = StableDiffusionPipeline.from_pretrained(
        model, variant=variant, dtype=torch.float32, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, local_files_only=True, low_cpu_mem_usage=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.base_scheduler = pipe.scheduler
    return pipe


def generate(pipe, captions, settings, init_latents=None):
    """Final latents [N, 4, h, w] f32 and pixels [N, H, W, 3] u8, all captions in one batch."""
    pipe.scheduler = make_scheduler(settings.scheduler, pipe.base_scheduler)
    with torch.no_grad():
        latents = pipe(
            captions,
            negative_prompt=[settings.negative] * len(captions),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.height,
            width=settings.width,
            latents=init_latents,
            generator=[torch.Generator().manual_seed(settings.seed + i) for i in range(len(captions))],
            output_type="latent",
        ).images
        # One image at a time: a whole batch of 512 x 512 decodes needs 2 GB each.
        images = [pipe.vae.decode(latent[None] / pipe.vae.config.scaling_factor).sample for latent in latents]
    images = pipe.image_processor.postprocess(torch.cat(images), output_type="np")
    return latents, (images * 255).round().astype(np.uint8)


def read_images(folder):
    """Pixels [N, H, W, 3] u8 of the PNGs in a folder, loose or inside its tar shards, in the order of their names."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == ".png":
            found[path.stem] = path.read_bytes()
        elif path.suffix == ".tar":
            with tarfile.open(path) as tar:
                found |= {Path(m.name).stem: tar.extractfile(m).read() for m in tar if m.name.endswith(".png")}
    if not found:
        raise SystemExit(f"{folder}: no PNG, neither loose nor in a tar")
    return np.stack([np.asarray(Image.open(io.BytesIO(found[key])).convert("RGB")) for key in sorted(found)])


def compare_latents(ours, theirs):
    """Largest relative L2 difference of a sample; infinite where shapes differ or anything is not finite."""
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    difference = (ours.double() - theirs.double()).flatten(1).norm(dim=1)
    return float((difference / theirs.double().flatten(1).norm(dim=1)).max())


def compare_pixels(ours, theirs):
    """Share of the values within one level, and the largest difference."""
    if ours.shape != theirs.shape:
        return 0.0, 255
    difference = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
    return float((difference <= 1).mean()), int(difference.max())


def read_captions(path):
    """One caption a line, empty lines left out."""
    return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--captions", required=True, help="text file, one caption a line")
    parser.add_argument("--out", type=Path, required=True, help="folder for what diffusers makes")
    parser.add_argument("--init-latents", help="file with `latents` [N, 4, h, w], unit variance")
    parser.add_argument("--scheduler", default="auto", choices=["auto", *SCHEDULERS])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--negative", default="")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--syntic-latents", help="what `syntic generate --save-latents` wrote")
    parser.add_argument("--syntic-images", help="what `syntic generate --format png --out` wrote")
    args = parser.parse_args()

    settings = Settings(args.scheduler, args.steps, args.guidance, args.negative, args.height, args.width, args.seed)
    init = safetensors.torch.load_file(args.init_latents)["latents"] if args.init_latents else None
    latents, pixels = generate(load_pipeline(args.model), read_captions(args.captions), settings, init)
    args.out.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({"latents": latents.contiguous()}, args.out / "latents.safetensors")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(args.out / f"{i:05d}.png")

    good = True
    if args.syntic_latents:
        error = compare_latents(safetensors.torch.load_file(args.syntic_latents)["latents"], latents)
        good &= error <= LATENT_TOLERANCE
        print(f"latents: relative L2 {error:.2e} (at most {LATENT_TOLERANCE:.0e})")
    if args.syntic_images:
        within, largest = compare_pixels(read_images(args.syntic_images), pixels)
        good &= within >= PIXELS_WITHIN_ONE
        print(f"pixels: {within:.4%} within 1 level (at least {PIXELS_WITHIN_ONE:.1%}), largest difference {largest}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
