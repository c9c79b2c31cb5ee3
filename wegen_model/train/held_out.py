"""The loss on data that is not trained on: the same micro-batches and random draws each time, so that its curve is that of the weights.

It is a mean over all items, as the training loss is; nothing of the run changes by it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .batches import shares_of
from .metrics_logger import mean_by_name

if TYPE_CHECKING:
    from .trainer import Backend, TrainingTask

LEAST = 64  # samples that are looked at, at least


@dataclass
class HeldOut:
    """source: of samples (data/image_folder.py); every: steps between two measurements."""

    source: Any
    every: int

    @torch.no_grad()
    def measure(self, task: TrainingTask, backend: Backend, model: nn.Module, accumulate: int) -> dict[str, float]:
        """`held_out_loss` and the other means of the task's loss; the same on every process, which all take part."""
        other = copy.copy(task)  # the same model, other samples
        other.source, s = self.source, task.settings
        rows: list[dict[str, float]] = []
        model.eval()
        for step in range(max(1, -(-LEAST // s.batch))):
            indices = [backend.rank * accumulate + i for i in range(accumulate)]
            batches = [other.micro_batch(step, index, accumulate * backend.processes) for index in indices]
            for index, batch, share in zip(indices, batches, shares_of(other, backend, batches)):
                generator = torch.Generator().manual_seed((s.seed * 1_000_003 + step) * 4_099 + index)
                rows.append({key: float(value) for key, value in backend.forward(model, batch, generator, share).items()})
        model.train()
        means = mean_by_name([row for some in backend.gather(rows) for row in some])
        return {f"held_out_{key}": value for key, value in means.items()}
