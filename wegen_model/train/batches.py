"""A process's micro-batches, step by step; made when they are needed, or ahead by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .trainer import Backend, TrainingTask


class MicroBatches(torch.utils.data.Dataset):
    """Step -> this process's micro-batches of it."""

    def __init__(self, task: TrainingTask, rank: int, processes: int, accumulate: int):
        self.task, self.first, self.each, self.all = task, rank * accumulate, accumulate, processes * accumulate

    def __getitem__(self, step: int) -> list:
        return [self.task.micro_batch(step, self.first + i, self.all) for i in range(self.each)]


def ahead(task: TrainingTask, backend: Backend, accumulate: int, step: int, workers: int) -> Iterator[list]:
    """Each step's micro-batches from `step` on. Tasks that encode make theirs in this process."""
    batches = MicroBatches(task, backend.rank, backend.processes, accumulate)
    steps = range(step, task.settings.steps)
    if not workers or task.encodes:
        return (batches[i] for i in steps)
    return iter(
        torch.utils.data.DataLoader(
            batches, batch_size=None, sampler=steps, num_workers=workers, collate_fn=_as_it_is, generator=torch.Generator()
        )
    )


def shares_of(task: TrainingTask, backend: Backend, batches: list) -> list[dict[str, float]]:
    """For each micro-batch, the weight of each of its means: its items over the mean number of items of all micro-batches."""
    counts = [task.items(batch) for batch in batches]
    names = sorted(counts[0])
    if not names:
        return [{} for _ in batches]
    own = torch.tensor([[c[k] for k in names] for c in counts], dtype=torch.float32)
    total = backend.sum(own.sum(0))
    shares = own * (len(batches) * backend.processes) / total.clamp(min=1)
    return [dict(zip(names, row.tolist())) for row in shares]


def _as_it_is(value: Any) -> Any:
    return value
