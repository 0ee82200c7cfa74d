"""Writes expected/half.json beside the golden tensors: how far diffusers and transformers are from them when they store f16 or bf16.

    pip install -r tools/golden/requirements.txt
    python tools/golden/half.py                      # every case of tools/golden/models.py, and the built-in model
    python tools/golden/half.py --case sd1-tiny

It is the yardstick of kernels that store these types: they may be off by twice as much, and one rounding. An error is the relative L2
error of a tensor, over all of its elements; names are those of the golden files, of f16 and of bf16.
"""

import argparse
import json
from pathlib import Path

import safetensors.torch
import torch
import transformers
from diffusers import StableDiffusionPipeline

import models
from model_cases import CASES
from scheduler_table import SCHEDULERS, STOCHASTIC, make_scheduler

ROOT = Path(__file__).parents[2]
TYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def relative(found, expected):
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def blocks(text, unet, vae, case, golden, dtype):
    """Errors of every block that the golden files hold, as the tests run them."""
    out = {}
    if text is not None:
        with models.recording(text.to(dtype), "text", models.TEXT_BLOCKS, out):
            text(golden["text"]["ids"])
    sample, context = (golden["unet"][name].to(dtype) for name in ("sample", "context"))
    with models.recording(unet.to(dtype), "unet", models.UNET_BLOCKS, out):
        unet(sample, torch.tensor(981), encoder_hidden_states=context)
    for timestep in (1, 12.5):
        out[f"output.{timestep}"] = unet(sample, torch.tensor(timestep), encoder_hidden_states=context).sample
    if vae is not None:
        latents, image = (golden["vae"][name].to(dtype) for name in ("latents", "image"))
        with models.recording(vae.to(dtype), "vae", models.VAE_BLOCKS, out):
            vae.decode(latents)
            out["encoder_mean"] = vae.encode(image).latent_dist.mean
    expected = {name: tensor for part in ("text", "unet", "vae") for name, tensor in golden.get(part, {}).items()}
    names = {name: name.replace("text.encoder.layers", "text.layers") for name in out}
    return {names[name]: relative(value, expected[names[name]]) for name, value in out.items() if names[name] in expected}


def runs(pipe, golden, dtype):
    """Errors of final latents of whole runs, from the initial latents of the golden file."""
    pipe = pipe.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    base, start = pipe.scheduler, golden["init_latents"].to(dtype)
    height, width = (side * pipe.vae_scale_factor for side in start.shape[2:])
    embeds = pipe.text_encoder(golden["ids.prompts"])[0]
    nothing = pipe.text_encoder(golden["ids.empty"].expand(len(embeds), -1))[0]

    def run(scheduler, steps):
        pipe.scheduler = make_scheduler(scheduler, base)
        stochastic = scheduler in STOCHASTIC
        generators = [torch.Generator().manual_seed(42 + i) for i in range(len(embeds))]
        return pipe(
            prompt_embeds=embeds, negative_prompt_embeds=nothing, latents=None if stochastic else start, generator=generators,
            height=height, width=width, num_inference_steps=steps, guidance_scale=7.5, output_type="latent",
        ).images  # fmt: skip

    names = [(scheduler, steps) for scheduler in SCHEDULERS for steps in ((4, 7) if scheduler in STOCHASTIC else (1, 4, 7, 20))]
    return {f"latents.{scheduler}.{steps}": relative(run(scheduler, steps), golden[f"latents.{scheduler}.{steps}"]) for scheduler, steps in names}


def read(folder):
    return {path.stem: safetensors.torch.load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def of_case(name):
    golden, case = read(ROOT / "tests/golden" / name / "expected"), CASES[name]
    errors = {}
    for key, dtype in TYPES.items():
        text, unet, vae = models.build(case)
        errors[key] = blocks(text, unet, vae, case, golden, dtype)
        if "scheduler" in case:
            base = {"PNDMScheduler": models.PNDMScheduler, "DDIMScheduler": models.DDIMScheduler}[case["scheduler"]["_class_name"]]
            pipe = StableDiffusionPipeline(
                vae, text, None, unet, base.from_config(case["scheduler"]), None, None, requires_safety_checker=False
            )
            errors[key] |= runs(pipe, golden["pipeline"], dtype)
    return errors


def of_builtin():
    golden = read(ROOT / "tests/golden/builtin/expected")
    pipe = lambda: StableDiffusionPipeline.from_pretrained(ROOT / "src/weights/assets/builtin", dtype=torch.float32)
    return {key: runs(pipe(), golden["pipeline"], dtype) for key, dtype in TYPES.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=[*sorted(CASES), "builtin"], action="append", help="only this case; may be repeated")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name in args.case or [*CASES, "builtin"]:
        with torch.no_grad():
            errors = of_builtin() if name == "builtin" else of_case(name)
        rounded = {key: {block: float(f"{error:.3e}") for block, error in sorted(values.items())} for key, values in errors.items()}
        (ROOT / "tests/golden" / name / "expected/half.json").write_text(json.dumps(rounded, indent=1) + "\n")
        worst = {key: max(values.items(), key=lambda item: item[1]) for key, values in rounded.items()}
        print(f"{name}: worst {worst}")


if __name__ == "__main__":
    main()
