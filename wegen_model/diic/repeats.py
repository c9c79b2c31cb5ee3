"""Shots that several films share: trailers, openings, copies of a film in other qualities. The first in order of names keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data import shards
from .filters import Seen
from .units import Unit


def find(folder: Path, units: Sequence[Unit], bits: int) -> dict[str, tuple[int, ...]]:
    """Unit -> the numbers of its shots whose frames a unit before it has, all but one at most. Reads values alone, no pictures.

    bits: fingerprints that differ in no more are one picture; below 0 nothing is a repeat.
    """
    seen, out = Seen(bits), dict[str, tuple[int, ...]]()
    for unit in units:
        tar = folder / f"{unit.name}.tar"
        marks = [[int(m, 16) for m in values.get("marks", ())] for _, values in shards.values(tar)]
        drop = [i for i, some in enumerate(marks) if some and sum(seen.had(m) for m in some) >= max(1, len(some) - 1)]
        for i, some in enumerate(marks):
            if i not in drop:
                seen.add(some)
        if drop:
            out[unit.name] = tuple(drop)
    return out
