"""Runs steps shard by shard: one input file (a video, a shard) gives one shard of the same name, whole or not at all.

What is there already is not made again, so a run that was stopped goes on; one that other options made is refused. In this process,
or spread over machines by Ray Data, whose unit of work is the same input file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ..data import shards
from ..data.items import BROKEN, Skips
from ..data.optional import need
from ..data.sample import Sample
from ..progress import ProgressEvent
from .options import Options
from .steps import STEPS, recaption

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg")
ORDER = ("shots", *STEPS)


def process(step: str, source: Path, target: Path, options: Options) -> dict:
    """One input file to one shard; how many things it held and gave. What cannot be used is named in the index's notes."""
    shard = shards.Shard(target)
    skips, read = Skips(), 0
    try:
        if step == "shots":
            from .video import shots

            try:
                for key, values, pictures in shots(source, options):
                    read += 1
                    shard.record(key, values, pictures)
            except BROKEN as error:
                skips.add(source.name, error)
        else:
            for i in range(len(shards.Index.load(source).keys)):
                read += 1
                name = f"{source.name}:{i}"
                try:
                    made = (
                        recaption(shards.sample(source, i), options)
                        if step == "recaption"
                        else STEPS[step](shards.record(source, i), options)
                    )
                    for one in list(made):
                        if isinstance(one, Sample):
                            shard.add(shards.shrink(one.check(), options.side))
                        else:
                            shard.record(*one)
                except BROKEN as error:
                    skips.add(name, error)
        named = {reason: names for reason, names in skips.names.items()}
        index = shard.close(read, {"skipped": dict(skips.reasons), "named": named})
    except BaseException:  # stopped or full: nothing of the shard stays
        shard.abandon()
        raise
    return {"read": read, "made": len(index.keys)}


def run(step: str, sources: Iterable[Path], folder: Path, options: Options, engine: str = "here", runtime=None, workers: int = 0) -> Skips:
    """A step over all its input files. engine: `here`, or `ray` (Ray Data; `workers` of its actors)."""
    sources = list(sources)
    shards.remember(folder, {"step": step, **{f"--{k}": v for k, v in asdict(options).items()}})
    todo = [{"step": step, "source": str(s), "target": str(folder / (s.stem + ".tar"))} for s in sources]
    clash = [name for name, n in Counter(t["target"] for t in todo).items() if n > 1]
    if clash:
        raise ValueError(f"several inputs are called {Path(clash[0]).stem}: give them names of their own.")
    todo = [t for t in todo if not Path(t["target"]).with_suffix(shards.INDEX).exists()]
    if engine == "ray" and todo:
        spread(todo, options, workers)
    else:
        for i, t in enumerate(todo, 1):
            process(step, Path(t["source"]), Path(t["target"]), options)
            if runtime is not None:
                runtime.tick(ProgressEvent("other", i, len(todo), label=step))
    shards.catalogue(folder)
    skips = Skips()
    for s in sources:
        notes = shards.Index.load(folder / (s.stem + ".tar")).notes or {}
        skips.reasons.update(notes.get("skipped", {}))
        for reason, names in notes.get("named", {}).items():
            skips.names.setdefault(reason, []).extend(names)
    return skips


def spread(todo: list[dict], options: Options, workers: int) -> None:
    """The same work by Ray Data: the cluster is the one `ray.init()` finds, the files must be on storage that all its machines see.

    Each actor keeps its models; one GPU each where the cluster has any. Not run: written against ray 2.60, whose signatures it fits;
    no cluster came up where this was made. test_diic.py compares its shards with those made here, where ray is installed.
    """
    ray = need("ray")
    data = need("ray.data")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    actors = max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)))
    data.DataContext.get_current().enable_progress_bars = False
    made = data.from_items(todo, override_num_blocks=len(todo)).map(
        Worker, fn_constructor_args=(options,), concurrency=workers or actors, num_gpus=gpus
    )
    made.take_all()


class Worker:
    """One actor of Ray Data: a process that handles input files one after another."""

    def __init__(self, options: Options):
        self.options = options

    def __call__(self, row: dict) -> dict:
        return {**row, **process(row["step"], Path(row["source"]), Path(row["target"]), self.options)}


def videos(folder: Path) -> list[Path]:
    """The video files below a folder, or the file itself. ValueError when there is none."""
    found = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS)
    if not found:
        what = "there is no such folder" if not folder.exists() else f"no video in it ({', '.join(VIDEOS)})"
        raise ValueError(f"{folder}: {what}.")
    return found


def diic(source: Path, out: Path, options: Options, engine: str = "here", runtime=None, workers: int = 0) -> dict[str, Skips]:
    """All steps from videos to samples; `out`/5-pair is then a dataset that `wegen data shards diic` and mixtures read."""
    inputs, told = videos(source), {}
    for number, step in enumerate(ORDER, 1):
        folder = out / f"{number}-{step}"
        told[step] = run(step, inputs, folder, options, engine, runtime, workers)
        inputs = sorted(folder.glob("*.tar"))
    return told
