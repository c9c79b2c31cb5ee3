"""A weighted mixture of shard folders whose order is a pure function: `samples(step, rank, world)` is the same whenever it is asked.

Each micro-batch is of one source, so of one task; its samples are alike in length. Ranks draw sources independently (SEED-X's
SampleMultiplexer, seed + rank) or, with `together`, all the same at a step (what FSDP needs where tasks use different modules).
No sample comes twice in an epoch of its source, whatever the number of ranks: the k-th micro-batch that any rank draws from a source
is its k-th batch. An epoch shuffles the shards, takes `window` of them at a time and shuffles the samples of those, so that reading
stays within few files.

The file (JSON):

    {"seed": 42, "batch": 8, "together": false, "window": 8,
     "sources": [{"shards": "shards/magicbrush", "weight": 2.0},
                 {"shards": "shards/laion-coco", "weight": 1.0, "as": "restoration", "batch": 4}]}

Paths are relative to the file. `as` makes another task of samples that are one picture (tasks.restate), anew at each step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..fileio import read_json
from . import shards
from .readers import guesses
from .sample import Sample
from .tasks import RESTATED, restate

TRIES = 20  # other samples read for one that cannot be
SPAN = 50  # micro-batches that are sorted by length together


@dataclass(frozen=True)
class Source:
    """One folder of shards and its share."""

    folder: Path
    weight: float = 1.0
    task: str = ""  # make this task of its samples; empty: as stored
    batch: int = 8

    @property
    def name(self) -> str:
        return self.folder.name + (f" as {self.task}" if self.task else "")


@dataclass
class Drawn:
    """A micro-batch: its samples, where they come from, and what could not be read on the way."""

    source: str
    samples: list[Sample]
    skipped: list[str] = field(default_factory=list)


class Mixture:
    """See above. ValueError for a source that is no shard folder, naming what it looks like."""

    def __init__(self, sources: list[Source], seed: int = 42, together: bool = False, window: int = 8):
        if not sources or sum(s.weight for s in sources) <= 0:
            raise ValueError("mixture: name at least one source with a weight above 0.")
        self.sources, self.seed, self.together, self.window = sources, seed, together, window
        self.orders = [Order(s, (seed, i), window) for i, s in enumerate(sources)]
        self.shares = np.array([s.weight for s in sources]) / sum(s.weight for s in sources)
        self._drawn: dict[int, np.ndarray] = {}  # world -> (steps, sources): micro-batches drawn before each step

    @classmethod
    def load(cls, path: str | Path) -> Mixture:
        """Of a mixture file, or of one folder of shards."""
        path = Path(path)
        if path.is_dir():
            return cls([Source(path)])
        try:
            made = read_json(path)
            batch = int(made.get("batch", 8))
            sources = [
                Source((path.parent / s["shards"]).resolve(), float(s.get("weight", 1)), s.get("as", ""), int(s.get("batch", batch)))
                for s in made["sources"]
            ]
        except FileNotFoundError:
            raise ValueError(f"{path}: there is no such mixture file or folder of shards.") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a mixture ({type(error).__name__}: {error}). It is JSON with a list `sources`, each with "
                "`shards` and perhaps `weight`, `as`, `batch`."
            ) from None
        for s in sources:
            if s.task and s.task not in RESTATED:
                raise ValueError(f"{path}: {s.folder.name} cannot be read as {s.task!r}; choose one of {', '.join(RESTATED)}.")
            if s.weight < 0 or s.batch < 1:
                raise ValueError(f"{path}: {s.folder.name} has weight {s.weight:g} and batch {s.batch}; weights are at least 0, batches 1.")
        return cls(sources, int(made.get("seed", 42)), bool(made.get("together", False)), int(made.get("window", 8)))

    def choice(self, step: int, world: int) -> np.ndarray:
        """(world,) the source of each rank's micro-batch."""
        rng = np.random.default_rng((self.seed, 1, step))
        draws = rng.choice(len(self.sources), 1 if self.together else world, p=self.shares)
        return np.broadcast_to(draws, (world,))

    def position(self, step: int, world: int) -> np.ndarray:
        """(sources,) micro-batches that all ranks drew before this step. Counted once, from the start: the position is the step."""
        table = self._drawn.get(world, np.zeros((1, len(self.sources)), np.int64))
        if step >= len(table):
            rows = [table[-1]]
            for s in range(len(table) - 1, step + 256):
                rows.append(rows[-1] + np.bincount(self.choice(s, world), minlength=len(self.sources)))
            table = np.concatenate([table, rows[1:]])
            self._drawn[world] = table
        return table[step]

    def samples(self, step: int, rank: int = 0, world: int = 1) -> Drawn:
        """Rank `rank`'s micro-batch of a step. What cannot be read is replaced by other samples of the source, and named in `skipped`.

        Raises:
            ValueError: none of a source's samples can be read.
        """
        chosen = self.choice(step, world)
        at = int(chosen[rank])
        k = int(self.position(step, world)[at] + (chosen[:rank] == at).sum())
        source, order = self.sources[at], self.orders[at]
        drawn = Drawn(source.name, [])
        spare = None
        for place in order.batch(k):
            rng = np.random.default_rng((self.seed, 2, step, rank, len(drawn.samples)))
            for _ in range(TRIES):
                try:
                    sample = shards.sample(*place)
                    if source.task:
                        sample = restate(sample, source.task, rng)
                    drawn.samples.append(sample)
                    break
                except ValueError as error:
                    if str(error) not in drawn.skipped:
                        drawn.skipped.append(str(error))
                    if spare is None:
                        spare = np.random.default_rng((self.seed, 3, step, rank))
                    place = order.any(spare)
            else:
                raise ValueError(
                    f"{source.folder}: {TRIES} samples in a row cannot be read, the last one because: {drawn.skipped[-1]}. "
                    "Delete what is damaged there (a .tar and its index): the command that wrote the folder then writes it "
                    "anew. Or take the source out of --data."
                )
        return drawn


