"""Containers of many records: tars as img2dataset and webdataset write them, and parquet files as Hugging Face stores datasets.

A record that is damaged costs itself: a tar goes on at its next whole header, a parquet file at its next group of rows. What is lost
is entered in `skips`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...fileio import MAX_BYTES, parse_json
from ..items import Skips
from ..optional import MissingLibrary, need
from ..record import Unreadable, decode
from .files import decoded, shown

PICTURES = ("jpg", "jpeg", "png", "webp")  # extensions in a tar, columns of img2dataset's parquet
HELD_OUT = ("test", "dev", "valid")  # beginnings of the names of files or folders that are not for training
BLOCK = 512  # of a tar
MOST = 64  # files of one record


@dataclass(frozen=True)
class Member:
    """One record: its files by extension (of a tar), or the values of a row with its picture among them (of parquet)."""

    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    row: dict[str, Any] | None = None

    def image(self) -> np.ndarray:
        """(h,w,3) uint8. Unreadable: there is none, or it is damaged."""
        if self.row is not None:
            return shown(next((self.row[c] for c in (*PICTURES, "image") if self.row.get(c) is not None), None), self.name)
        data = next((self.files[e] for e in PICTURES if e in self.files), None)
        if data is None:
            raise Unreadable(f"{self.name}: no picture (img2dataset could not download it)")
        return decode(data, self.name)

    def values(self) -> dict:
        """What is known of the picture: the row, or the JSON of a tar."""
        if self.row is not None:
            return self.row
        made = parse_json(self.files.get("json", b"{}"), f"{self.name}.json")
        if not isinstance(made, dict):
            raise ValueError(f"{self.name}.json holds no object")
        return made

    def text(self) -> str:
        """The caption file of a tar; empty without one."""
        return decoded(self.files["txt"], f"{self.name}.txt") if "txt" in self.files else ""


def members(folder: Path, skips: Skips) -> Iterator[Member]:
    """Every record of the folder's tars, and of its parquet files where those hold pictures (beside img2dataset's tars they hold none)."""
    for path in sorted(folder.rglob("*.tar")):
        yield from _of_tar(path, skips)
    if any(folder.rglob("*.parquet")):
        for file, row in rows(folder, (), skips, PICTURES):
            yield Member(file, row=row)


def _of_tar(path: Path, skips: Skips) -> Iterator[Member]:
    """Neighbouring files of one name without its last extension are one record: names may have dots in them."""
    damage = f"{path.name}: the tar is cut off or corrupt"
    files: dict[str, bytes] = {}
    key, after = "", 0
    try:
        with tarfile.open(path, "r:*", ignore_zeros=True) as tar:  # so that a damaged header is passed over
            for member in tar:
                if member.offset > after and _written(tar, after, member.offset):
                    skips.add(f"{path.name}/byte {after}", f"{damage} there; reading went on at the next whole file")
                after = member.offset_data + -(-member.size // BLOCK) * BLOCK
                stem, _, extension = member.name.rpartition(".")
                if not member.isfile() or not stem:
                    continue
                if stem != key and files:
                    yield Member(f"{path.name}/{key}", files)
                    files = {}
                key = stem
                if member.size > MAX_BYTES or len(files) == MOST:
                    why = f"larger than {MAX_BYTES >> 20} MiB" if member.size > MAX_BYTES else f"the record has more than {MOST} files"
                    skips.add(f"{path.name}/{member.name}", why)
                    continue
                content = tar.extractfile(member)
                assert content is not None, "it is a file"
                files[extension.lower()] = content.read()
            if files:
                yield Member(f"{path.name}/{key}", files)
            if not after and _written(tar, 0, path.stat().st_size):
                skips.add(path.name, "not a tar, or damaged from its beginning; download it again")
    except (tarfile.TarError, OSError, EOFError) as error:
        skips.add(path.name, f"{damage}; what stood before that was read ({str(error)[:60]})")


def _written(tar: tarfile.TarFile, start: int, end: int) -> bool:
    """Whether there is anything but zeros between two places of a tar."""
    file = tar.fileobj
    assert file is not None
    here = file.tell()
    file.seek(start)
    found = any(file.read(min(1 << 20, end - at)).strip(b"\0") for at in range(start, end, 1 << 20))
    file.seek(here)
    return found


def training_files(folder: Path) -> list[Path]:
    """The parquet files below a folder that are not named test, dev or validation, nor lie in a folder named so."""

    def held_out(path: Path) -> bool:
        return any(part.lower().startswith(HELD_OUT) for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob("*.parquet") if not held_out(path))


@lru_cache(maxsize=64)
def columns(path: Path) -> frozenset[str]:
    """The columns of a parquet file; none of what is no parquet. MissingLibrary without pyarrow."""
    try:
        return frozenset(need("pyarrow.parquet").read_schema(path).names)
    except (OSError, ValueError):  # pyarrow's own are both
        return frozenset()


def has_columns(folder: Path, wanted: tuple[str, ...]) -> bool:
    """Whether one of the folder's first parquet files has all these columns. Without pyarrow: no."""
    if not wanted:
        return False
    try:
        return any(columns(path) >= set(wanted) for path in training_files(folder)[:4])
    except MissingLibrary:
        return False


def rows(folder: Path, wanted: tuple[str, ...], skips: Skips, one_of: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """Name and values of every row of the parquet files that have all the columns `wanted` and one of `one_of`, 64 at a time."""
    parquet = need("pyarrow.parquet")
    for path in training_files(folder):
        label, here = path.relative_to(folder).as_posix(), columns(path)
        if not here:
            skips.add(label, "not a whole parquet file; download it again")
        if not here or not here >= set(wanted) or one_of and not here & {*one_of, "image"}:
            continue
        with parquet.ParquetFile(path) as file:
            number = 0
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    for some in file.iter_batches(64, row_groups=[group]):
                        for row in some.to_pylist():
                            number += 1
                            yield f"{label}:{number}", row
                except (OSError, ValueError) as error:
                    skips.add(f"{label}:{number + 1} to {end}", f"these rows are damaged ({str(error)[:60]}); download the file again")
                number = end
