"""Writes the small seeded models of tests/golden and what diffusers and transformers compute with them.

    pip install -r tools/golden/requirements.txt
    python tools/golden/models.py                    # every case, into tests/golden
    python tools/golden/models.py --case sd1-tiny --out /tmp/golden

Each case is a folder in Hugging Face layout (no tokenizer: ids are given) with, beside the model, `expected/`:

    text.safetensors      ids [B, 77] i64 -> every block of the text encoder [B, T, C]
    unet.safetensors      sample [B, 4, h, w], context [B, T, C] -> every block at timestep 981; outputs at 1 and 12.5
    vae.safetensors       latents -> every decoder block; image -> every encoder block
    pipeline.safetensors  ids, initial latents, noise draws -> final latents (before the VAE's scaling) and pixels

Tensors are as torch has them: f32, images NCHW. A block's output has the name of its module after `text.`, `unet.` or
`vae.`. Weights are rounded to the storage type before anything is computed, so that a reader who widens the file to f32
has exactly the numbers used here. Versions, seed and the generating command are in the metadata of each file.
"""

import argparse
import contextlib
import json
import math
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread: the sums of every run have the same order

import diffusers
import safetensors.torch
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from model_cases import BOS, CASES, EOS
from scheduler_table import SCHEDULERS, STOCHASTIC, make_scheduler

# The modules whose outputs are stored. `time_embedding` is [B, 4 * C0], `transformer_blocks` are [B, T, C].
TEXT_BLOCKS = re.compile(r"embeddings|encoder\.layers\.(\d+|0\.self_attn|0\.mlp)|final_layer_norm")
UNET_BLOCKS = re.compile(
    r"conv_in|time_embedding|conv_out"
    r"|((down|up)_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.\d+"
    r"|mid_block\.attentions\.0\.transformer_blocks\.0(\.attn1|\.attn2|\.ff)?"
)
VAE_BLOCKS = re.compile(
    r"quant_conv|post_quant_conv"
    r"|(encoder|decoder)\.(conv_in|conv_out|((down|up)_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.\d+)"
)

# Old checkpoints name the VAE's attention layers like this.
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def generator(*seed):
    """A torch generator for a named purpose: `seed` is a case seed and a word."""
    words = "".join(str(part) for part in seed).encode()
    return torch.Generator().manual_seed(int.from_bytes(words, "little") % (2**63 - 1))


def randomize(module, storage, rng, gains):
    """Gives every parameter a random value for which activations stay near one; `gains` scales the weights it names."""
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            value = torch.randn(parameter.shape, generator=rng)
            if "embedding.weight" in name and "time" not in name:
                value = value * 0.7
            elif parameter.dim() > 1:
                value = value / math.sqrt(parameter[0].numel())
            elif "norm" in name and name.endswith("weight"):
                value = 1.0 + 0.2 * value
            else:
                value = 0.1 * value
            value = value * gains.get(name, 1.0)
            parameter.copy_(value.to(storage).float())
    return module.eval()


@contextlib.contextmanager
def recording(module, prefix, names, out):
    """Stores in `out` the output of every submodule whose name matches `names`."""

    def hook(name):
        def store(_module, _inputs, output):
            value = output[0] if isinstance(output, tuple) else output
            value = getattr(value, "sample", value)
            out[f"{prefix}.{name}"] = value.detach().float().contiguous().clone()

        return store

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules() if names.fullmatch(name)]
    try:
        yield out
    finally:
        for handle in handles:
            handle.remove()


def build(case):
    """The three networks of a case, on random weights; text encoder and VAE are None where the case has none."""
    storage = getattr(torch, case["storage"])
    text = vae = None
    unet = UNet2DConditionModel(**case["unet"])
    # A guided random network is a chaotic map when its output is large; a third keeps rounding errors rounding errors.
    randomize(unet, storage, generator(case["seed"], "unet"), {"conv_out.weight": 0.3})
    if "text_encoder" in case:
        text = randomize(CLIPTextModel(CLIPTextConfig(**case["text_encoder"])), storage, generator(case["seed"], "text"), {})
    if "vae" in case:
        vae = AutoencoderKL(**case["vae"])
        randomize(vae, storage, generator(case["seed"], "vae"), {"decoder.conv_out.weight": 0.3})
    return text, unet, vae


def metadata(case_name, case):
    """Who made a file, from what."""
    origin = {
        "case": case_name,
        "seed": case["seed"],
        "made_by": f"tools/golden/models.py --case {case_name}",
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }
    # One entry: the order of several is random, and the same command should give the same bytes.
    return {"origin": json.dumps(origin)}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tensors(path, tensors, meta):
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=meta)