def shard_counts(folder: Path) -> dict[str, int]:
    """shard -> samples. ValueError for a folder without shards, saying what it seems to be."""
    try:
        return shards.counts(folder)
    except shards.NoShards as error:
        hint = "Make shards with `wegen data shards`."
        if kinds := guesses(folder):
            hint = f"It looks like {' or '.join(kinds)}: `wegen data shards {kinds[0]} {folder} OUT` makes shards of it."
        raise ValueError(f"{error} {hint}") from None


class Order:
    """The order of one source's samples, epoch after epoch."""

    def __init__(self, source: Source, seed: tuple[int, ...], window: int):
        self.source, self.seed, self.window = source, seed, window
        found = {name: n for name, n in shard_counts(source.folder).items() if n}
        self.names, self.counts = list(found), np.array(list(found.values()))
        self._ends = [0]  # micro-batches up to the end of each epoch
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the epoch looked at last

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's order of shards, and the micro-batches up to the end of each window."""
        if epoch not in self._known:
            order = np.random.default_rng((*self.seed, epoch)).permutation(len(self.names))
            sizes = np.add.reduceat(self.counts[order], np.arange(0, len(order), self.window))
            self._known = {epoch: (order, np.maximum(sizes // self.source.batch, 1).cumsum())}  # the rest comes in another epoch
        return self._known[epoch]

    def batch(self, k: int) -> list[tuple[Path, int]]:
        """Shard and row of each sample of the k-th micro-batch."""
        while k >= self._ends[-1]:
            self._ends.append(self._ends[-1] + int(self._epoch(len(self._ends) - 1)[1][-1]))
        epoch = int(np.searchsorted(self._ends, k, side="right")) - 1
        ends = self._epoch(epoch)[1]
        k -= self._ends[epoch]
        number = int(np.searchsorted(ends, k, side="right"))
        k -= int(ends[number - 1]) if number else 0
        return [(self.source.folder / self.names[s], int(i)) for s, i in _window(self, epoch, number)[k]]

    def any(self, rng: np.random.Generator) -> tuple[Path, int]:
        """Any sample."""
        s = rng.integers(len(self.names))
        return self.source.folder / self.names[s], int(rng.integers(self.counts[s]))

    def lay(self, epoch: int, number: int) -> list[np.ndarray]:
        """The micro-batches of a window: (batch, 2) rows of shard and sample; alike in length, in any order."""
        group = self._epoch(epoch)[0][number * self.window : (number + 1) * self.window]
        rng = np.random.default_rng((*self.seed, epoch, number))
        rows = np.concatenate([np.stack([np.full(self.counts[s], s), np.arange(self.counts[s])], 1) for s in group])
        rows = rows[rng.permutation(len(rows))]
        batch = self.source.batch
        if len(rows) < batch:  # a source smaller than a batch is shown again
            rows = np.resize(rows, (batch, 2))
        rows = rows[: len(rows) // batch * batch]
        lengths = {int(s): self._lengths(int(s)) for s in group}
        tokens = np.array([lengths[int(s)][i] for s, i in rows])
        out = []
        for start in range(0, len(rows), batch * SPAN):
            span = rows[start : start + batch * SPAN]
            span = span[np.argsort(tokens[start : start + batch * SPAN], kind="stable")]
            out += [span[i : i + batch] for i in range(0, len(span), batch)]
        return [out[i] for i in rng.permutation(len(out))]

    def _lengths(self, shard: int) -> list[int]:
        """Of a shard whose index is gone: all alike. Its samples are then found unreadable one by one."""
        try:
            return shards.Index.load(self.source.folder / self.names[shard]).lengths
        except (ValueError, OSError):
            return [0] * int(self.counts[shard])


@lru_cache(maxsize=32)
def _window(order: Order, epoch: int, number: int) -> list[np.ndarray]:
    return order.lay(epoch, number)
