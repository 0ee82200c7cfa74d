"""Writes tests/golden/clip-tiny: small seeded CLIP models with what transformers computes, and what Pillow makes of images.

    pip install -r tools/golden/requirements.txt
    python tools/golden/clip.py

    legacy/, gelu/    folders of CLIPModel and its processor, and beside them `expected/`:
        inputs.json           texts, and images as width, height and seed of their noise
        text.safetensors      ids [N, T] i64 -> text_embeds [N, D]; every block of the text model for the first two texts
        vision.safetensors    pixel_values [2, 3, S, S] -> every block of the image model; image_embeds [N, D] of all images
    resize.json       sizes and seeds -> SHA-256 of the RGB bytes of Image.resize(size, BICUBIC)
    preprocess.json   settings, sizes and seeds -> shape and SHA-256 of CLIPImageProcessor's pixel values, f32 little-endian

Weights are rounded to the storage type before anything is computed. Versions are in the metadata of each file.
"""

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from models import generator, randomize, recording, write_json, write_tensors

BLOCKS = re.compile(
    r"(text|vision)_model\.(embeddings|encoder\.layers\.\d+|final_layer_norm|pre_layrnorm|post_layernorm)|(text|visual)_projection"
)
MERGES = "r e|re d</w>|b l|bl u|blu e</w>|s q|sq u|squ a|squa re|square s</w>|c i|ci r|c l|cir cl|circl e</w>|a b|ab o|abo v|abov e</w>"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 24
TEXTS = [
    "two blue squares above a red circle",
    "a circle",
    "",
    "A Red!! square, 12 mm wide",
    "red " * 40,
    "größer",
]
# Width, height, seed: the first two go through the blocks.
IMAGES = [(32, 32, 1), (61, 40, 2), (20, 33, 3), (300, 31, 4)]

