"""One resumable training loop for every stage.

A `TrainingTask` owns what is trained, its batches, its loss and its export (train/stages/); `train` drives any of them with accelerate,
logs JSON lines, and saves checkpoints that hold everything (checkpoint.py): killing the process at any moment and starting again gives
the weights of an uninterrupted run. The loop knows no task by name.

A step's batch is cut into micro-batches, one for each process and accumulation. A micro-batch is a pure function of (seed, step, index),
and so are the random draws of its loss: two processes see what one with two accumulations sees.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..progress import ProgressEvent
from ..runtime import NotANumber, Runtime
from . import optimizer as optimizers
from .backend import AccelerateBackend, SingleDevice
from .batches import ahead, shares_of
from .checkpoint import plain_batch, restore, save
from .held_out import HeldOut
from .metrics_logger import Monitor
from .run_record import RunRecord
from .settings import Settings, learning_rate_factor

_log = logging.getLogger("wegen")
Backend = SingleDevice | AccelerateBackend
COMPILED = ("Layer", "Block", "BasicTransformerBlock", "ResnetBlock2D")  # of language model, tower, UNet and VAE


class TrainingTask:
    """What a stage trains. Subclasses (train/stages/) fill in the methods; the loop calls nothing else.

    name: of the stage, as checkpoints and messages have it. model: what is trained, and kept in checkpoints. encodes: does
    `micro_batch` run networks? Then batches are made in this process alone.
    """

    encodes = False

    def __init__(self, name: str, model: nn.Module, settings: Settings):
        self.name, self.model, self.settings = name, model, settings
        self.source: Any = None  # of samples (data/image_folder.py), where the task reads one
        self.images: Callable[[int, Path], dict[str, float] | None] | None = None  # sample pictures, see `sample`

    def micro_batch(self, step: int, index: int, count: int) -> Any:
        """Micro-batch `index` of the `count` of a step: a pure function."""
        raise NotImplementedError

    def loss(self, batch: Any, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        """{"loss": …, other scalars to log} of a micro-batch. Random draws use the generator, which is seeded by step and index.

        Each mean is multiplied by `share[name]`, so that the mean over the micro-batches is the mean over all items, however unevenly
        they are distributed.
        """
        raise NotImplementedError

    def items(self, batch: Any) -> dict[str, float]:
        """Over how many items each mean of the loss runs, by the names that `share` has."""
        return {}

    def work(self, batch: Any) -> dict[str, float]:
        """Samples, tokens and model FLOP of a micro-batch, for the log."""
        return {}

    def rate_groups(self) -> list[tuple[str, list[nn.Parameter], float]]:
        """What is trained, in groups: name, parameters, and the factor of their learning rate."""
        return [("", [p for p in self.model.parameters() if p.requires_grad], 1.0)]

    def frozen(self) -> list[nn.Module | None]:
        """Networks that a step runs besides `model`."""
        return []

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        """Move frozen modules to the device, and make what a run needs once; the loop moves `model`."""

    def sample(self, step: int, folder: Path) -> dict[str, float] | None:
        """Write sample pictures, where there are any; numbers for the log, or None."""
        return self.images(step, folder) if self.images else None

    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        """Write the trained model folder `target`, made of `source` and these weights; `folder` is the work folder. What was written."""
        raise NotImplementedError


@dataclass
class Trained:
    """What a run has reached: the task, its step, and the averaged weights, where the settings keep them."""

    task: TrainingTask
    step: int
    ema: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.step >= self.task.settings.steps

    def weights(self) -> dict[str, Tensor]:
        """The weights to ship: averaged ones where they are kept. With FSDP, every process must call it."""
        whole = dict(self.task.model.state_dict()) | self.ema
        return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in whole.items()}


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; the step is named, and its batch saved."""


class LossModule(nn.Module):
    """What is wrapped for several processes: a forward pass is the task's whole loss."""

    def __init__(self, task: TrainingTask):
        super().__init__()
        self.model = task.model
        self._loss = task.loss

    def forward(self, *args) -> dict[str, Tensor]:
        return self._loss(*args)


