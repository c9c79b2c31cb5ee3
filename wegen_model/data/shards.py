"""Shards: tar files in the webdataset layout, each with an index beside it, so that any sample is one read away.

    shard-000000.tar          KEY.json, KEY.0.jpg, KEY.1.jpg … per sample: what `webdataset.WebDataset` reads as well
    shard-000000.index.json   per sample: key, task, length, offset and size in the tar, CRC-32 of those bytes
    shards.json               the folder's shards and how many samples each holds

The order of training is a pure function of the step (mixture.py), which a sequential reader cannot give: so samples are written by
webdataset's TarWriter, and read by offset. A shard is written beside its name and renamed when whole.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .. import fileio
from ..fileio import write_text
from ..progress import ProgressEvent
from .items import Item, Skips, samples
from .optional import need
from .record import FORMAT, Unreadable, decode, describe, encode, length, rebuild
from .sample import Picture, Sample, Turn

CATALOGUE, INDEX = "shards.json", ".index.json"


# -- writing -----------------------------------------------------------------------------------------------------


@dataclass
class Index:
    """The index of a shard: lists of one length. `read`: how many items of the input were consumed up to its last sample."""

    keys: list[str]
    tasks: list[str]
    lengths: list[int]
    offsets: list[int]
    sizes: list[int]
    crcs: list[int]
    read: int = 0
    notes: dict | None = None

    @classmethod
    def load(cls, tar: Path) -> Index:
        path = tar.with_suffix(INDEX)
        try:
            index = fileio.from_dict(cls, fileio.read_json(path), path.name)
        except FileNotFoundError:
            raise Unreadable(f"{tar}: its index {path.name} is missing") from None
        except fileio.JSONError as error:
            raise Unreadable(f"{path}: damaged, or not the index of a shard ({error})") from None
        columns = (index.keys, index.tasks, index.lengths, index.offsets, index.sizes, index.crcs)
        if len({len(column) for column in columns}) > 1 or min((*index.offsets, *index.sizes), default=0) < 0:
            raise Unreadable(f"{path}: damaged, or not the index of a shard (its lists do not fit together)")
        return index


@dataclass
class _Catalogue:
    """shards.json."""

    shards: dict[str, int]
    format: int = FORMAT


def remember(folder: Path, made: dict) -> None:
    """Write the options of a folder's shards (options.json); ValueError when it has shards made with others."""
    path = folder / "options.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        before = fileio.read_json(path)
        if not isinstance(before, dict):
            raise ValueError(f"{path} is damaged (it is no object): name another folder, or delete that one.")
        other = [f"{key} {before.get(key)}" for key in made if before.get(key) != made[key]]
        if other:
            raise ValueError(f"{folder} was made with {', '.join(other)}. Go on with the same, name another folder, or delete that one.")
    write_text(path, json.dumps(made, indent=1))


