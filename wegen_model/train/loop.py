"""One resumable training loop for every stage.

A `Stage` says what is trained, on what, and how; `run` drives it with accelerate, logs JSON lines, and saves checkpoints that
hold everything (weights, optimiser, random state, step), written beside and renamed: killing the process at any moment and
starting again gives the weights of an uninterrupted run. A batch is a pure function of (seed, rank, step).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import Runtime


@dataclass
class Recipe:
    """Optimisation settings: AdamW, linear warm-up, cosine decay to `floor` of the peak."""

    steps: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 100
    floor: float = 0.05
    clip: float = 1.0
    ema: float = 0.0  # decay of an averaged copy; 0 keeps none
    save_every: int = 500
    log_every: int = 50
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning-rate factor of a step in 0..steps-1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass
class Stage:
    """What is trained (`model`), the loss of a batch, and where batches come from.

    `batch(step) -> Any` is a pure function; `loss(batch, generator) -> {"loss": …, other scalars to log}`. Random draws inside
    the loss use the generator, which is seeded by the step. `sample(step, folder)` may write sample sheets every `sample_every`.
    """

    name: str
    model: nn.Module
    batch: Callable[[int], Any]
    loss: Callable[[Any, torch.Generator], dict[str, Tensor]]
    recipe: Recipe
    sample: Callable[[int, Path], dict[str, float] | None] | None = None
    sample_every: int = 0
    groups: Callable[[nn.Module, float], list[dict]] | None = None  # parameter groups, given the peak rate
    ema: dict[str, Tensor] = field(default_factory=dict)

    def averaged(self) -> dict[str, Tensor]:
        """The weights to ship: averaged ones where the recipe keeps them."""
        return dict(self.model.state_dict()) | self.ema


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; the step is named so that its batch can be made again."""


def run(stage: Stage, folder: str | Path, runtime: Runtime | None = None, stop_after: float | None = None) -> Stage:
    """Train a stage to its last step, or resume it.

    Args:
        folder: holds `checkpoint/`, `log.jsonl` and sample sheets.
        stop_after: seconds after which to save and return early (the stage goes on at the next call).
    Returns:
        the stage with its model trained.
    """
    from accelerate import Accelerator

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe, runtime = stage.recipe, runtime or Runtime()
    accelerator = Accelerator(cpu=runtime.device.type == "cpu")
    trained = [p for p in stage.model.parameters() if p.requires_grad]
    groups = stage.groups(stage.model, recipe.learning_rate) if stage.groups else trained
    optimiser = torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas, recipe.eps, recipe.weight_decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    step = _restore(stage, optimiser, folder)
    if step >= recipe.steps:
        return stage
    model, optimiser = accelerator.prepare(stage.model, optimiser)
    model.train()
    begun, ticked, seen = time.time(), time.time(), {}
    with (folder / "log.jsonl").open("a") as log:
        while step < recipe.steps:
            for group, peak in zip(optimiser.param_groups, peaks):
                group["lr"] = peak * recipe.rate(step)
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            values = stage.loss(stage.batch(step), generator)
            if not torch.isfinite(values["loss"]):
                raise NotFinite(f"{stage.name}: the loss is {values['loss'].item()} at step {step}. The last checkpoint in "
                                f"{folder} is intact; lower the learning rate and start again.")
            optimiser.zero_grad(set_to_none=True)
            accelerator.backward(values["loss"])
            if recipe.clip:
                accelerator.clip_grad_norm_(trained, recipe.clip)
            optimiser.step()
            step += 1
            _average(stage, step)
            for key, value in values.items():
                seen.setdefault(key, []).append(float(value.detach()))
            if step % recipe.log_every == 0 or step == recipe.steps:
                row = {"step": step, "seconds": round(time.time() - ticked, 2), "rate": round(recipe.rate(step - 1), 4)}
                row |= {key: round(sum(values) / len(values), 5) for key, values in seen.items()}
                log.write(json.dumps(row) + "\n")
                log.flush()
                ticked, seen = time.time(), {}
            runtime.tick(step, recipe.steps, stage.name)
            done = step == recipe.steps or (stop_after is not None and time.time() - begun > stop_after)
            if done or step % recipe.save_every == 0:
                _save(stage, optimiser, folder, step)
            if stage.sample and stage.sample_every and (step % stage.sample_every == 0 or step == recipe.steps):
                model.eval()
                numbers = stage.sample(step, folder)
                model.train()
                if numbers:
                    log.write(json.dumps({"step": step} | {k: round(float(v), 5) for k, v in numbers.items()}) + "\n")
                    log.flush()
            if done:
                break
    stage.model.eval()
    return stage


def finished(folder: str | Path, recipe: Recipe) -> bool:
    """Has the stage in this folder reached its last step?"""
    state = Path(folder) / "checkpoint" / "state.json"
    return state.is_file() and json.loads(state.read_text())["step"] >= recipe.steps


def _average(stage: Stage, step: int) -> None:
    decay = min(stage.recipe.ema, (1 + step) / (10 + step))
    if not stage.recipe.ema:
        return
    with torch.no_grad():
        for key, value in stage.model.state_dict().items():
            if key in stage.ema and value.is_floating_point():
                stage.ema[key].lerp_(value, 1 - decay)
            else:
                stage.ema[key] = value.clone()


def _save(stage: Stage, optimiser, folder: Path, step: int) -> None:
    new, old, gone = folder / "checkpoint.new", folder / "checkpoint", folder / "checkpoint.old"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    torch.save({"model": stage.model.state_dict(), "optimiser": optimiser.state_dict(), "ema": stage.ema}, new / "weights.pt")
    (new / "state.json").write_text(json.dumps({"step": step, "stage": stage.name}))
    shutil.rmtree(gone, ignore_errors=True)
    if old.exists():
        os.replace(old, gone)
    os.replace(new, old)
    shutil.rmtree(gone, ignore_errors=True)


def _restore(stage: Stage, optimiser, folder: Path) -> int:
    place = folder / "checkpoint"
    if not place.exists() and (folder / "checkpoint.old").exists():  # killed between the two renames
        os.replace(folder / "checkpoint.old", place)
    if not place.exists():
        return 0
    saved = torch.load(place / "weights.pt", map_location="cpu", weights_only=True)
    stage.model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    stage.ema = saved["ema"]
    return json.loads((place / "state.json").read_text())["step"]
