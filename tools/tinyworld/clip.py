"""Stage 1: CLIP, an image and a text tower that tell which caption belongs to which picture (Radford et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPModel

from data import COLOURS, KINDS, PLACE, at_places, kind_weights
from loop import Recipe
from tokenizer import MAX_TOKENS, encode

# Of CLIPImageProcessor, and so of the training here.
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


# Weights of the losses beside the contrastive one (see `Pupil`).
PICTURE_WORDS, OWN_WORD, PATCH_KIND = 0.1, 0.2, 2.0


def recipe(steps, seed):
    return Recipe(
        steps=steps, batch=256, learning_rate=1e-3, warmup=min(60, steps // 5), weight_decay=0.1, betas=(0.9, 0.98), ema=0.998, seed=seed,
        matrix_rate=0.02, vectors=("embedding", "projection", "words", "kinds"),
    )  # fmt: skip


class Pupil(nn.Module):
    """CLIP and three linear readers, which are thrown away when it has learned.

    A batch's captions can mostly be told apart by colours, backgrounds and numbers, so contrast alone leaves shapes unlearned: after
    600,000 pictures a tower trained so named the kind of an object for one in five. The readers ask for what contrast does not:

    - from the picture's pooled state, the words of its captions (Joulin et al. 2016);
    - from the state of each patch, the kind of the object there, which the scene tells;
    - from the state of each token of a text, the token: the generator is told what these states hold.
    """

    def __init__(self, model, rates):
        """`rates` [V]: how often each token occurs in a picture's captions, from which the first reader starts."""
        super().__init__()
        self.clip = model
        self.picture_words = nn.Linear(model.config.vision_config.hidden_size, len(rates))
        self.patch_kinds = nn.Linear(model.config.vision_config.hidden_size, len(KINDS) + 1)
        self.own_words = nn.Linear(model.config.text_config.hidden_size, len(rates))
        with torch.no_grad():
            self.picture_words.weight.zero_()
            self.picture_words.bias.copy_(torch.logit(rates, eps=1e-4))


def words(ids, vocabulary):
    """Share of a picture's captions [N, 5, 32] that hold each token, [N, V] f32; the markers of start and end are no words."""
    found = torch.zeros(len(ids), vocabulary)
    for caption in ids.unbind(1):
        found += torch.zeros_like(found).scatter_(1, caption.long(), 1)
    found[:, vocabulary - 2 :] = 0
    return found / ids.shape[1]


def build(vocabulary):
    """2.0 M parameters; the text tower is also the text encoder of the generator."""
    text = dict(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, projection_dim=128,
        max_position_embeddings=MAX_TOKENS, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    )  # fmt: skip
    vision = dict(
        hidden_size=128, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4, projection_dim=128, image_size=64, patch_size=PLACE
    )
    # Plain attention: with these short sequences its backward is several times faster on a CPU than the fused one.
    return CLIPModel._from_config(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128), attn_implementation="eager")


def trim(ids):
    """Ids without the columns that are padding in every row; attention is causal, so nothing before them changes."""
    return ids[:, : int((ids != ids[0, -1]).sum(1).max()) + 1]


def shift(images, generator, most=3):
    """Each picture moved by up to `most` pixels, edges repeated. Never mirrored: captions tell left from right."""
    padded = F.pad(images, [most] * 4, mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (len(images), 2), generator=generator).tolist()
    side = images.shape[-1]
    return torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, offsets)])