def train(
    task: TrainingTask,
    folder: str | Path,
    runtime: Runtime | None = None,
    stop_after: float | None = None,
    *,
    alone: bool = False,
    accumulate: int = 1,
    workers: int = 0,
    trackers: list[str] | None = None,
    sample_every: int = 0,
    held_out: HeldOut | None = None,
    record: RunRecord | None = None,
) -> Trained:
    """Train a task to its last step, or go on with it.

    Args:
        folder: holds `checkpoint/`, `log.jsonl` and sample sheets.
        stop_after: seconds after which to save and return early (the task goes on at the next call).
        alone: without accelerate, on the runtime's device: inside a graph.
        accumulate: a process's micro-batches of one step (gradient accumulation).
        workers: processes that make batches ahead; 0 makes each when it is needed.
        trackers: names of accelerate's trackers. sample_every: steps between sample pictures; 0 makes none. held_out: data whose loss
            is measured on the way.
        record: what the run is made with, kept in its checkpoints; it was compared with that of the run that goes on.
    Raises:
        NotFinite: the loss or its gradient is no number. SaveFailed: a checkpoint could not be written. ValueError: what the device,
            or the number of processes, cannot do; or the folder's run began with other settings of the optimiser.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    s, runtime = task.settings, runtime or Runtime()
    if s.precision == "fp16" and runtime.device.type == "cpu":
        raise ValueError("precision fp16 is for GPUs: choose bf16 or no on a CPU (--set precision=bf16).")
    backend: Backend = SingleDevice(runtime.device, s.precision) if alone else AccelerateBackend(runtime.device, s.precision, accumulate)
    if backend.kind == "engine" and s.ema:
        raise ValueError(f"ema is {s.ema}: DeepSpeed's checkpoints keep no averaged weights. Choose --set ema=0, or FSDP.")
    task.prepare(backend.device, runtime)
    if s.compile:
        compile_blocks(task.model, *task.frozen())
    names, groups, factors = zip(*task.rate_groups())
    optimizer = optimizers.make_optimizer(list(groups), s, backend.device)
    model, optimizer = backend.prepare(LossModule(task), optimizer)
    step, ema = restore(folder, task.name, backend, task.model, optimizer)
    if step and backend.kind != "engine":
        ema = optimizers.resume(optimizer, s, ema, record.allowed if record else frozenset(), str(folder))
    reached = Trained(task, step, ema)
    if reached.finished:
        return reached
    kept = record.as_json() if record else None

    def keep() -> None:
        save(folder, reached.step, task.name, backend, task.model, optimizer, reached.ema, s.keep_every, kept)

    model.train()
    monitor, begun = Monitor(folder, backend, step, trackers or [], dataclasses.asdict(s)), time.time()
    try:
        for batches in monitor.timed(ahead(task, backend, accumulate, step, workers)):
            rates = [s.learning_rate * learning_rate_factor(s, reached.step) * factor for factor in factors]
            optimizers.set_rates(optimizer, rates)
            monitor.add(*_step(task, backend, model, optimizer, reached.step, batches, folder))
            reached.step += 1
            _average(reached)
            if reached.step % s.log_every == 0 or reached.finished:
                monitor.line(reached.step, learning_rate_factor(s, reached.step - 1), dict(zip(names, rates)))
            try:
                if backend.main:
                    runtime.tick(ProgressEvent("train", reached.step, s.steps, monitor.words(rates[0]), label=task.name))
            except BaseException:  # cancelled: what was learned stays
                if backend.processes == 1:
                    keep()
                raise
            late = stop_after is not None and not backend.agree(time.time() - begun <= stop_after)
            if reached.finished or late or reached.step % s.save_every == 0:
                keep()
            if held_out and (reached.step % held_out.every == 0 or reached.finished):
                monitor.write({"step": reached.step} | held_out.measure(task, backend, model, accumulate))
            if sample_every and (reached.step % sample_every == 0 or reached.finished):
                _sample(task, backend, model, reached.step, folder, monitor)
            if reached.finished or late:
                break
    finally:
        monitor.close()
    task.model.eval()
    return reached


def _sample(task: TrainingTask, backend: Backend, model: nn.Module, step: int, folder: Path, monitor: Monitor) -> None:
    """The task's sample pictures, and its numbers in the log."""
    numbers = None
    model.eval()
    with backend.gathered(model):
        if backend.main or backend.kind != "whole":
            try:
                numbers = task.sample(step, folder)
            except (OSError, NotANumber) as error:  # only a checkpoint is worth stopping for
                _log.warning("The sample pictures of step %d could not be written (%s); training goes on.", step, error)
    model.train()
    if backend.main and task.images is not None:
        monitor.trackers.pictures(folder / "samples" / f"{step:06d}.png", getattr(task.images, "requests", []), step)
    if numbers:
        monitor.write({"step": step} | {k: round(float(v), 5) for k, v in numbers.items()})


