"""Which samples a step sees: pure functions of seed and step. And the simplest source of samples, a folder of pictures.

A source has `samples(step, index, count, each) -> list[Sample]`: the `each` samples of micro-batch `index` of the `count` of a step.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from ..fileio import encoding_of
from ..images import PictureError, check
from ..images import read as read_picture

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def rows(seed: int, step: int, batch: int, total: int) -> np.ndarray:
    """Which rows a step sees: a pure function; every row once an epoch."""
    first = step * batch
    out: list[int] = []
    while len(out) < batch:
        epoch, at = divmod(first + len(out), total)
        order = np.random.default_rng((seed, epoch)).permutation(total)
        out += order[at : at + batch - len(out)].tolist()
    return np.array(out)


class Mixed:
    """A mixture of shards (data/mixture.py) as a source: each piece is of one task."""

    def __init__(self, mixture, count: int):
        import dataclasses

        from .mixture import Mixture

        sources = [dataclasses.replace(s, batch=count) for s in mixture.sources]
        self.mixture = Mixture(sources, mixture.seed, mixture.together, mixture.window)
        self.skipped: dict[str, str] = {}

    def samples(self, step: int, part: int, parts: int, count: int) -> list:
        drawn = self.mixture.samples(step, part, parts)
        self.skipped |= {what: why or "it cannot be read" for what, _, why in (text.partition(": ") for text in drawn.skipped)}
        return drawn.samples


class PictureFolder:
    """Pictures below a folder, each with a caption in a .txt of its name beside it, or none.

    A captioned picture is asked for by its caption; another one is shown and drawn again. What cannot be read is left out; `skipped`
    names it with the reason.

    Raises:
        ValueError: no folder, or no picture in it that can be read.
    """

    def __init__(self, folder: str | Path, seed: int = 0):
        self.folder, self.seed = Path(folder), seed
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder}: there is no such folder. Name one that holds pictures ({', '.join(PICTURES)}).")
        self._found = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
        self.skipped: dict[str, str] = {}

    @cached_property
    def files(self) -> list[Path]:
        good = []
        for path in self._found:
            try:
                check(path)
                good.append(path)
            except (OSError, PictureError) as error:
                self.skipped[path.name] = _reason(error)
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
        from .sample import Sample, Turn

        out = []
        for row in rows(self.seed, step, parts * count, len(self))[part * count : (part + 1) * count]:
            path = self.files[row]
            try:
                picture = read_picture(path)
            except (OSError, PictureError) as error:  # good header, broken body
                self.skipped[path.name] = _reason(error)
                picture = self._spare(row)
            caption = path.with_suffix(".txt")
            if caption.is_file() and (text := _text(caption)):
                turns = (Turn("user", text), Turn("assistant", "", drawn=picture))
                out.append(Sample("text-to-picture", turns, path.name))
            else:
                turns = (Turn("user", "Draw this picture again.", (picture,), (None,)), Turn("assistant", "", drawn=picture))
                out.append(Sample("reconstruction", turns, path.name))
        return out

    def _spare(self, row: int) -> np.ndarray:
        for other in (*self.files[row + 1 :], *self.files[:row]):
            try:
                return read_picture(other)
            except (OSError, PictureError) as error:
                self.skipped[other.name] = _reason(error)
        raise ValueError(f"{self.folder}: none of its pictures can be read any more.")


def _text(path: Path) -> str:
    """A caption file's text, in the encoding of its byte order mark, else UTF-8."""
    raw = path.read_bytes()
    return raw.decode(encoding_of(raw), "replace").strip()


def _reason(error: Exception) -> str:
    """Why a picture was skipped, without its name."""
    return error.reason if isinstance(error, PictureError) else str(error)