class Shard:
    """A tar being written: `add` samples or records; `close` renames it and its index into place. Without `close`, nothing is left."""

    def __init__(self, path: str | Path, lossless: bool = False):
        self.path, self.lossless = Path(path), lossless
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.part = fileio.beside(self.path)
        self.stream = self.part.open("wb")
        self.tar = need("webdataset").TarWriter(self.stream, mtime=0, encoder=False)
        self.rows: list[tuple] = []
        self.used: set[str] = set()

    def add(self, sample: Sample) -> None:
        made, pictures = describe(sample)
        self.record(sample.key, made, dict(enumerate(pictures)), sample.task, length(sample))

    def record(self, key: str, values: dict, pictures: dict, task: str = "", tokens: int = 0) -> None:
        """`pictures`: name -> (h,w,3) uint8. The key is made fit for a file name, and unique in the shard."""
        name = plain = re.sub(r"[^A-Za-z0-9_-]+", "_", key).strip("_")[-80:] or "sample"  # a tar's names are short
        i = 1
        while name in self.used:
            i += 1
            name = f"{plain}_{i}"
        self.used.add(name)
        encoded = {f"{k}.{ext}": data for k, p in pictures.items() for ext, data in [encode(p, self.lossless)]}
        self.tar.write({"__key__": name, "json": json.dumps(values).encode(), **encoded})
        self.rows.append((name, task, tokens, self.tar.tarstream.offset))

    def close(self, read: int = 0, notes: dict | None = None) -> Index:
        self.tar.close()
        if not self.stream.closed:
            self.stream.close()
        ends = [row[3] for row in self.rows]
        offsets = [0, *ends[:-1]] if ends else []
        sizes = [b - a for a, b in zip(offsets, ends)]
        crcs = []
        with self.part.open("rb") as file:
            for at, size in zip(offsets, sizes):
                file.seek(at)
                crcs.append(zlib.crc32(file.read(size)))
        index = Index([r[0] for r in self.rows], [r[1] for r in self.rows], [r[2] for r in self.rows], offsets, sizes, crcs, read, notes)
        fileio.put(self.part, self.path, sync=True)
        write_text(self.path.with_suffix(INDEX), json.dumps(asdict(index)))
        _index.cache_clear()  # of a shard that was there before
        return index

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # the disk may be full; nothing of it is kept anyway
            self.tar.close()
        with contextlib.suppress(OSError):
            self.stream.close()
        self.part.unlink(missing_ok=True)


def write(
    things: Iterable[Item],
    folder: str | Path,
    source: str = "",
    skips: Skips | None = None,
    per_shard: int = 1000,
    side: int = 1024,
    least: int = 0,
    lossless: bool = False,
    runtime=None,
) -> int:
    """Items to shards of `per_shard` samples; pictures with a longer side are shrunk to `side`. How many samples the folder holds.

    Samples that draw a picture whose shorter side is below `least` are skipped.

    Shards that are there already stay, and the items behind them are passed over unread: a run that was stopped goes on where its
    last whole shard ended, and one that lost a shard writes that one anew.
    """
    skips = skips if skips is not None else Skips()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ends: dict[int, int] = {}  # of the shards that exist: how many items were consumed up to each
    for path in folder.glob("shard-*.tar"):
        with contextlib.suppress(ValueError):  # an index that is missing or damaged: written anew
            ends[int(path.stem.partition("-")[2])] = Index.load(path).read

    def absent() -> tuple[int, int]:
        """The first shard to be written, and how many items precede it."""
        number = next(n for n in itertools.count() if n not in ends)
        return number, ends.get(number - 1, 0)

    (number, behind), shard, read = absent(), None, 0
    try:
        for read, item in enumerate(things, 1):
            if read <= behind:
                continue
            for sample in samples(item, source, skips):
                if any(min(np.shape(t.drawn)[:2]) < least for t in sample.turns if t.drawn is not None):
                    skips.add(item.name, f"its picture is smaller than {least} pixels")
                    continue
                shard = shard or Shard(folder / f"shard-{number:06d}.tar", lossless)
                shard.add(shrink(sample, side))
                if runtime is not None:
                    runtime.tick(ProgressEvent("other", len(shard.rows), per_shard, label=f"shard {number}"))
            if shard is not None and len(shard.rows) >= per_shard:
                ends[number] = shard.close(read).read
                (number, behind), shard = absent(), None
        if shard is not None:
            shard.close(read)
            shard = None
    finally:
        if shard is not None:
            shard.abandon()
    return catalogue(folder)


def shrink(sample: Sample, side: int) -> Sample:
    """Pictures at most `side` pixels long; the same picture stays one."""
    known: dict[int, np.ndarray] = {}

    def small(given: Picture | None) -> np.ndarray | None:
        picture = None if given is None else np.asarray(given)
        if picture is None or max(picture.shape[:2]) <= side:
            return picture
        if id(given) not in known:
            scale = side / max(picture.shape[:2])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            known[id(given)] = np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        return known[id(given)]

    turns = tuple(Turn(t.role, t.text, tuple(small(p) for p in t.pictures), t.boxes, small(t.drawn)) for t in sample.turns)
    return Sample(sample.task, turns, sample.key, sample.source)


