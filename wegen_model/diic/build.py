"""All steps from videos to samples, and Laion-COCO-Recaption: in this process (run.py) or by Ray Data (spread.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..data import shards
from ..data.items import Skips
from . import repeats
from .options import ORDER, Options
from .run import FOLDERS, Work, finish, plan, prepare, run
from .spread import each, spread
from .units import Unit, units


def diic(source: Path, out: Path, options: Options, engine: str = "here", runtime=None, workers: int = 0, redo: bool = False) -> dict:
    """All steps from videos to samples; `out`/5-pair is then a dataset that `wegen data shards diic` and mixtures read.

    engine: `here`, or `ray` (Ray Data; `workers` actors a step). The first step runs over all films before the others, which leave out
    the shots that several films share.
    """
    found, told, drop = units(source, options.unit), {}, dict[str, tuple[int, ...]]()
    if engine == "ray":
        return spread(found, out, options, workers, redo)
    for step in ORDER:
        told[step] = run(step, plan(step, found, out, drop), out / FOLDERS[step], options, runtime, redo)
        if step == "shots":
            drop = repeats.find(out / FOLDERS[step], found, options.alike)
    return told


def recaption(source: Path, out: Path, options: Options, engine: str = "here", runtime=None, workers: int = 0, redo: bool = False) -> Skips:
    """Laion-COCO-Recaption of a folder of shards."""
    tars = [source / name for name in shards.counts(source)]
    work = [Work("recaption", Unit(tar, tar.name, tar.stem), tar, out / tar.name) for tar in tars]
    if engine == "ray":
        prepare("recaption", out, options, redo)
        each(work, options, workers)
        return finish(out, work)
    return run("recaption", work, out, options, runtime, redo)


def unused(out: Path, found: Sequence[Unit]) -> list[str]:
    """Shards of films that are no longer among the sources."""
    names = {f"{unit.name}.tar" for unit in found}
    return sorted(p.name for p in (out / FOLDERS["shots"]).glob("*.tar") if p.name not in names)


def write_mark(folder: Path, name: str, made: dict) -> None:
    """The file by which a folder of samples is known, with its numbers."""
    shards.write_text(folder / name, json.dumps(made, indent=1))
