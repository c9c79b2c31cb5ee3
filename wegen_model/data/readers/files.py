"""What the readers share: pictures, lines of JSON, parquet rows, members of tars, boxes, and a draw for each key.

Whatever is broken raises, and Item's maker turns it into an entry of the account (items.Skips); a broken container (a tar cut off)
is entered here, and what came before it counts.
"""

from __future__ import annotations

import csv
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ... import images
from ...chat.conversation import Box
from ...fileio import DATASET_BYTES, MAX_BYTES, JSONError, open_text, parse_json, read_json
from ..items import Skips
from ..optional import need
from ..record import Unreadable, decode


def rng(key: str) -> np.random.Generator:
    """The same wording for a key every time."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def picture(path: Path) -> np.ndarray:
    """(h,w,3) uint8 of a file."""
    try:
        return images.read(path, path.name)
    except FileNotFoundError:
        raise Unreadable(f"{path.name}: the file is missing") from None
    except images.PictureError as error:
        raise Unreadable(str(error)) from None


def find(name: str, *roots: Path) -> Path:
    """The first of the roots that has the file, also where Windows wrote its path; else the first, whose picture is then missing."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of its picture is {str(name)[:40]!r}, not a text")
    spellings = [spelling.removeprefix("./").lstrip("/") for spelling in dict.fromkeys((name, name.replace("\\", "/")))]
    return next((r / spelling for spelling in spellings for r in roots if (r / spelling).is_file()), roots[0] / spellings[-1])


def lines(path: Path, skips: Skips) -> Iterator[tuple[str, dict]]:
    """Name and object of every line of JSON. UTF-8, or what the file's byte order mark says."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            name = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                made = parse_json(line.encode("utf-8", "surrogateescape"), name)
            except JSONError as error:
                skips.add(name, f"not a line of JSON (it {error.reason})")
                continue
            if isinstance(made, dict):
                yield name, made
            else:
                skips.add(name, "not an object")


def load(path: Path, kind: type = list):
    """A file that is one JSON, a list or an object (`kind`); without it there is no dataset."""
    try:
        made = read_json(path, DATASET_BYTES)
    except JSONError as error:
        raise ValueError(f"{path} is not whole JSON (it {error.reason}); download it again.") from None
    if not isinstance(made, kind):
        raise ValueError(f"{path} holds no {'list' if kind is list else 'object'}, so it is not the dataset's file; download it again.")
    return made


def table(path: Path, skips: Skips) -> Iterator[tuple[str, list[str]]]:
    """Name and fields of every row of a CSV file; malformed rows are named in `skips`."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))  # of the process; its 128 KiB are less than some datasets' fields
    with open_text(path, newline="") as file:
        reader = csv.reader(line.replace("\0", "") for line in file)
        for number in itertools.count(1):
            try:
                yield f"{path.name}:{number}", next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                skips.add(f"{path.name}:{number}", f"not a line of CSV ({error})")


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
    """A Box from corners in fractions, cut to the picture; None when nothing is left."""
    x0, y0, x1, y1 = (min(max(float(v), 0.0), 1.0) for v in (x0, y0, x1, y1))
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 - x0 > 1e-3 and y1 - y0 > 1e-3 else None


def cut(p: np.ndarray, b: Box) -> np.ndarray:
    """The part of a picture inside a box."""
    from ...chat.boxes import edges

    left, top, right, bottom = edges(b, p.shape[1], p.shape[0])
    return np.ascontiguousarray(p[top:bottom, left:right])
