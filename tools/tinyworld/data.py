"""The world's shards in memory, and which samples a step sees."""

import io
import json
import math
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image


# Revision of the world that this knows (`REVISION` in src/tinyworld).
WORLD = 1
KINDS = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon", "house", "tree", "fish", "boat")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SIDE = 64
# Side in pixels of the places whose kind is asked for while training, and the weight of those that no object covers: most.
PLACE, NO_KIND = 8, 0.1


@dataclass
class Split:
    """images [N, 64, 64, 3] uint8; captions: N lists of five.

    From the scenes themselves: kinds [N, 64, 64] uint8, for each pixel the place in `KINDS` of the object whose square it is in, the
    nearest one, or the number of kinds; kin [N], a number for each background and colour of the first object.
    """

    images: torch.Tensor
    captions: list
    kinds: torch.Tensor
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
    if coco["info"].get("world") != WORLD:
        raise SystemExit(f"{annotations} is of world {coco['info'].get('world')}, this is for world {WORLD}: name another folder with --data")
    captions = {}
    for annotation in coco["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    chosen = coco["images"][:count]
    if len(chosen) < count:
        raise SystemExit(f"{folder} has {len(chosen)} samples, {count} are needed: name another folder with --data")
    pictures, scenes = read_shards(folder, len(chosen))
    images = torch.from_numpy(np.stack([pictures[image["id"]] for image in chosen]))
    kinds = torch.from_numpy(np.stack([kinds_of(scenes[image["id"]]) for image in chosen]))
    looks = [f"{scenes[image['id']]['objects'][0]['colour']} on {scenes[image['id']]['background']}" for image in chosen]
    return Split(images, [captions[image["id"]] for image in chosen], kinds, np.unique(looks, return_inverse=True)[1])


def read_shards(folder, count):
    """Pictures and scenes of the first `count` samples of the shards, by the number of the sample."""
    pictures, scenes = {}, {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, suffix = member.name.split(".", 1)
                if suffix == "png":
                    pictures[int(key)] = np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
                elif suffix == "json":
                    scenes[int(key)] = json.loads(json.loads(tar.extractfile(member).read())["scene"])
        if len(scenes) >= count:
            break
    return pictures, scenes


def kinds_of(scene):
    """See `Split.kinds`."""
    camera = scene["camera"]
    sin, cos = math.sin(camera["roll"]), math.cos(camera["roll"])
    kinds = np.full((SIDE, SIDE), len(KINDS), np.uint8)
    for item in scene["objects"]:
        dx, dy = ((item[axis] - 0.5) * camera["zoom"] for axis in "xy")
        x, y = dx * cos - dy * sin + 0.5 + camera["shift"][0], dx * sin + dy * cos + 0.5 + camera["shift"][1]
        reach = item["radius"] * camera["zoom"]
        left, right, top, bottom = (max(0, round(SIDE * edge)) for edge in (x - reach, x + reach, y - reach, y + reach))
        kinds[top:bottom, left:right] = KINDS.index(item["kind"])
    return kinds


def at_places(kinds):
    """Of kinds [..., 64, 64] those in the middle of the places, [..., 8, 8] int64."""
    return kinds[..., PLACE // 2 :: PLACE, PLACE // 2 :: PLACE].long()


def kind_weights(device):
    """Of each kind, and of none, in a cross entropy."""
    weights = torch.ones(len(KINDS) + 1, device=device)
    weights[-1] = NO_KIND
    return weights


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
