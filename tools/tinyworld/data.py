"""The world's shards in memory, and which samples a step sees."""

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image


@dataclass
class Split:
    """images [N, 64, 64, 3] uint8; captions: N lists of five."""

    images: torch.Tensor
    captions: list

    def __len__(self):
        return len(self.images)

    def pixels(self, indices, device):
        """[B, 3, 64, 64] f32 in [-1, 1]."""
        return self.images[indices].to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)

    def first_captions(self, count=None):
        return [captions[0] for captions in self.captions[:count]]


def load(folder, name, count, seed, syntic):
    """The first `count` samples of split `name` in `folder`; where the folder is missing, `syntic tinyworld` makes it."""
    folder = Path(folder) / name
    annotations = folder / f"annotations/captions_{name}.json"
    if not annotations.exists():
        arguments = ["tinyworld", "--split", name, "--count", str(count), "--seed", str(seed), "--out", str(folder)]
        subprocess.run([syntic, *arguments], check=True)
    coco = json.loads(annotations.read_text())
    if not coco["info"]["description"].endswith(f"{name} split, seed {seed}"):
        raise SystemExit(f"{annotations} is {coco['info']['description']}, not of seed {seed}: name another folder with --data")
    captions = {}
    for annotation in coco["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    chosen = coco["images"][:count]
    if len(chosen) < count:
        raise SystemExit(f"{folder} has {len(chosen)} samples, {count} are needed: name another folder with --data")
    files = read_shards(folder, len(chosen))
    images = np.stack([files[image["file_name"]] for image in chosen])
    return Split(torch.from_numpy(images), [captions[image["id"]] for image in chosen])


def read_shards(folder, count):
    """The first `count` pictures of the shards, by file name."""
    files = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    files[member.name] = np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
        if len(files) >= count:
            break
    return files


def step_generator(seed, step):
    """All that is drawn in a step comes from here: a run that resumes draws what one that never stopped draws."""
    return torch.Generator().manual_seed((seed << 32) + step)


def step_indices(count, batch, seed, step):
    """Samples of a step, every epoch in its own order; the tail of an epoch that fills no batch is left out."""
    per_epoch = max(1, count // batch)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return torch.from_numpy(order[place * batch : (place + 1) * batch])
