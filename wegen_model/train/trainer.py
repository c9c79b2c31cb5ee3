"""One resumable training loop for every stage.

A `Stage` says what is trained, on what, and how; `run` drives it with accelerate, logs JSON lines, and saves checkpoints that
hold everything (checkpoint.py): killing the process at any moment and starting again gives the weights of an uninterrupted run.

A step's batch is cut into pieces, one for each process and accumulation. A piece is a pure function of (seed, step, part), and so are
the random draws of its loss: two processes see what one with two accumulations sees.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import Runtime
from .backend import AccelerateBackend, SingleDevice
from .checkpoint import plain_batch, restore, save
from .metrics_logger import Monitor

_log = logging.getLogger("wegen")


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
    keep_every: int = 0  # steps whose checkpoints stay beside the last; 0 keeps the last alone
    log_every: int = 50
    seed: int = 0
    precision: str = "no"  # of the computation: no (as the weights), bf16, fp16
    pieces: int = 1  # a process's pieces of one step (gradient accumulation)

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

    A stage for several processes has `piece(step, part, parts)` in place of `batch`, and `counts(piece)`: over how many items each
    of its means runs. Its `loss(piece, generator, share)` multiplies each mean by `share[name]`, so that the mean over the pieces
    is the mean over all items, however unevenly they lie.
    """

    name: str
    model: nn.Module
    batch: Callable[[int], Any] | None
    loss: Callable[..., dict[str, Tensor]]
    recipe: Recipe
    sample: Callable[[int, Path], dict[str, float] | None] | None = None
    sample_every: int = 0
    groups: Callable[[nn.Module, float], list[dict]] | None = None  # parameter groups, given the peak rate
    ema: dict[str, Tensor] = field(default_factory=dict)
    piece: Callable[[int, int, int], Any] | None = None
    counts: Callable[[Any], dict[str, float]] | None = None
    work: Callable[[Any], dict[str, float]] | None = None  # samples, tokens and model FLOP of a piece
    place: Callable[[torch.device], None] | None = None  # brings the frozen parts to the device

    def averaged(self) -> dict[str, Tensor]:
        """The weights to ship: averaged ones where the recipe keeps them. On every process, where they are in shards."""
        whole = dict(self.model.state_dict()) | self.ema
        return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in whole.items()}


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; the step is named, and its batch saved."""


class Step(nn.Module):
    """What is wrapped for several processes: a forward pass is the stage's whole loss."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.model = stage.model
        self._loss = stage.loss

    def forward(self, *args) -> dict[str, Tensor]:
        return self._loss(*args)