def loss(split, ids, device):
    """`ids`: [N, 5, 32], all captions; one of the five, drawn for each picture, is contrasted.

    Symmetric cross entropy over a batch, and what the readers of a `Pupil` miss.
    """

    weights = kind_weights(device)

    def contrastive(pupil, indices, generator):
        kinds = split.kinds[indices].to(device)[:, None]
        moved = shift(torch.cat([split.pixels(indices, device), kinds], dim=1), generator)
        pixels, kinds = moved[:, :3], at_places(moved[:, 3]).flatten()
        which = torch.randint(0, ids.shape[1], (len(indices),), generator=generator)
        text = trim(ids[indices, which].long()).to(device)
        found = pupil.clip(input_ids=text, pixel_values=pixels)
        logits = found.logits_per_text.float()
        with torch.no_grad():  # CLIP's bound on the inverse temperature: 100
            pupil.clip.logit_scale.clamp_(max=4.6052)
        target = torch.arange(len(indices), device=device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        seen = pupil.picture_words(found.vision_model_output.pooler_output)
        missed = F.binary_cross_entropy_with_logits(seen.float(), words(ids[indices], seen.shape[1]).to(device), reduction="none").sum(1).mean()
        patches = pupil.clip.vision_model.post_layernorm(found.vision_model_output.last_hidden_state[:, 1:])
        shapes = F.cross_entropy(pupil.patch_kinds(patches).flatten(0, 1).float(), kinds, weight=weights)
        told = text != text[0, -1]  # not the padding, which repeats the end
        own = F.cross_entropy(pupil.own_words(found.text_model_output.last_hidden_state[told]).float(), text[told])
        value = contrast + PICTURE_WORDS * missed + PATCH_KIND * shapes + OWN_WORD * own
        accuracy = (logits.detach().argmax(1) == target).float().mean()
        parts = {"contrast": contrast, "accuracy": accuracy, "picture_words": missed, "patch_kind": shapes, "own_word": own}
        return value, {name: part.detach() for name, part in parts.items()}

    return contrastive


@torch.no_grad()
def image_features(model, pixels):
    """Unit vectors [N, 128] of pixels [N, 3, 64, 64] in [-1, 1]."""
    outputs = [model.vision_model(pixel_values=part.to(model.dtype)).pooler_output for part in pixels.split(250)]
    return F.normalize(model.visual_projection(torch.cat(outputs)).float(), dim=-1)


@torch.no_grad()
def text_features(model, tokenizer, captions):
    """Unit vectors [N, 128]."""
    ids = encode(tokenizer, captions).to(model.device)
    outputs = [model.text_model(input_ids=part).pooler_output for part in ids.split(250)]
    return F.normalize(model.text_projection(torch.cat(outputs)).float(), dim=-1)


def retrieval(text, image, pool=100):
    """Share of the texts [N, D] whose own image [N, D] is the closest of `pool`: mean over consecutive pools."""
    pool = min(pool, len(text))
    pools = len(text) // pool
    text, image = (x[: pools * pool].unflatten(0, (pools, pool)) for x in (text, image))
    best = (text @ image.transpose(1, 2)).argmax(2)
    return (best == torch.arange(pool, device=best.device)).float().mean().item()


def single_captions():
    """One for each kind and colour, colours running faster."""
    return [f"{'an' if colour == 'orange' else 'a'} {colour} {kind}" for kind in KINDS for colour in COLOURS]


def nearest_single(model, tokenizer, images):
    """Which of `single_captions` is nearest to each picture."""
    return (image_features(model, images) @ text_features(model, tokenizer, single_captions()).T).argmax(1).cpu()


def evaluate(split, tokenizer, device):
    kinds = [torch.unique(picture) for picture in split.kinds]
    alone = torch.tensor([i for i, found in enumerate(kinds) if (found < len(KINDS)).sum() == 1])
    truth = torch.stack([kinds[i][0] for i in alone.tolist()])  # the number for no kind is the highest

    def figures(model):
        text = text_features(model, tokenizer, split.first_captions())
        image = image_features(model, split.pixels(torch.arange(len(split)), device))
        kind = nearest_single(model, tokenizer, split.pixels(alone, device)) // len(COLOURS) == truth
        return {"retrieval_at_1_of_100": retrieval(text, image), "reverse": retrieval(image, text), "kind": kind.float().mean().item()}

    return figures
