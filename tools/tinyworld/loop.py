"""The training loop that the three stages share: schedule, moving average, checkpoints, records."""

import copy
import hashlib
import math
import os
import time
from dataclasses import dataclass

import torch

from data import step_generator, step_indices
from logs import Record


@dataclass(frozen=True)
class Recipe:
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    weight_decay: float
    betas: tuple
    ema: float
    seed: int

    def rate(self, step):
        """Linear warm-up, then a cosine down to 1%."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        place = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * place)) / 2)

    def decay(self, step):
        """Of the moving average; short at first, or the random start would stay in it."""
        return min(self.ema, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Run:
    """Where and how all stages run."""

    device: torch.device
    work: object
    checkpoint_minutes: float
    seconds_per_line: float

    def autocast(self):
        # bf16: 1.6 to 2.8 times the f32 throughput of these models on a CPU with AVX512-BF16.
        return torch.autocast(self.device.type, torch.bfloat16)


def train(name, model, recipe, count, origin, loss, evaluate, run, evaluations=5):
    """Trains `model` on `loss(model, indices, generator) -> (scalar, {name: scalar})` over `count` samples.

    `origin` tells what the stage is made from (see `digest`): a checkpoint of another one is not continued.

    Returns the moving average of the weights, in evaluation mode, and the seconds that training took, those of interrupted runs
    included. `evaluate(model) -> {name: number}` is called along the way, on the average.
    """
    model.to(run.device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    # Gains, biases and embeddings are not decayed.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    path = run.work / f"{name}.ckpt"
    first, spent = restore(path, model, average, optimizer, f"{recipe} on {origin}", run.device)
    record = Record(name, run.work, recipe.steps, recipe.batch, run.seconds_per_line, first)
    started = saved = time.monotonic()
    every = max(1, recipe.steps // evaluations)
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        indices = step_indices(count, recipe.batch, recipe.seed, step)
        with run.autocast():
            value, parts = loss(model, indices, step_generator(recipe.seed, step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - recipe.decay(step))
        record.step(step + 1, {"loss": value.detach(), **parts})
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            begun = time.monotonic()
            figures = evaluate(average)
            record.evaluation(step + 1, figures, time.monotonic() - begun)
        now = time.monotonic()
        if now - saved > 60 * run.checkpoint_minutes or step + 1 == recipe.steps:
            if not math.isfinite(value.item()):
                raise SystemExit(f"{name}: the loss is not finite at step {step + 1}")
            save(path, model, average, optimizer, f"{recipe} on {origin}", step + 1, spent + now - started)
            saved = now
    record.close()
    return average, spent + time.monotonic() - started


def save(path, model, average, optimizer, made_by, step, seconds):
    """Replaces the checkpoint at once: a run that is killed leaves the one before."""
    state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    partial = path.with_suffix(".tmp")
    torch.save({**state, "made_by": made_by, "step": step, "seconds": seconds}, partial)
    os.replace(partial, path)


def restore(path, model, average, optimizer, made_by, device):
    """The step to go on with, and the seconds spent before."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["made_by"] != made_by:
        raise SystemExit(f"{path} was made by\n  {state['made_by']}\nnot by\n  {made_by}\nname another folder with --work, or delete it")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def digest(*parts):
    """A short hash of texts and of the weights of models."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            hasher.update(part.encode())
        else:
            for name, value in part.state_dict().items():
                hasher.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()[:16]
