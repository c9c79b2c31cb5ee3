"""What the readers share: pictures, lines of JSON, parquet rows, members of tars, boxes, and a draw for each key.

Whatever is broken raises, and Item's maker turns it into an entry of the account (items.Skips); a broken container (a tar cut off)
is entered here, and what came before it counts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...chat.conversation import Box
from ..items import Skips
from ..optional import need
from ..shards import Unreadable, decode


def rng(key: str) -> np.random.Generator:
    """The same wording for a key every time."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def picture(path: Path) -> np.ndarray:
    """(h,w,3) uint8 of a file."""
    try:
        return decode(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise Unreadable(f"{path.name}: the file is missing") from None


def find(name: str, *roots: Path) -> Path:
    """The first of the roots that has the file; else the first, whose picture is then missing."""
    name = name.removeprefix("./").lstrip("/")
    return next((r / name for r in roots if (r / name).exists()), roots[0] / name)


def lines(path: Path, skips: Skips) -> Iterator[tuple[str, dict]]:
    """Name and object of every line of JSON."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            name = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                made = json.loads(line)
            except json.JSONDecodeError as error:
                skips.add(name, f"not a line of JSON ({error.msg})")
                continue
            if isinstance(made, dict):
                yield name, made
            else:
                skips.add(name, "not an object")


def load(path: Path):
    """A file that is one JSON; without it there is no dataset."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); download it again.") from None


def rows(folder: Path, pattern: str, columns: list[str], skips: Skips) -> Iterator[tuple[str, dict]]:
    """Name and values of every row of the parquet files, 64 at a time."""
    parquet = need("pyarrow.parquet")
    for path in sorted(folder.glob(pattern)):
        try:
            file, number = parquet.ParquetFile(path), 0
            for some in file.iter_batches(64, columns=columns):
                for row in some.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", row
        except (OSError, ValueError) as error:  # pyarrow's own are both
            skips.add(path.name, f"not a whole parquet file, or not with the columns {', '.join(columns)} ({error})")


def members(folder: Path, skips: Skips) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Name and files (by extension) of every sample of the folder's webdataset tars, as img2dataset writes them."""
    wds = need("webdataset")
    for path in sorted(folder.rglob("*.tar")):

        def broken(error: Exception, path: Path = path) -> bool:
            skips.add(path.name, f"the tar is cut off or corrupt; what stood before that was read ({str(error)[:60]})")
            return False  # webdataset: give up this tar

        for sample in wds.WebDataset([str(path)], shardshuffle=False, handler=broken, empty_check=False):
            yield f"{path.name}/{sample['__key__']}", {k: v for k, v in sample.items() if not k.startswith("_")}


def image(files: dict[str, bytes], name: str) -> np.ndarray:
    """The picture among a sample's files."""
    data = next((files[e] for e in ("jpg", "jpeg", "png", "webp") if e in files), None)
    if data is None:
        raise Unreadable(f"{name}: no picture (img2dataset could not download it)")
    return decode(data, name)


def box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    """Of corners in fractions, cut to the picture; None when nothing is left."""
    x0, y0, x1, y1 = (min(max(float(v), 0.0), 1.0) for v in (x0, y0, x1, y1))
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 - x0 > 1e-3 and y1 - y0 > 1e-3 else None


def cut(p: np.ndarray, b: Box) -> np.ndarray:
    """What a box holds."""
    from ...chat.boxes import edges

    left, top, right, bottom = edges(b, p.shape[1], p.shape[0])
    return np.ascontiguousarray(p[top:bottom, left:right])
