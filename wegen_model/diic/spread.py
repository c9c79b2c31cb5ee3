"""The same work by Ray Data: the cluster is the one that `ray.init()` finds, the files must be on storage that all its machines see.

The first step runs over all units; then each unit streams through the others, a pool of actors a step, so that a unit is captioned while
another is tracked. Actors keep their models; those of a step with a model take one GPU each where the cluster has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.optional import need
from . import repeats
from .options import ORDER, Options
from .run import FOLDERS, Work, finish, plan, prepare, process
from .units import Unit


def spread(found: Sequence[Unit], out: Path, options: Options, workers: int, redo: bool) -> dict:
    """As build.diic, which calls it."""
    for step in ORDER:
        prepare(step, out / FOLDERS[step], options, redo)
    first = plan("shots", found, out, {})
    each(first, options, workers)
    told = {"shots": finish(out / FOLDERS["shots"], first)}
    drop = repeats.find(out / FOLDERS["shots"], found, options.alike)
    later = {step: plan(step, found, out, drop) for step in ORDER[1:]}
    _stream([[later[step][i] for step in ORDER[1:]] for i in range(len(found))], options, workers)
    for step, work in later.items():
        told[step] = finish(out / FOLDERS[step], work)
    return told


def each(work: Sequence[Work], options: Options, workers: int) -> None:
    """One step over its units, where their shards are not there yet."""
    _stream([[w] for w in work if not w.done()], options, workers)


def _stream(rows: list[list[Work]], options: Options, workers: int) -> None:
    """Each row, a unit's work step after step, through a pool of actors for every step."""
    ray, data = need("ray"), need("ray.data")
    if not rows:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    data.DataContext.get_current().enable_progress_bars = False
    stream: Any = data.from_items([{"work": row} for row in rows], override_num_blocks=len(rows))
    here = ray.cluster_resources()
    stages = len(rows[0])
    for stage in range(stages):
        model = rows[0][stage].step not in ("shots",)
        gpus = (1 / stages) if model and here.get("GPU") else 0
        actors = workers or max(1, int(here.get("GPU" if gpus else "CPU", 1)) // stages)
        pool = data.ActorPoolStrategy(size=actors)
        stream = stream.map(
            Worker,
            fn_constructor_args=(options, stage),
            compute=pool,
            num_gpus=gpus,
            num_cpus=min(1.0, here["CPU"] / (stages * actors + 1)),
        )
    stream.take_all()


class Worker:
    """One actor of a step: a process that handles units one after another."""

    def __init__(self, options: Options, stage: int):
        self.options, self.stage = options, stage

    def __call__(self, row: dict) -> dict:
        work = row["work"][self.stage]
        if not work.done():
            process(work, self.options)
        return row
