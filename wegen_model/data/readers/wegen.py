"""The two datasets that WeGen's authors made and did not release, as this project's builders write them: shards of samples.

DIIC (`wegen data diic`, file diic.json) and Laion-COCO-Recaption (`wegen data recaption`, file recaption.json).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import shards
from ..items import Item, Skips
from ..tasks import restate
from .files import rng


def _samples(folder: Path, task: str) -> Iterator[Item]:
    for name, n in shards.counts(folder).items():
        for i in range(n):

            def make(tar=folder / name, i=i):
                sample = shards.sample(tar, i)
                return sample if sample.task == task else restate(sample, task, rng(sample.key))

            yield Item(f"{name}:{i}", make)


def diic(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _samples(folder, task)


def recaption(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _samples(folder, task)
