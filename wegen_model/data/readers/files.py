"""What the readers share: pictures, words, lines of JSON and CSV, boxes, and a draw for each key. Tars and parquet: containers.py.

Whatever is broken raises, and Item's maker turns it into an entry of the account (items.Skips); a broken line is entered here, and
the lines around it count.
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
from ...fileio import DATASET_BYTES, MAX_BYTES, JSONError, encoding_of, open_text, parse_json, read_json
from ..items import Skips
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


def shown(value: object, where: str, *roots: Path) -> np.ndarray:
    """A row's picture: its name below one of the roots, its bytes, or Hugging Face's {bytes, path}."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return decode(value, where)
    if value is None:
        raise Unreadable(f"{where}: it has no picture")
    return picture(find(value, *roots))


def words(value: object, what: str) -> str:
    """A text of a record, without the spaces around it. ValueError: it is none, is empty, or its file is in another encoding."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is missing" if value is None else f"{what} is {_kind(value)}, not a text")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{what} is not text in UTF-8: its file is in another encoding; save it as UTF-8")
    if not value.strip():
        raise ValueError(f"{what} is empty")
    return value.strip()


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)


def decoded(data: bytes, where: str) -> str:
    """A text file's bytes: UTF-8, or what their byte order mark says; ValueError for others, by name."""
    encoding = encoding_of(data)
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in {encoding.upper()} (byte {error.start}); save it as UTF-8") from None


def unique(key: object, seen: set[str]) -> str:
    """The key as a text; one that came before gets a number behind it. `seen` grows."""
    key, n = str(key), 1
    name = key
    while name in seen:
        n += 1
        name = f"{key}-{n}"
    seen.add(name)
    return name


def find(name: object, *roots: Path) -> Path:
    """The first of the roots that has the file, also where Windows wrote its path; else the first, whose picture is then missing."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of its picture is {str(name)[:40]!r}, not a text")
    spellings = [spelling.removeprefix("./").lstrip("/") for spelling in dict.fromkeys((name, name.replace("\\", "/")))]
    return next((r / spelling for spelling in spellings for r in roots if (r / spelling).is_file()), roots[0] / spellings[-1])


def lines(path: Path, skips: Skips, folder: Path | None = None) -> Iterator[tuple[str, dict]]:
    """Name and object of every line of JSON. UTF-8, or what the file's byte order mark says. `folder`: names are paths from there, for
    datasets whose parts have files of one name."""
    label = path.relative_to(folder).as_posix() if folder else path.name
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            name = f"{label}:{number}"
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
        made = read_json(path, DATASET_BYTES, lenient=True)  # a number that cannot be kept costs its record, not the file
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


def box(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    """A Box from corners in fractions, cut to the picture; None when nothing is left."""
    x0, y0, x1, y1 = (min(max(float(v), 0.0), 1.0) for v in (x0, y0, x1, y1))
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 - x0 > 1e-3 and y1 - y0 > 1e-3 else None


def cut(p: np.ndarray, b: Box) -> np.ndarray:
    """The part of a picture inside a box."""
    from ...chat.boxes import edges

    left, top, right, bottom = edges(b, p.shape[1], p.shape[0])
    return np.ascontiguousarray(p[top:bottom, left:right])