def run(
    stage: Stage,
    folder: str | Path,
    runtime: Runtime | None = None,
    stop_after: float | None = None,
    *,
    alone: bool = False,
    workers: int = 0,
    tensorboard: bool = False,
) -> Stage:
    """Train a stage to its last step, or resume it.

    Args:
        folder: holds `checkpoint/`, `log.jsonl` and sample sheets.
        stop_after: seconds after which to save and return early (the stage goes on at the next call).
        alone: without accelerate, on the runtime's device: inside a graph.
        workers: processes that make batches ahead; 0 makes each when it is needed.
    Returns:
        the stage with its model trained.
    Raises:
        NotFinite: the loss or its gradient is no number. SaveFailed: a checkpoint could not be written. ValueError: what the device,
            or the number of processes, cannot do.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe, runtime = stage.recipe, runtime or Runtime()
    if recipe.precision == "fp16" and runtime.device.type == "cpu":
        raise ValueError("precision fp16 is for GPUs: choose bf16 or no on a CPU (--set precision=bf16).")
    backend = (
        SingleDevice(runtime.device, recipe.precision) if alone else AccelerateBackend(runtime.device, recipe.precision, recipe.pieces)
    )
    if backend.processes * recipe.pieces > 1 and stage.piece is None:
        raise ValueError(f"{stage.name}: this stage's batches cannot be divided; run it in one process without accumulation.")
    if stage.place is not None:
        stage.place(backend.device)
    groups = stage.groups(stage.model, recipe.learning_rate) if stage.groups else [p for p in stage.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas, recipe.eps, recipe.weight_decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    model, optimiser = backend.prepare(Step(stage), optimiser)
    step, ema = restore(folder, stage.name, backend, stage.model, optimiser)
    stage.ema = ema or stage.ema
    if step >= recipe.steps:
        return stage
    model.train()
    monitor, begun = Monitor(folder, backend, step, tensorboard), time.time()
    try:
        for batches in monitor.timed(_ahead(stage, backend, step, workers)):
            for group, peak in zip(optimiser.param_groups, peaks):
                group["lr"] = peak * recipe.rate(step)
            monitor.add(*_step(stage, backend, model, optimiser, step, batches, folder))
            step += 1
            _average(stage, step)
            if step % recipe.log_every == 0 or step == recipe.steps:
                monitor.line(step, recipe.rate(step - 1))
            try:
                if backend.main:
                    runtime.tick(step, recipe.steps, stage.name)
            except BaseException:  # cancelled: what was learned stays
                if backend.processes == 1:
                    save(folder, step, stage.name, backend, stage.model, optimiser, stage.ema, recipe.keep_every)
                raise
            late = stop_after is not None and not backend.agree(time.time() - begun <= stop_after)
            done = step == recipe.steps or late
            if done or step % recipe.save_every == 0:
                save(folder, step, stage.name, backend, stage.model, optimiser, stage.ema, recipe.keep_every)
            if stage.sample and stage.sample_every and (step % stage.sample_every == 0 or step == recipe.steps):
                model.eval()
                numbers = None
                with backend.gathered(model):
                    if backend.main or backend.kind != "whole":
                        try:
                            numbers = stage.sample(step, folder)
                        except OSError as error:  # only a checkpoint is worth stopping for
                            _log.warning("The sample pictures of step %d could not be written (%s); training goes on.", step, error)
                model.train()
                if numbers:
                    monitor.write({"step": step} | {k: round(float(v), 5) for k, v in numbers.items()})
            if done:
                break
    finally:
        monitor.close()
    stage.model.eval()
    return stage


def _step(stage: Stage, backend, model: nn.Module, optimiser, step: int, batches: list, folder: Path) -> tuple[dict, dict]:
    """One optimiser step over this process's pieces; its mean values, and its work."""
    recipe, count = stage.recipe, len(batches)
    shares = _shares(stage, backend, batches)
    values: dict[str, list[float]] = {}
    norm = None
    for i, batch in enumerate(batches):
        part = backend.rank * count + i
        generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) * (1 if stage.piece is None else 4_099) + part)
        with backend.piece(model, last=i + 1 == count):
            out = backend.forward(model, batch, generator, *shares[i])
            _finite(stage, backend, bool(torch.isfinite(out["loss"].detach())), float(out["loss"].detach()), step, part, batch, folder)
            backend.backward(out["loss"], count)
            norm = backend.step(model, optimiser, recipe.clip)
        for key, value in out.items():
            values.setdefault(key, []).append(float(value.detach()))
    if norm is not None and recipe.precision != "fp16":
        _finite(stage, backend, math.isfinite(float(norm)), float(norm), step, part, batch, folder, "gradient norm")
    work: dict[str, float] = {}
    for batch in batches if stage.work else ():
        for key, value in stage.work(batch).items():
            work[key] = work.get(key, 0.0) + value
    means = {key: sum(row) / len(row) for key, row in values.items()}
    if norm is not None and stage.piece is not None:
        means["norm"] = float(norm)
    return means, work


def _shares(stage: Stage, backend, batches: list) -> list[tuple]:
    """For each piece, how far each of its means weighs: its items over the mean number of items of all pieces."""
    if stage.counts is None:
        return [()] * len(batches)
    counts = [stage.counts(batch) for batch in batches]
    names = sorted(counts[0])
    own = torch.tensor([[c[k] for k in names] for c in counts], dtype=torch.float32)
    total = backend.sum(own.sum(0))
    shares = own * (len(batches) * backend.processes) / total.clamp(min=1)
    return [(dict(zip(names, row.tolist())),) for row in shares]


def _finite(stage: Stage, backend, good: bool, value: float, step: int, part: int, batch: Any, folder: Path, what: str = "loss") -> None:
    """Stop, on every process, when a number is none; the process that has it saves its batch."""
    if backend.agree(good):
        return
    said = f"the {what} of another process is not finite"
    if not good:
        path = folder / f"not-finite-step{step}-part{part}.pt"
        said = f"the {what} is {value} at step {step}; its batch is in {path}"
        try:
            torch.save({"stage": stage.name, "step": step, "part": part, what: value, "batch": plain_batch(batch)}, path)
        except (OSError, RuntimeError) as error:
            said = f"the {what} is {value} at step {step}; its batch could not be saved ({error})"
    raise NotFinite(
        f"{stage.name}: {said}. The last checkpoint in {folder} is intact. Look at that batch, or lower the learning rate, and start again."
    )


class _Pieces(torch.utils.data.Dataset):
    """Step -> this process's pieces of it."""

    def __init__(self, stage: Stage, rank: int, processes: int):
        self.stage, self.rank, self.parts = stage, rank, processes * stage.recipe.pieces

    def __getitem__(self, step: int) -> list:
        if self.stage.piece is None:
            return [self.stage.batch(step)]
        first = self.rank * self.stage.recipe.pieces
        return [self.stage.piece(step, first + i, self.parts) for i in range(self.stage.recipe.pieces)]


def _ahead(stage: Stage, backend, step: int, workers: int) -> Iterator[list]:
    pieces = _Pieces(stage, backend.rank, backend.processes)
    steps = range(step, stage.recipe.steps)
    if not workers:
        return (pieces[i] for i in steps)
    return iter(
        torch.utils.data.DataLoader(
            pieces, batch_size=None, sampler=steps, num_workers=workers, collate_fn=_as_it_is, generator=torch.Generator()
        )
    )


def _as_it_is(value):
    return value


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
