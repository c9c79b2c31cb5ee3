"""Which samples a step sees: pure functions of seed and step. And the simplest source of samples, a folder of pictures.

A source has `samples(step, index, count, each) -> list[Sample]`: the `each` samples of micro-batch `index` of the `count` of a step;
and `identity() -> {"what", "hash"}`: in words, and a hash of its listing, manifest or options, which tells a run that its data changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ..fileio import encoding_of
from ..images import PictureError, check
from ..images import read as read_picture

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LOOKED_AT = 2000  # pictures of a folder whose headers are checked before the first step; of more, each when its turn comes

PEEKED_INTO = 100  # pictures of a folder whose last bytes tell that the folder is the same


def rows(seed: int, step: int, batch: int, total: int) -> np.ndarray:
    """Which rows a step sees: a pure function; every row once an epoch."""
    first = step * batch
    out: list[int] = []
    while len(out) < batch:
        epoch, at = divmod(first + len(out), total)
        order = _order(seed, epoch, total)
        out += order[at : at + batch - len(out)].tolist()
    return np.array(out)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, total: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(total)


class Mixed:
    """A mixture of shards (data/mixture.py) as a source: each piece is of one task. `keyed`: its pictures have keys, for a cache."""

    def __init__(self, mixture, count: int, keyed: bool = False):
        import dataclasses

        from .mixture import Mixture

        sources = [dataclasses.replace(s, batch=count) for s in mixture.sources]
        self.mixture = Mixture(sources, mixture.seed, mixture.together, mixture.window)
        self.skipped: dict[str, str] = {}
        names = [s.name for s in sources]
        # samples that are restated are other pictures each time, and a name that two folders share says nothing
        self._keyed = {s.name: str(s.folder) for s in sources if keyed and not s.task and names.count(s.name) == 1}

    def samples(self, step: int, part: int, parts: int, count: int) -> list:
        drawn = self.mixture.samples(step, part, parts)
        self.skipped |= {what: why or "it cannot be read" for what, _, why in (text.partition(": ") for text in drawn.skipped)}
        folder = self._keyed.get(drawn.source)
        return [_with_keys(sample, folder) for sample in drawn.samples] if folder else drawn.samples

    def identity(self) -> dict[str, str]:
        """Of the sources' shards, their sizes, weights and tasks, and of the mixture's order."""
        m = self.mixture
        h = hashlib.sha256(repr((m.seed, m.together, m.window)).encode())
        for source, order in zip(m.sources, m.orders):
            sizes = [(name, int(n), _size(source.folder / name)) for name, n in zip(order.names, order.counts)]
            h.update(repr((source.folder.name, source.weight, source.task, sizes)).encode())
        total = sum(int(order.counts.sum()) for order in m.orders)
        return {"what": f"{', '.join(s.name for s in m.sources)}, {total} samples", "hash": h.hexdigest()[:16]}


def _size(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _with_keys(sample, where: str):
    """The sample, its pictures known by where they stand."""
    import dataclasses

    from .model_inputs import KeyedPicture

    def keyed(picture, *place):
        return None if picture is None else KeyedPicture(repr((where, sample.key, *place)), lambda: picture)

    turns = tuple(
        dataclasses.replace(turn, pictures=tuple(keyed(p, i, k) for k, p in enumerate(turn.pictures)), drawn=keyed(turn.drawn, i, "drawn"))
        for i, turn in enumerate(sample.turns)
    )
    return dataclasses.replace(sample, turns=turns)


def listing(folder: Path) -> tuple[list[Path], set[str]]:
    """Pictures below a folder, in order, and the names of its .txt files without their ending. No file is touched: looking at each of
    100,000 takes minutes on a slow disk."""
    found, captions, folders = [], set(), [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                stem, ending = os.path.splitext(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif ending.lower() in PICTURES and entry.is_file():
                    found.append(Path(entry.path))
                elif ending == ".txt":
                    captions.add(stem)
    found.sort(key=lambda path: str(path).split(os.sep))  # as paths are ordered, without taking each apart
    return found, captions


class PictureFolder:
    """Pictures below a folder, each with a caption in a .txt of its name beside it, or none.

    A captioned picture is asked for by its caption; another one is shown and drawn again. What cannot be read is left out; `skipped`
    names it with the reason. `keyed`: pictures have keys, for a cache, and are read when they are looked at.

    Raises:
        ValueError: no folder, or no picture in it that can be read.
    """

    def __init__(self, folder: str | Path, seed: int = 0, keyed: bool = False):
        self.folder, self.seed, self.keyed = Path(folder), seed, keyed
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder}: there is no such folder. Name one that holds pictures ({', '.join(PICTURES)}).")
        self._found, captions = listing(self.folder)
        self._captions = captions
        self.skipped: dict[str, str] = {}

    def hold_out(self, share: float) -> PictureFolder:
        """A share of the pictures, at least one, as a source of their own; they leave this one. Which they are hangs on their names alone.

        Raises:
            ValueError: a share that leaves nothing to train on, or is none.
        """
        if not 0 < share < 1 or len(self._found) < 2:
            raise ValueError(f"--held-out {share:g} of {len(self._found)} pictures: write a share between 0 and 1 of two or more.")
        start = len(str(self.folder))
        place = {p: hashlib.sha256(str(p)[start:].replace(os.sep, "/").encode("utf-8", "surrogateescape")).digest() for p in self._found}
        ranked = sorted(self._found, key=place.__getitem__)
        aside = {p for p in ranked if int.from_bytes(place[p][:4], "big") < share * 2**32} or {ranked[0]}
        if len(aside) == len(ranked):
            aside.remove(ranked[-1])
        out = PictureFolder.__new__(PictureFolder)
        out.folder, out.seed, out.keyed, out.skipped, out._captions = self.folder, self.seed, self.keyed, {}, self._captions
        out._found = [p for p in self._found if p in aside]
        self._found = [p for p in self._found if p not in aside]
        self.__dict__.pop("files", None)
        return out

    def identity(self) -> dict[str, str]:
        """Of the names of pictures and captions, the sizes of LOOKED_AT of them, and what is in PEEKED_INTO."""
        start, h = len(str(self.folder)), hashlib.sha256()
        for path in self._found:
            name = str(path)
            captioned = os.path.splitext(name)[0] in self._captions
            h.update(f"{name[start:].replace(os.sep, '/')} {captioned}\n".encode("utf-8", "surrogateescape"))
        for path in self._found[:: max(1, len(self._found) // LOOKED_AT)]:
            h.update(f"{_size(path)} {_size(path.with_suffix('.txt'))}\n".encode())
        for path in self._found[:: max(1, len(self._found) // PEEKED_INTO)]:
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 4096))
                    h.update(file.read(4096))
            except OSError:  # it is named when its turn comes
                continue
        return {"what": f"{self.folder}, {len(self._found)} pictures", "hash": h.hexdigest()[:16]}

    @cached_property
    def files(self) -> list[Path]:
        good: list[Path] = []
        for path in self._found if len(self._found) <= LOOKED_AT else ():
            try:
                check(path)
                good.append(path)
            except (OSError, PictureError) as error:
                self.skipped[path.name] = _reason(error)
        if len(self._found) > LOOKED_AT:
            good = self._found
        if not good:
            some = sorted(p.name for p in self.folder.iterdir())[:5]
            raise ValueError(
                f"{self.folder}: no picture that can be read ({', '.join(PICTURES)}). It holds: {', '.join(some) or 'nothing'}"
                + (f"; {len(self.skipped)} are damaged, {next(iter(self.skipped))} for one" if self.skipped else "")
                + "."
            )
        return good

    def __len__(self) -> int:
        return len(self.files)

    def samples(self, step: int, part: int, parts: int, count: int) -> list:
        from .model_inputs import KeyedPicture
        from .sample import Sample, Turn

        out = []
        for row in rows(self.seed, step, parts * count, len(self))[part * count : (part + 1) * count]:
            path = self.files[row]
            picture = KeyedPicture(str(path), _once(self._read, int(row))) if self.keyed else self._read(int(row))
            if text := caption_of(path):
                turns = (Turn("user", text), Turn("assistant", "", drawn=picture))
                out.append(Sample("text-to-picture", turns, path.name))
            else:
                turns = (Turn("user", "Draw this picture again.", (picture,), (None,)), Turn("assistant", "", drawn=picture))
                out.append(Sample("reconstruction", turns, path.name))
        return out

    def _read(self, row: int) -> np.ndarray:
        path = self.files[row]
        try:
            return read_picture(path)
        except (OSError, PictureError) as error:  # good header, broken body; or its header was not looked at yet
            self.skipped[path.name] = _reason(error)
            return self._spare(row)

    def _spare(self, row: int) -> np.ndarray:
        for other in (*self.files[row + 1 :], *self.files[:row]):
            try:
                return read_picture(other)
            except (OSError, PictureError) as error:
                self.skipped[other.name] = _reason(error)
        raise ValueError(f"{self.folder}: none of its pictures can be read any more.")


def _once(read: Callable[[int], np.ndarray], row: int) -> Callable[[], np.ndarray]:
    """Reads the picture when it is first asked for, and remembers it as long as its sample lives."""
    return lru_cache(maxsize=1)(lambda: read(row))


def caption_of(path: Path) -> str:
    """The text of the .txt of a picture's name beside it; empty where there is none."""
    caption = path.with_suffix(".txt")
    return _text(caption) if caption.is_file() else ""


def _text(path: Path) -> str:
    """A caption file's text, in the encoding of its byte order mark, else UTF-8."""
    raw = path.read_bytes()
    return raw.decode(encoding_of(raw), "replace").strip()


def _reason(error: Exception) -> str:
    """Why a picture was skipped, without its name."""
    return error.reason if isinstance(error, PictureError) else str(error)
