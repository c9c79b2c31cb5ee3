"""How fast samples come, and how fast a step takes them, beside a bare PyTorch step of the same run.

    python -m wegen.benchmarks.training [--model DIR] [--data DIR] [--workers N] [--batch N] [--steps N]

Without --data, pictures are drawn into a temporary folder. Reading that gives fewer samples a second than the step takes is the
bottleneck: more workers, or fewer pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import autocast
from wegen.wegen_model.cli.train import open_source
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.backend import SingleDevice
from wegen.wegen_model.train.batches import ahead
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.presets import PRESETS
from wegen.wegen_model.train.settings import Settings
from wegen.wegen_model.train.stages import make_task
from wegen.wegen_model.train.trainer import LossModule, TrainingTask, _step

STAGES = ("visual-decoding", "stage-1")


def draw(folder: Path, count: int = 64, size: int = 512) -> None:
    """Pictures with as much detail as a photograph's file has."""
    import numpy as np
    from PIL import Image

    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 255, (size // 16, size // 16, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        coarse.save(folder / f"{i}.jpg", quality=90)
        (folder / f"{i}.txt").write_text("a fox on a teal background")


def made_of(model: str, stage: str, source, batch: int, **changes) -> tuple[TrainingTask, Settings]:
    """The stage over a source, as `wegen train` builds it."""
    s = dataclasses.replace(PRESETS["mini"][stage], batch=batch, steps=10_000, **changes)
    return make_task(stage, load(model, stage, lora=s.lora > 0, decoder=s.diffusion_weight > 0), source, s), s


def reading(model: str, data: str, stage: str, workers: int, steps: int, batch: int) -> dict[int, float]:
    """Samples a second that micro-batches come in, by number of workers."""
    task, s = made_of(model, stage, open_source(data, PRESETS["mini"][stage].seed, batch), batch)
    rates = {}
    for n in sorted({0, workers}):
        batches = ahead(task, SingleDevice(Runtime().device, s.precision), 1, 0, n)
        next(batches)  # workers start
        begun = time.perf_counter()
        for _ in itertools.islice(batches, steps):
            pass
        rates[n] = steps * batch / (time.perf_counter() - begun)
    return rates


def stepper(model: str, data: str, stage: str, batch: int, bare: bool = False, accumulate: int = 1, **changes) -> Callable[[], object]:
    """A call that takes one optimiser step, again and again of the same batch. `bare`: as three lines of PyTorch would."""
    task, s = made_of(model, stage, open_source(data, PRESETS["mini"][stage].seed, batch // accumulate), batch, **changes)
    backend = SingleDevice(Runtime().device, s.precision)
    task.prepare(backend.device)
    weights = [p for p in task.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-5)
    net, optimizer = backend.prepare(LossModule(task), optimizer)
    net.train()
    batches = next(ahead(task, backend, accumulate, 0, 0))
    shares = dict.fromkeys(task.items(batches[0]), 1.0)

    def plain() -> None:
        with autocast(backend.device.type, backend.dtype, enabled=backend.dtype is not None):
            loss = task.loss(batches[0], torch.Generator().manual_seed(0), shares)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return plain if bare else functools.partial(_step, task, backend, net, optimizer, 0, batches, Path("."))


def measure(model: str, data: str, stage: str, workers: int, steps: int, batch: int) -> str:
    variants = {
        "bare PyTorch (the baseline)": stepper(model, data, stage, batch, bare=True),
        "the loop": stepper(model, data, stage, batch),
        "+ recomputed activations": stepper(model, data, stage, batch, checkpointing=True),
        "+ two micro-batches a step": stepper(model, data, stage, batch, accumulate=2),
        "+ LoRA of rank 16": stepper(model, data, stage, batch, lora=16),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(steps + 1):  # in turns: a busy machine is as busy for each; the first warms up
        for name, step in variants.items():
            begun = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    takes = {name: batch / median(row) for name, row in seconds.items()}
    base, own = list(takes.values())[:2]
    rates = reading(model, data, stage, workers, steps, batch)
    lines = [f"{stage}, batches of {batch}, on {Runtime().device}"]
    lines += [f"  {name:<30}{rate:8.2f} samples/s   {rate / base:.2f}x" for name, rate in takes.items()]
    lines += [
        f"  {f'reading, {n} workers':<30}{rate:8.2f} samples/s   {rate / own:.1f} times what the loop takes" for n, rate in rates.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="wegen-mini")
    parser.add_argument("--data", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            draw(Path(folder))
        for stage in STAGES:
            sys.stdout.write(measure(args.model, args.data or folder, stage, args.workers, args.steps, args.batch) + "\n")


if __name__ == "__main__":
    main()
