"""What a run says of itself: JSON lines, TensorBoard where it is installed, throughput, MFU and memory.

A line holds step, seconds since the last line and the share of them spent waiting for data, the rate's factor, each loss (mean over the
steps of the line), and where the stage counts its work: samples, tokens and model FLOP a second, MFU against the devices' peak, and
the largest memory so far.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ..fileio import write_text

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


class Monitor:
    """Collects values of steps and writes a line every so many. Only the main process writes."""

    def __init__(self, folder: Path, backend, step: int, tensorboard: bool = False):
        self.path, self.backend, self.board = folder / "log.jsonl", backend, None
        self.peak, self.begun = peak(), time.perf_counter()
        self.waited = 0.0
        self.seen: dict[str, list[float]] = {}
        self.work: dict[str, float] = {}
        if not backend.main:
            return
        self._trim(step)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out.") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

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

    def line(self, step: int, rate: float) -> None:
        """Write what was added since the last line; called by every process."""
        seconds = time.perf_counter() - self.begun
        names = sorted(self.seen)
        means = torch.tensor([sum(self.seen[k]) / len(self.seen[k]) for k in names], dtype=torch.float64)
        kinds = sorted(self.work)
        work = torch.tensor([self.work[k] for k in kinds], dtype=torch.float64)
        if self.backend.processes > 1:
            means, work = self.backend.sum(means.float()).double() / self.backend.processes, self.backend.sum(work.float()).double()
        row: dict[str, float] = {"step": step, "seconds": round(seconds, 2), "waiting": round(self.waited / seconds, 3)}
        row["rate"] = round(rate, 4)
        row |= {k: round(v, 6) for k, v in zip(names, means.tolist())}
        done = dict(zip(kinds, work.tolist()))
        row |= {f"{k}_per_s": round(done[k] / seconds, 2) for k in ("samples", "tokens") if done.get(k)}
        if done.get("flops"):
            row["tflop_per_s"] = round(done["flops"] / seconds / 1e12, 3)
            if self.peak:
                row["mfu"] = round(done["flops"] / seconds / (self.peak * self.backend.processes), 4)
        row["memory_gb"] = round(memory(), 2)
        self.write(row)
        self.seen, self.work, self.waited, self.begun = {}, {}, 0.0, time.perf_counter()

    def write(self, row: dict) -> None:
        if not self.backend.main:
            return
        try:
            with self.path.open("a") as log:
                log.write(json.dumps(row) + "\n")
            if self.board is not None:
                for key, value in row.items():
                    if key != "step":
                        self.board.add_scalar(key, value, row["step"])
                self.board.flush()
        except OSError as error:  # only a checkpoint is worth stopping for
            logging.getLogger("wegen").warning(
                "%s: the line of step %s could not be written (%s); training goes on.", self.path, row["step"], error
            )

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _step(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # half a line: the process was killed while it wrote
        return sys.maxsize