SIDES = {"hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 3, "layer_norm_eps": 1e-5}
CASES = {
    # OpenAI's files: QuickGELU, an end-of-text id that is wrong, end-of-text as padding, position ids, sizes as numbers; bf16.
    "legacy": {
        "seed": 1,
        "storage": "bfloat16",
        "pad": EOS,
        "position_ids": True,
        "config": {
            "projection_dim": 20,
            "text_config": {**SIDES, "hidden_act": "quick_gelu", "eos_token_id": 2},
            "text_config_dict": None,
            "vision_config": {
                **SIDES,
                "hidden_size": 32,
                "hidden_act": "quick_gelu",
                "num_attention_heads": 4,
                "image_size": 32,
                "patch_size": 8,
            },
            "vision_config_dict": None,
        },
        "preprocess": {"size": 32, "crop_size": 32, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"},
    },
    # OpenCLIP's as transformers saves them today: GELU, the true id, `!` as padding, patches that do not fill the image; f16.
    "gelu": {
        "seed": 2,
        "storage": "float16",
        "pad": "!",
        "position_ids": False,
        "config": {
            "projection_dim": 12,
            "text_config": {**SIDES, "hidden_size": 20, "num_attention_heads": 2, "hidden_act": "gelu", "num_hidden_layers": 3},
            "vision_config": {**SIDES, "hidden_act": "gelu", "image_size": 30, "patch_size": 7, "layer_norm_eps": 1e-6},
        },
        "preprocess": {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}, "resample": 3, "rescale_factor": 1 / 255},
    },
}
# From width and height to width and height: up, down, one side only, neither, extreme ratios, and the last height for which Pillow
# takes lines first and the first for which it takes columns.
RESIZES = [
    (64, 64, 64, 64), (37, 23, 224, 139), (640, 480, 298, 224), (224, 224, 225, 223), (100, 50, 100, 75), (100, 50, 33, 50),
    (1, 1, 9, 4), (2, 300, 5, 7), (301, 2, 3, 64), (17, 91, 40, 11), (511, 509, 64, 63), (13, 13, 336, 336),
    (20, 40, 15, 30), (20, 41, 15, 30),
]
PREPROCESSING = [
    ({"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}, [(64, 64), (64, 99), (200, 133), (31, 30)]),
    ({"size": 33, "crop_size": 33}, [(100, 101), (7, 300)]),
    # Crops larger than the image on one side or both, by odd and even numbers.
    ({"size": {"height": 20, "width": 31}, "crop_size": {"height": 25, "width": 24}}, [(40, 40)]),
    ({"do_resize": False, "crop_size": {"height": 9, "width": 12}, "do_rescale": False}, [(5, 7), (6, 4), (30, 40)]),
    ({"do_center_crop": False, "size": {"shortest_edge": 19}, "do_normalize": False}, [(19, 19), (50, 77)]),
    ({"size": 21, "crop_size": 21, "image_mean": [0.5, 0.25, 0.1], "image_std": [0.5, 0.3, 0.7], "rescale_factor": 0.01}, [(21, 40)]),
]


def noise(width, height, seed):
    """An RGB image of noise: the top bytes of Knuth's MMIX generator."""
    state, values = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append(state >> 56)
    return Image.frombytes("RGB", (width, height), bytes(values))


def origin():
    versions = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "pillow": PIL.__version__}
    return {"made_by": "tools/golden/clip.py"} | versions


def write_tokenizer(folder, pad):
    """A byte-level vocabulary with a few merges; returns the number of tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges = MERGES.split("|")
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges] + [BOS, EOS]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}) + "\n")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": pad, "unk_token": EOS}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {**special, "model_max_length": POSITIONS, "tokenizer_class": "CLIPTokenizer"})
    return len(tokens)


def block_name(name):
    """`text_model.encoder.layers.0` -> `text.layers.0`, `visual_projection` -> `vision.projection`."""
    return name.replace("_model.", ".").replace(".encoder.", ".").replace("text_p", "text.p").replace("visual_p", "vision.p")


def write_case(folder, name, case):
    (folder / "expected").mkdir(parents=True)
    vocab = write_tokenizer(folder, case["pad"])
    text = {"vocab_size": vocab, "max_position_embeddings": POSITIONS, "bos_token_id": vocab - 2, "eos_token_id": vocab - 1}
    config = {**case["config"], "text_config": {**text, **case["config"]["text_config"]}}
    write_json(folder / "config.json", {"architectures": ["CLIPModel"], "model_type": "clip", **config})
    write_json(folder / "preprocessor_config.json", case["preprocess"])

    storage = getattr(torch, case["storage"])
    gains = {"vision_model.embeddings.patch_embedding.weight": 1 / config["vision_config"]["patch_size"]}
    model = randomize(CLIPModel(CLIPConfig(**config)), storage, generator(case["seed"], "clip"), gains)
    tensors = {key: value.to(storage) for key, value in model.state_dict().items()}
    if case["position_ids"]:
        tensors["text_model.embeddings.position_ids"] = torch.arange(POSITIONS).unsqueeze(0)
        tensors["vision_model.embeddings.position_ids"] = torch.arange(17).unsqueeze(0)
    meta = {"origin": json.dumps({**origin(), "case": name, "seed": case["seed"]})}
    write_tensors(folder / "model.safetensors", tensors, meta)

    write_features(folder / "expected", model, CLIPTokenizer.from_pretrained(folder), case["preprocess"], TEXTS, IMAGES, meta)


def write_features(folder, model, tokenizer, preprocess, texts, images, meta):
    """What a model makes of texts and of images of noise: features of all, and every block for the first two."""
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    pixels = CLIPImageProcessorPil(**preprocess)([noise(*image) for image in images], return_tensors="pt").pixel_values
    blocks = {}
    with recording(model, "", BLOCKS, blocks):
        model(input_ids=ids[:2], pixel_values=pixels[:2])
    blocks = {block_name(name.removeprefix(".")): value for name, value in blocks.items()}
    all_of_them = model(input_ids=ids, pixel_values=pixels)
    write_json(folder / "inputs.json", {"texts": texts, "images": images})
    for part, inputs in {
        "text": {"ids": ids, "text_embeds": all_of_them.text_embeds},
        "vision": {"pixel_values": pixels[:2], "image_embeds": all_of_them.image_embeds},
    }.items():
        own = {name: value for name, value in blocks.items() if name.startswith(part)}
        write_tensors(folder / f"{part}.safetensors", inputs | own, meta)


def write_resizes(path):
    cases = []
    for seed, (width, height, to_width, to_height) in enumerate(RESIZES):
        result = noise(width, height, seed).resize((to_width, to_height), Image.Resampling.BICUBIC)
        sha256 = hashlib.sha256(result.tobytes()).hexdigest()
        cases.append({"from": [width, height], "to": [to_width, to_height], "seed": seed, "sha256": sha256})
    write_json(path, {"origin": origin(), "cases": cases})


def write_preprocessing(path):
    cases = []
    for settings, sizes in PREPROCESSING:
        for seed, (width, height) in enumerate(sizes):
            values = CLIPImageProcessorPil(**settings)(noise(width, height, seed), return_tensors="np").pixel_values[0]
            values = values.astype(np.float32)
            sha256 = hashlib.sha256(values.tobytes()).hexdigest()
            shape = list(values.shape)
            cases.append({"settings": settings, "image": [width, height], "seed": seed, "shape": shape, "sha256": sha256})
    write_json(path, {"origin": origin(), "cases": cases})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "tests/golden/clip-tiny", help="folder to write")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    shutil.rmtree(out, ignore_errors=True)
    with torch.no_grad():
        for name, case in CASES.items():
            write_case(out / name, name, case)
    write_resizes(out / "resize.json")
    write_preprocessing(out / "preprocess.json")


if __name__ == "__main__":
    main()
