"""How fast samples come, and how fast a step takes them: `python tests/bench_train.py [--model DIR] [--data DIR] [--workers N]`.

Without --data, pictures are drawn into a temporary folder. A loader that gives fewer samples a second than the step takes is the
bottleneck: more workers, or fewer pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
import time
from pathlib import Path

import torch
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.command import open_source
from wegen.wegen_model.train.decoding import decoding_stage
from wegen.wegen_model.train.driver import Single
from wegen.wegen_model.train.loop import Step, _ahead, _step
from wegen.wegen_model.train.parts import load
from wegen.wegen_model.train.settings import PRESETS, STAGES
from wegen.wegen_model.train.writing import writing_stage


def draw(folder: Path, count: int = 64, size: int = 512) -> None:
    """Pictures with as much detail as a photograph's file has."""
    import numpy as np
    from PIL import Image

    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 255, (size // 16, size // 16, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        coarse.save(folder / f"{i}.jpg", quality=90)
        (folder / f"{i}.txt").write_text("a fox on a teal background")


def measure(model: str, data: str, stage: str, workers: int, steps: int, batch: int) -> str:
    parts = load(model, stage)
    s = dataclasses.replace(PRESETS["mini"][stage], batch=batch, steps=10_000)
    source = open_source(data, s.seed, batch)
    made = decoding_stage(parts, source, s, 1) if stage == "visual-decoding" else writing_stage(stage, parts, source, s, 1)
    driver = Single(Runtime().device, s.precision)
    made.place(driver.device)
    optimiser = torch.optim.AdamW([p for p in made.model.parameters() if p.requires_grad], 1e-5)
    net, optimiser = driver.prepare(Step(made), optimiser)
    rates = {}
    for n in {0, workers}:
        pieces = _ahead(made, driver, 0, n)
        next(pieces)  # workers start
        begun = time.perf_counter()
        for _ in itertools.islice(pieces, steps):
            pass
        rates[n] = steps * batch / (time.perf_counter() - begun)
    batches = next(_ahead(made, driver, 0, 0))
    _step(made, driver, net, optimiser, 0, batches, Path("."))
    begun = time.perf_counter()
    for step in range(steps):
        _step(made, driver, net, optimiser, step, batches, Path("."))
    takes = steps * batch / (time.perf_counter() - begun)
    given = ", ".join(f"{rate:.1f} with {n} workers" for n, rate in rates.items())
    ratio = max(rates.values()) / takes
    return f"{stage}: the loader gives {given}; a step takes {takes:.1f} samples/s on {driver.device} ({ratio:.1f} times)"


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
        for stage in STAGES[:2]:
            sys.stdout.write(measure(args.model, args.data or folder, stage, args.workers, args.steps, args.batch) + "\n")


if __name__ == "__main__":
    main()
