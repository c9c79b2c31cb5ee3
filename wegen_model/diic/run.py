"""Runs steps unit by unit: a piece of film gives one shard a step, of the same name, whole or not at all.

What is there and came from the same input is not made again, so a run that was stopped goes on; one that other options made is refused, or
with `redo` made anew. Only the first step's shards and the samples hold pictures of frames: the steps between add to their values.
In this process; by Ray Data: spread.py. All steps together: build.py.
"""

from __future__ import annotations

import itertools
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import shards
from ..data.items import BROKEN, Skips
from ..data.record import Unreadable
from ..data.sample import Sample
from ..fileio import read_json
from ..progress import ProgressEvent
from . import steps
from .options import ORDER, Options
from .shots import dense, shots
from .statistics import count
from .units import Unit, identity

FOLDERS = {step: f"{i}-{step}" for i, step in enumerate(ORDER, 1)}


@dataclass(frozen=True)
class Work:
    """One shard to be made. `source`: a film, or the shard of the step before; `frames`: the shard of its shots; `drop`: records of those
    that are left out, since another unit has them."""

    step: str
    unit: Unit
    source: Path
    target: Path
    frames: Path | None = None
    drop: tuple[int, ...] = ()

    def origin(self) -> str:
        """What its input is, as a text that changes with it."""
        if self.step == "shots":
            return f"{identity(self.source)} {self.unit.start:g} {self.unit.end}"
        index = shards.Index.load(self.source)
        return f"{zlib.crc32(repr((index.crcs, index.notes and index.notes.get('watermark'), self.drop)).encode()):08x}"

    def done(self) -> bool:
        """Whether its shard is there and came from this input."""
        try:
            notes = shards.Index.load(self.target).notes or {}
        except (Unreadable, OSError):
            return False
        return self.target.exists() and notes.get("origin") == self.origin()


def process(work: Work, options: Options) -> dict:
    """One unit's step to one shard; how many things it held and gave. What cannot be used is named in the index's notes."""
    shard, skips, begun = shards.Shard(work.target), Skips(), time.perf_counter()
    read, notes, numbers = 0, dict[str, Any](), dict[str, float]()
    try:
        made: Iterator
        if work.step == "shots":
            made = ((key, values, pictures) for key, values, pictures in _shots(work, options, skips, notes))
        else:
            made = _made(work, options, skips)
        for thing in made:
            read += 1
            if isinstance(thing, Sample):
                try:
                    shard.add(shards.shrink(thing.check(), options.side))
                except BROKEN as error:
                    skips.add(thing.key, error)
                    continue
            else:
                shard.record(*thing)
            count(numbers, work.step, thing)
        notes |= {"skipped": dict(skips.reasons), "named": dict(skips.names), "numbers": numbers, "origin": work.origin()}
        index = shard.close(read, {**notes, "took": round(time.perf_counter() - begun, 2)})
    except BaseException:  # stopped or full: nothing of the shard stays
        shard.abandon()
        raise
    return {"read": read, "made": len(index.keys)}


def _shots(work: Work, o: Options, skips: Skips, notes: dict) -> Iterator[steps.Record]:
    try:
        yield from shots(work.unit, o, skips, notes)
    except BROKEN as error:
        skips.add(work.unit.film, error)


def _made(work: Work, o: Options, skips: Skips) -> Iterator:
    """What a step makes of a shard's records, `batch` pictures together; a record whose batch fails is tried alone."""
    size = max(1, o.batch // o.frames) if work.step in ORDER else o.batch
    records = _records(work, o, skips)
    while some := list(itertools.islice(records, size)):
        try:
            yield from _one_step(work, some, o)
        except BROKEN:
            for one in some:
                try:
                    yield from list(_one_step(work, [one], o))
                except BROKEN as error:
                    skips.add(f"{work.source.name}/{one.key}" if isinstance(one, Sample) else one[0], error)


def _one_step(work: Work, some: Sequence, o: Options) -> list:
    """The records or samples that some records become; nothing of what has nothing in it."""
    if work.step == "recaption":
        return steps.recaption(some, o)
    if work.step == "pair":
        return [sample for samples in steps.pair(some, o) for sample in samples]
    if work.step == "track":
        found = steps.track(some, o, lambda values: dense(work.unit, values["start"], values["end"], o, values["seek"]))
    else:
        found = {"caption": steps.caption, "ground": steps.ground}[work.step](some, o)
    return [(key, *made) for (key, _, _), made in zip(some, found) if made is not None]


def _records(work: Work, o: Options, skips: Skips) -> Iterator:
    """The records of the step before, each with its frames; of shards of pictures (recaption) the samples."""
    index = shards.Index.load(work.source)
    mark = (index.notes or {}).get("watermark")
    for i in range(len(index.keys)):
        name = f"{work.source.name}:{i}"
        try:
            if work.step == "recaption":
                yield shards.sample(work.source, i)
                continue
            _, values, pictures = shards.record(work.source, i)
            if work.step == "caption":
                if i in work.drop:
                    skips.add(name, "its frames are another film's too")
                    continue
                if mark is not None and o.watermark == "drop":
                    skips.add(name, "the film has a watermark")
                    continue
                values = {**values, "at": i}
            elif work.frames is not None:
                pictures = {**pictures, **shards.record(work.frames, values["at"])[2]}
            yield values.get("key", index.keys[i]), {**values, "key": values.get("key", index.keys[i])}, pictures
        except BROKEN as error:
            skips.add(name, error)


def run(step: str, work: Sequence[Work], folder: Path, options: Options, runtime=None, redo: bool = False) -> Skips:
    """A step over all its units, in this process. `redo`: what other options made is removed first."""
    prepare(step, folder, options, redo)
    todo = [w for w in work if not w.done()]
    for i, w in enumerate(todo, 1):
        process(w, options)
        if runtime is not None:
            runtime.tick(ProgressEvent("other", i, len(todo), label=step))
    return finish(folder, work)


def prepare(step: str, folder: Path, options: Options, redo: bool) -> None:
    """The folder of a step and its options. ValueError when it was made with others and is not to be made anew."""
    made, path = options.of(step), folder / "options.json"
    if redo and path.exists() and read_json(path) != made:
        shutil.rmtree(folder)
    shards.remember(folder, made)


def finish(folder: Path, work: Sequence[Work]) -> Skips:
    """The catalogue of a step's folder, and what its units left out."""
    shards.catalogue(folder)
    skips = Skips()
    for w in work:
        notes = shards.Index.load(w.target).notes or {}
        skips.reasons.update(notes.get("skipped", {}))
        for reason, names in notes.get("named", {}).items():
            skips.names.setdefault(reason, []).extend(names)
    return skips


def plan(step: str, found: Sequence[Unit], out: Path, drop: dict[str, tuple[int, ...]]) -> list[Work]:
    """A step's work on units: where each reads and writes."""
    before = ORDER[ORDER.index(step) - 1] if step != "shots" else ""
    made = []
    for unit in found:
        tar = f"{unit.name}.tar"
        source = out / FOLDERS[before] / tar if before else unit.path
        frames = out / FOLDERS["shots"] / tar if step in ORDER[2:] else None
        made.append(Work(step, unit, source, out / FOLDERS[step] / tar, frames, drop.get(unit.name, ()) if step == "caption" else ()))
    return made
