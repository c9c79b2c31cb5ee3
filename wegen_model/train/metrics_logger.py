"""What a run says of itself: JSON lines, trackers (trackers.py), throughput, MFU and memory.

A line holds step, seconds since the last line and the share of them spent waiting for data, the learning rate (of each group) and `rate`,
its share of the peak, each loss (mean over the steps of the line), and where the stage counts its work: samples, tokens and model FLOP
a second, MFU against the devices' peak, and the largest memory so far. Held-out losses and sample pictures have lines of their own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..fileio import write_text
from .trackers import Trackers

# dense bf16 tensor-core peak of one device, FLOP/s: the vendors' data sheets, without sparsity
PEAKS = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "A10": 125e12,
    "MI300X": 1307e12,
}


def peak() -> float:
    """FLOP/s of this device in bf16; 0 where it is not known (then no MFU is given). WEGEN_PEAK_FLOPS sets it."""
    if told := os.environ.get("WEGEN_PEAK_FLOPS"):
        return float(told)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for part, flops in PEAKS.items() if part in name), 0.0)


def memory() -> float:
    """Largest memory of this process so far, GB: the GPU's, or resident memory on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def mean_by_name(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each name the mean over the rows that have it; names in order."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            found.setdefault(key, []).append(value)
    return {key: sum(found[key]) / len(found[key]) for key in sorted(found)}


class Monitor:
    """Collects values of steps and writes a line every so many. Only the main process writes."""

    def __init__(self, folder: Path, backend, step: int, trackers: list[str], config: dict[str, Any]):
        """`trackers`: names of accelerate's; `config`: the settings, which some of them show."""
        self.path, self.backend = folder / "log.jsonl", backend
        self.trackers = Trackers(trackers if backend.main else [], folder, step, config)
        self.peak, self.begun = peak(), time.perf_counter()
        self.waited, self.last = 0.0, float("nan")
        self.seen: dict[str, list[float]] = {}
        self.work: dict[str, float] = {}
        if backend.main:
            self._trim(step)

    def _trim(self, step: int) -> None:
        """Drop the lines of steps that will be run again."""
        if not self.path.is_file():
            return
        lines = self.path.read_text().splitlines()
        kept = [line for line in lines if _step(line) <= step]
        if len(kept) < len(lines):
            write_text(self.path, "".join(line + "\n" for line in kept))

    def timed(self, batches: Iterator) -> Iterator:
        """The same batches; the time until each arrives counts as waiting."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def add(self, values: dict[str, float], work: dict[str, float]) -> None:
        """One step's means, and what it did: samples, tokens, flops."""
        for key, value in values.items():
            self.seen.setdefault(key, []).append(value)
        for key, value in work.items():
            self.work[key] = self.work.get(key, 0.0) + value

    def words(self, rate: float) -> str:
        """What stands beside the progress bar."""
        last = self.seen["loss"][-1] if self.seen.get("loss") else self.last
        return f"loss {last:.4g}, rate {rate:.3g}"

    def line(self, step: int, rate: float, rates: dict[str, float]) -> None:
        """Write what was added since the last line; called by every process. `rate`: share of the peak; `rates`: of each group."""
        seconds = time.perf_counter() - self.begun
        # gathered by name: a value that few batches have, as `parallel`, may be of one process alone
        every = self.backend.gather(({k: sum(v) / len(v) for k, v in self.seen.items()}, self.work))
        means = mean_by_name([values for values, _ in every])
        done = {k: sum(work.get(k, 0.0) for _, work in every) for k in sorted({k for _, work in every for k in work})}
        row: dict[str, float] = {"step": step, "seconds": round(seconds, 2), "waiting": round(self.waited / seconds, 3)}
        row["rate"] = round(rate, 4)
        row |= {f"learning_rate{name and '_' + name}": float(f"{value:.6g}") for name, value in rates.items()}
        row |= {k: round(v, 6) for k, v in means.items()}
        row |= {f"{k}_per_s": round(done[k] / seconds, 2) for k in ("samples", "tokens") if done.get(k)}
        if done.get("flops"):
            row["tflop_per_s"] = round(done["flops"] / seconds / 1e12, 3)
            if self.peak:
                row["mfu"] = round(done["flops"] / seconds / (self.peak * self.backend.processes), 4)
        row["memory_gb"] = round(memory(), 2)
        self.write(row)
        self.last = self.seen["loss"][-1] if self.seen.get("loss") else self.last
        self.seen, self.work, self.waited, self.begun = {}, {}, 0.0, time.perf_counter()

    def write(self, row: dict) -> None:
        if not self.backend.main:
            return
        try:
            with self.path.open("a") as log:
                log.write(json.dumps(row) + "\n")
        except OSError as error:  # only a checkpoint is worth stopping for
            logging.getLogger("wegen").warning(
                "%s: the line of step %s could not be written (%s); training goes on.", self.path, row["step"], error
            )
        self.trackers.log({k: v for k, v in row.items() if k != "step"}, row["step"])

    def close(self) -> None:
        self.trackers.close()


def _step(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # half a line: the process was killed while it wrote
        return sys.maxsize