def catalogue(folder: str | Path) -> int:
    """Write shards.json anew from the indices; how many samples there are."""
    folder = Path(folder)
    counts = {p.name: len(Index.load(p).keys) for p in sorted(folder.glob("*.tar"))}
    write_text(folder / CATALOGUE, json.dumps({"format": FORMAT, "shards": counts}, indent=1))
    return sum(counts.values())


# -- reading -----------------------------------------------------------------------------------------------------


class NoShards(ValueError):
    """A folder without shards."""


def counts(folder: str | Path) -> dict[str, int]:
    """The catalogue of a folder: shard -> samples. NoShards for a folder without."""
    folder = Path(folder)
    try:
        found = fileio.from_dict(_Catalogue, fileio.read_json(folder / CATALOGUE), CATALOGUE).shards
    except FileNotFoundError:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder of shards.") from None
        if any(p.with_suffix(INDEX).exists() for p in folder.glob("*.tar")):
            catalogue(folder)
            return counts(folder)
        raise NoShards(f"{folder}: no {CATALOGUE} here, so it is no folder of shards.") from None
    except fileio.JSONError as error:
        raise ValueError(f"{folder / CATALOGUE} is damaged ({error}); delete it, and it is made anew from the indices.") from None
    if not sum(found.values()):
        raise ValueError(f"{folder}: its shards hold no sample.")
    return found


@lru_cache(maxsize=64)
def _index(tar: Path) -> Index:
    return Index.load(tar)


def record(tar: Path, i: int, look: bool = True) -> tuple[str, dict, dict[str, np.ndarray]]:
    """Key, JSON and pictures of record i; without `look` no picture is decoded. Unreadable: the shard is gone, cut, or not what was written."""
    index = _index(tar)
    where = f"{tar}, sample {index.keys[i]}"
    try:
        with tar.open("rb") as file:
            file.seek(index.offsets[i])
            data = file.read(min(index.sizes[i], tar.stat().st_size))  # so much is allocated
    except FileNotFoundError:
        raise Unreadable(f"{tar}: the shard has vanished") from None
    except OSError as error:
        raise Unreadable(f"{where}: {error}") from None
    if len(data) < index.sizes[i]:
        raise Unreadable(f"{where}: the shard is cut off ({tar.stat().st_size} bytes)")
    if zlib.crc32(data) != index.crcs[i]:
        raise Unreadable(f"{where}: the shard is corrupt (its bytes are not those that were written)")
    values, pictures = {}, {}
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as members:
        for member in members:
            name = member.name.partition(".")[2]
            if (content := members.extractfile(member)) is None:  # a folder; a Shard writes none
                continue
            body = content.read()
            if name == "json":
                values = fileio.parse_json(body, where)
            elif look:
                pictures[name.rpartition(".")[0]] = decode(body, where)
    return index.keys[i], values, pictures


def sample(tar: Path, i: int) -> Sample:
    """Sample i of a shard, its pictures decoded."""
    _, made, pictures = record(Path(tar), i)
    if "turns" not in made:
        raise Unreadable(f"{tar}: a step's records, not training samples; name the folder of the last step")
    try:
        return rebuild(made, [pictures[str(k)] for k in range(len(pictures))])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unreadable(f"{tar}, sample {i}: not as `wegen data shards` writes one ({type(error).__name__}: {error})") from None


def records(tar: Path) -> Iterator[tuple[str, dict, dict[str, np.ndarray]]]:
    """Every record of a shard in order."""
    for i in range(len(_index(tar).keys)):
        yield record(tar, i)


def values(tar: Path) -> Iterator[tuple[str, dict]]:
    """Key and JSON of every record of a shard in order; no picture is decoded."""
    for i in range(len(_index(tar).keys)):
        key, made, _ = record(tar, i, look=False)
        yield key, made