def stored(module, case):
    """The state of a network in the storage type of the case."""
    return {name: value.to(getattr(torch, case["storage"])) for name, value in module.state_dict().items()}


def text_tensors(text, case):
    """The text encoder's tensors under the names of old files (`text_model.` and position ids) or of new ones."""
    tensors = stored(text, case)
    if case["text_names"] == "flat":
        return tensors
    tensors = {f"text_model.{name}": value for name, value in tensors.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(case["text_encoder"]["max_position_embeddings"]).unsqueeze(0)
    return tensors


def vae_tensors(vae, case):
    """The VAE's tensors with today's attention names, the old ones, or the old ones shaped like 1x1 convolutions."""
    tensors = {}
    for name, value in stored(vae, case).items():
        if "attentions" in name and case["vae_names"] != "new":
            for new, old in OLD_VAE_ATTENTION.items():
                name = name.replace(f".{new}.", f".{old}.")
            if case["vae_names"] == "old-conv" and value.dim() == 2:
                value = value[:, :, None, None]
        tensors[name] = value
    return tensors


def write_model(folder, name, case, text, unet, vae):
    """The model folder, as a published checkpoint of its time would have it."""
    meta = metadata(name, case)
    suffix = f".{case['variant']}" if case["variant"] else ""
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    write_json(folder / "unet/config.json", {"_class_name": "UNet2DConditionModel", **case["unet"]})
    write_tensors(folder / f"unet/diffusion_pytorch_model{suffix}.safetensors", stored(unet, case), meta)
    if vae is not None:
        index["vae"] = ["diffusers", "AutoencoderKL"]
        write_json(folder / "vae/config.json", {"_class_name": "AutoencoderKL", **case["vae"]})
        write_tensors(folder / f"vae/diffusion_pytorch_model{suffix}.safetensors", vae_tensors(vae, case), meta)
    if text is not None:
        index["text_encoder"] = ["transformers", "CLIPTextModel"]
        config = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **case["text_encoder"]}
        write_json(folder / "text_encoder/config.json", config)
        write_tensors(folder / f"text_encoder/model{suffix}.safetensors", text_tensors(text, case), meta)
    if "scheduler" in case:
        index["scheduler"] = ["diffusers", case["scheduler"]["_class_name"]]
        write_json(folder / "scheduler/scheduler_config.json", case["scheduler"])
    write_json(folder / "model_index.json", index)


def prompt_ids(case, rng, lengths):
    """Token ids [len(lengths), 77]: start, random words, end, padding."""
    length, pad = case["text_encoder"]["max_position_embeddings"], case["text_encoder"]["pad_token_id"]
    ids = torch.full((len(lengths), length), pad, dtype=torch.int64)
    for row, words in zip(ids, lengths):
        row[0], row[1 + words] = BOS, EOS
        row[1 : 1 + words] = torch.randint(1, BOS, (words,), generator=rng)
    return ids


def expect_text(text, case):
    """Ids of a full and of a short prompt, and every block's output."""
    ids = prompt_ids(case, generator(case["seed"], "ids"), [75, 9])
    out = {}
    with recording(text, "text", TEXT_BLOCKS, out):
        text(ids)
    out = {name.replace("text.encoder.layers", "text.layers"): value for name, value in out.items()}
    return {"ids": ids} | out


def expect_unet(unet, case):
    """Every block at timestep 981, and the outputs at 1 and 12.5, for a batch of two different samples."""
    rng = generator(case["seed"], "unet inputs")
    height, width = case["latents"]
    sample = torch.randn((2, 4, height, width), generator=rng)
    context = torch.randn((2, case["context_length"], case["unet"]["cross_attention_dim"]), generator=rng)
    out = {"sample": sample, "context": context}
    with recording(unet, "unet", UNET_BLOCKS, out):
        unet(sample, torch.tensor(981), encoder_hidden_states=context)
    for timestep in (1, 12.5):
        out[f"output.{timestep}"] = unet(sample, torch.tensor(timestep), encoder_hidden_states=context).sample
    return out


def expect_vae(vae, case):
    """Every block of the decoder and of the encoder, for a batch of two different samples."""
    rng = generator(case["seed"], "vae inputs")
    height, width = case["vae_latents"]
    factor = 2 ** (len(case["vae"]["block_out_channels"]) - 1)
    latents = torch.randn((2, 4, height, width), generator=rng)
    image = torch.rand((2, 3, height * factor, width * factor), generator=rng) * 2 - 1
    out = {"latents": latents, "image": image}
    with recording(vae, "vae", VAE_BLOCKS, out):
        vae.decode(latents)
        out["encoder_mean"] = vae.encode(image).latent_dist.mean
    return out


