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
    """images [N, 64, 64, 3] uint8; captions: N lists of five; kin [N]: a number for each background and colour of the first object."""

    images: torch.Tensor
    captions: list
    kin: np.ndarray

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
    files, looks = read_shards(folder, len(chosen))
    images = np.stack([files[image["file_name"]] for image in chosen])
    kin = np.unique([looks[Path(image["file_name"]).stem] for image in chosen], return_inverse=True)[1]
    return Split(torch.from_numpy(images), [captions[image["id"]] for image in chosen], kin)


def read_shards(folder, count):
    """Of the first `count` samples of the shards: the pictures by file name, background and colour of the first object by key."""
    files, looks = {}, {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                if suffix == "png":
                    files[member.name] = np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
                elif suffix == "json":
                    scene = json.loads(json.loads(tar.extractfile(member).read())["scene"])
                    looks[key] = f"{scene['objects'][0]['colour']} on {scene['background']}"
        if len(looks) >= count:
            break
    return files, looks


def step_generator(seed, step):
    """All that is drawn in a step comes from here: a run that resumes draws what one that never stopped draws."""
    return torch.Generator().manual_seed((seed << 32) + step)


def step_indices(count, batch, seed, step, kin=None):
    """Samples of a step, every epoch in its own order; the tail of an epoch that fills no batch is left out.

    With `kin`, every other step's samples are of one kin, as far as they go round: hard to tell apart.
    """
    per_epoch = max(1, count // batch)
    epoch, place = divmod(step, per_epoch)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(count)
    if kin is not None and step % 2 == 1:
        order = order[np.argsort(kin[order], kind="stable")]
        place = generator.permutation(per_epoch)[place]
    return torch.from_numpy(order[place * batch : (place + 1) * batch])