def _step(
    task: TrainingTask, backend: Backend, model: nn.Module, optimizer: Any, step: int, batches: list, folder: Path
) -> tuple[dict, dict]:
    """One optimiser step over this process's micro-batches; its mean values, and its work."""
    s, count = task.settings, len(batches)
    shares = shares_of(task, backend, batches)
    values: dict[str, list[float]] = {}
    norm = None
    for i, batch in enumerate(batches):
        index = backend.rank * count + i
        generator = torch.Generator().manual_seed((s.seed * 1_000_003 + step) * 4_099 + index)
        with backend.piece(model, last=i + 1 == count):
            out = backend.forward(model, batch, generator, shares[i])
            value = out["loss"].detach()
            _check_finite(task, backend, bool(torch.isfinite(value)), float(value), step, index, batch, folder)
            backend.backward(out["loss"], count)
            norm = backend.step(model, optimizer, s.clip)
        for key, value in out.items():
            values.setdefault(key, []).append(float(value.detach()))
    if norm is not None and s.precision != "fp16":
        _check_finite(task, backend, math.isfinite(float(norm)), float(norm), step, index, batch, folder, "gradient norm")
    work: dict[str, float] = {}
    for batch in batches:
        for key, amount in task.work(batch).items():
            work[key] = work.get(key, 0.0) + amount
    means = {key: sum(row) / len(row) for key, row in values.items()}
    if norm is not None:
        means["norm"] = float(norm)
    return means, work


def _check_finite(
    task: TrainingTask, backend: Backend, good: bool, value: float, step: int, index: int, batch: Any, folder: Path, what: str = "loss"
) -> None:
    """Stop every process when one of them has a NaN or infinite value; that one saves its batch first.

    Raises:
        NotFinite: naming the step, the value and the file.
    """
    if backend.agree(good):
        return
    said = f"the {what} of another process is not finite"
    if not good:
        path = folder / f"not-finite-step{step}-part{index}.pt"
        said = f"the {what} is {value} at step {step}; its batch is in {path}"
        try:
            torch.save({"stage": task.name, "step": step, "part": index, what: value, "batch": plain_batch(batch)}, path)
        except (OSError, RuntimeError) as error:
            said = f"the {what} is {value} at step {step}; its batch could not be saved ({error})"
    raise NotFinite(
        f"{task.name}: {said}. The last checkpoint in {folder} is intact. Look at that batch, or lower the learning rate, and start again."
    )


def compile_blocks(*models: nn.Module | None) -> None:
    """torch.compile of each repeated block, in place: names of weights stay, and equal blocks are compiled once."""
    blocks = {m for model in models if model is not None for m in model.modules() if type(m).__name__ in COMPILED}
    for block in blocks:
        block.compile()


def finished(folder: str | Path, steps: int) -> bool:
    """Has the run in this folder reached its last step?"""
    state = Path(folder) / "checkpoint" / "state.json"
    return state.is_file() and json.loads(state.read_text())["step"] >= steps


def _average(reached: Trained) -> None:
    """e <- d e + (1-d) w with d = min(ema, (1+t)/(10+t)): early steps are forgotten fast."""
    s, step = reached.task.settings, reached.step
    if not s.ema:
        return
    decay = min(s.ema, (1 + step) / (10 + step))
    with torch.no_grad():
        for key, value in reached.task.model.state_dict().items():
            if key in reached.ema and value.is_floating_point():
                reached.ema[key].lerp_(value, 1 - decay)
            else:
                reached.ema[key] = value.clone()