class NoiseTape:
    """Stands in for `randn_tensor` in the schedulers: draws as they would, and keeps what was drawn."""

    def __init__(self):
        self.draws = []

    @contextlib.contextmanager
    def installed(self):
        modules = [diffusers.schedulers.scheduling_euler_ancestral_discrete, diffusers.schedulers.scheduling_lcm]
        original = modules[0].randn_tensor

        def recorded(*args, **kwargs):
            self.draws.append(original(*args, **kwargs))
            return self.draws[-1]

        for module in modules:
            module.randn_tensor = recorded
        try:
            yield self
        finally:
            for module in modules:
                module.randn_tensor = original


def expect_pipeline(text, unet, vae, case):
    """Results of StableDiffusionPipeline on random prompts."""
    base = {"PNDMScheduler": PNDMScheduler, "DDIMScheduler": DDIMScheduler}[case["scheduler"]["_class_name"]]
    pipe = StableDiffusionPipeline(
        vae, text, None, unet, base.from_config(case["scheduler"]), None, None, requires_safety_checker=False
    )
    rng = generator(case["seed"], "prompts")
    ids = prompt_ids(case, rng, [3, 12, 40, 75])
    return run_pipeline(pipe, ids, prompt_ids(case, rng, [6]), prompt_ids(case, rng, [0]), case["latents"])


def run_pipeline(pipe, ids, negative, empty, latents_size):
    """Final latents of four prompts `ids` [4, T]: each scheduler, several step counts; pixels of some.

    Everything random comes from one torch CPU generator per sample, seeds 42 to 45: first the initial latents, then the
    noise of each step, so the same numbers can be had either from the stored tensors or by reproducing the generator.
    """
    pipe.set_progress_bar_config(disable=True)
    base, text = pipe.scheduler, pipe.text_encoder
    height, width = latents_size
    out = {"ids.prompts": ids, "ids.negative": negative, "ids.empty": empty}
    embeds = text(ids)[0]

    def generators():
        return [torch.Generator().manual_seed(42 + i) for i in range(4)]

    out["init_latents"] = torch.cat([torch.randn((1, pipe.unet.config.in_channels, height, width), generator=rng) for rng in generators()])

    def run(scheduler, steps, uncond_ids, guidance=7.5):
        pipe.scheduler = make_scheduler(scheduler, base)
        tape = NoiseTape()
        with tape.installed():
            latents = pipe(
                prompt_embeds=embeds,
                negative_prompt_embeds=text(uncond_ids.expand(4, -1))[0],
                height=height * pipe.vae_scale_factor,
                width=width * pipe.vae_scale_factor,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators(),
                output_type="latent",
            ).images
        assert torch.isfinite(latents).all(), (scheduler, steps)
        return latents, tape.draws

    for scheduler in SCHEDULERS:
        for steps in (4, 7) if scheduler in STOCHASTIC else (1, 4, 7, 20):
            name = f"{scheduler}.{steps}"
            out[f"latents.{name}"], draws = run(scheduler, steps, empty)
            if steps == 7 and draws:
                out[f"noise.{scheduler}"] = torch.stack(draws)
            if name == "pndm.7":
                image = pipe.vae.decode(out[f"latents.{name}"] / pipe.vae.config.scaling_factor).sample
                pixels = pipe.image_processor.postprocess(image, output_type="np")
                out[f"pixels.{name}"] = torch.from_numpy((pixels * 255).round().astype("uint8"))  # [B, H, W, 3]
    out["latents.negative.ddim.7"], _ = run("ddim", 7, negative)
    out["latents.unguided.ddim.7"], _ = run("ddim", 7, empty, guidance=1.0)
    return out


def write_case(folder, name, case):
    """Model folder and expected outputs of one case."""
    shutil.rmtree(folder, ignore_errors=True)
    text, unet, vae = build(case)
    write_model(folder, name, case, text, unet, vae)
    meta = metadata(name, case)
    with torch.no_grad():
        write_tensors(folder / "expected/unet.safetensors", expect_unet(unet, case), meta)
        if text is not None:
            write_tensors(folder / "expected/text.safetensors", expect_text(text, case), meta)
        if vae is not None:
            write_tensors(folder / "expected/vae.safetensors", expect_vae(vae, case), meta)
        if "scheduler" in case:
            write_tensors(folder / "expected/pipeline.safetensors", expect_pipeline(text, unet, vae, case), meta)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "tests/golden", help="folder of the cases")
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="only this case; may be repeated")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name in args.case or CASES:
        write_case(args.out / name, name, CASES[name])
        size = sum(path.stat().st_size for path in (args.out / name).rglob("*") if path.is_file())
        print(f"{name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
