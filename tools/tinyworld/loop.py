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
from muon import Muon


@dataclass(frozen=True)
class Recipe:
    """`learning_rate`, `weight_decay` and `betas` are AdamW's. With a `matrix_rate`, Muon trains the weights of two and more dimensions
    whose names have none of `vectors` in them: tables and first and last layers are no maps between hidden states."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    weight_decay: float
    betas: tuple
    ema: float
    seed: int
    matrix_rate: float | None = None
    vectors: tuple = ()

    def share(self, step):
        """Of the learning rates: a linear warm-up, then a cosine down to 1%."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        place = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * place)) / 2

    def optimizers(self, model):
        """All of them together train every parameter once."""
        matrices, tables, others = [], [], []
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                others.append(parameter)  # gains and biases are not decayed
            elif self.matrix_rate is None or any(part in name for part in self.vectors):
                tables.append(parameter)
            else:
                matrices.append(parameter)
        groups = [{"params": tables, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        adam = torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, fused=True)
        return [adam, Muon(matrices, self.matrix_rate)] if matrices else [adam]

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


def train(name, model, recipe, count, origin, loss, evaluate, run, kin=None, evaluations=5):
    """Trains `model` on `loss(model, indices, generator) -> (scalar, {name: scalar})` over `count` samples.

    `kin` groups samples that are hard to tell apart (see `step_indices`). `origin` tells what the stage is made from (see `digest`): a
    checkpoint of another one is not continued.

    Returns the moving average of the weights, in evaluation mode, and the seconds that training took, those of interrupted runs
    included. `evaluate(model) -> {name: number}` is called along the way, on the average.
    """
    model.to(run.device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizers = recipe.optimizers(model)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    path = run.work / f"{name}.ckpt"
    first, spent = restore(path, model, average, optimizers, f"{recipe} on {origin}", run.device)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]  # restoring replaces them
    record = Record(name, run.work, recipe.steps, recipe.batch, run.seconds_per_line, first)
    started = saved = time.monotonic()
    every = max(1, recipe.steps // evaluations)
    for step in range(first, recipe.steps):
        for group, rate in zip(groups, rates):
            group["lr"] = rate * recipe.share(step)
        indices = step_indices(count, recipe.batch, recipe.seed, step, kin)
        with run.autocast():
            value, parts = loss(model, indices, step_generator(recipe.seed, step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
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
            save(path, model, average, optimizers, f"{recipe} on {origin}", step + 1, spent + now - started)
            saved = now
    record.close()
    return average, spent + time.monotonic() - started


def save(path, model, average, optimizers, made_by, step, seconds):
    """Replaces the checkpoint at once: a run that is killed leaves the one before."""
    state = {"model": model.state_dict(), "average": average.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}
    partial = path.with_suffix(".tmp")
    torch.save({**state, "made_by": made_by, "step": step, "seconds": seconds}, partial)
    os.replace(partial, path)


def restore(path, model, average, optimizers, made_by, device):
    """The step to go on with, and the seconds spent before."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["made_by"] != made_by:
        raise SystemExit(f"{path} was made by\n  {state['made_by']}\nnot by\n  {made_by}\nname another folder with --work, or delete it")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return state["step"], state["seconds"]


def digest(*parts):
    """A short hash of texts, of tensors, and of the weights of models."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            hasher.update(part.encode())
        elif isinstance(part, torch.Tensor):
            hasher.update(part.contiguous().numpy())
        else:
            for name, value in part.state_dict().items():
                hasher.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()[:16]
