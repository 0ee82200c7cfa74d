"""The trained models as one folder that transformers and diffusers read with no code of ours."""

import json
import shutil

import torch
from diffusers import __version__ as diffusers_version
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import clip
import unet

MAX_BYTES = int(15.5 * 2**20)
WEIGHTS = "model.safetensors"


def write(out, clip_model, vae, denoiser, tokenizer_folder):
    """The diffusers pipeline in `out`, CLIP in `out/clip`; all weights f16."""
    clip_model.half().save_pretrained(out / "clip")
    (out / "clip" / "preprocessor_config.json").write_text(json.dumps(preprocessor(), indent=2))
    write_text_encoder(out)
    for name, model in [("vae", vae), ("unet", denoiser)]:
        model.half().save_pretrained(out / name)
    unet.scheduler().save_pretrained(out / "scheduler")
    for folder in ("tokenizer", "clip"):
        shutil.copytree(tokenizer_folder, out / folder, dirs_exist_ok=True)
    (out / "model_index.json").write_text(json.dumps(index(), indent=2))
    check_size(out)


def write_text_encoder(out):
    """CLIP's text tower once more, under the names that Stable Diffusion's has ("text_model." first)."""
    tensors = load_file(out / "clip" / WEIGHTS)
    config = json.loads((out / "clip" / "config.json").read_text())["text_config"]
    folder = out / "text_encoder"
    folder.mkdir(exist_ok=True)
    named = {name: tensor for name, tensor in tensors.items() if name.startswith("text_model.")}
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModel"], "dtype": "float16", **config}, indent=2))
    model, report = CLIPTextModel.from_pretrained(folder, output_loading_info=True)
    if report["missing_keys"] or report["unexpected_keys"]:
        raise SystemExit(f"{folder} does not load: {report}")
    if not torch.equal(model.state_dict()["final_layer_norm.weight"], named["text_model.final_layer_norm.weight"]):
        raise SystemExit(f"{folder} loads other weights than were written")


def preprocessor():
    return {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 64}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 64, "width": 64}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": clip.MEAN, "image_std": clip.STD, "do_convert_rgb": True,
    }  # fmt: skip


def index():
    return {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers_version, "requires_safety_checker": False,
        "safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    }  # fmt: skip


def check_parameters(clip_model, vae, denoiser):
    """Refuses, before hours of training, models whose f16 weights leave no room for the other files (about 100 KiB)."""
    weights = sum(p.numel() for model in (clip_model, clip_model.text_model, vae, denoiser) for p in model.parameters())
    if 2 * weights > MAX_BYTES - 2**17:
        raise SystemExit(f"{weights} weights in f16 are more than the {MAX_BYTES} bytes that may be embedded")


def check_size(out):
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if size > MAX_BYTES:
        raise SystemExit(f"{out} has {size} bytes, more than the {MAX_BYTES} that may be embedded")
    return size
