"""What one worker does at a time: a film, or a piece of one, with a name that is its alone, and whether it has changed since.

Files of one name in several folders stay apart: a unit is called after its path below the folder that was named.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from ..data.record import Unreadable
from .video import probe

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".3gp", ".ogv", ".wmv", ".flv")
ENDS = 1 << 16  # bytes at both ends of a file that tell whether it has changed


@dataclass(frozen=True)
class Unit:
    """Film `path` from `start` seconds until before `end` (None: its end). `film`: the path as it is told to people and in records."""

    path: Path
    film: str
    name: str  # of its shards
    start: float = 0.0
    end: float | None = None


def videos(folder: Path) -> list[Path]:
    """The video files below a folder, or the file itself. ValueError when there is none."""
    found = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())
    if not found:
        what = "there is no such folder" if not folder.exists() else f"no video in it ({', '.join(VIDEOS)})"
        raise ValueError(f"{folder}: {what}.")
    return found


def units(folder: Path, seconds: float) -> list[Unit]:
    """All films below a folder in pieces of `seconds`. A film that does not say how long it is, or whose clock may start anew in its middle
    (MPEG streams), is one piece; so is one that cannot be read, which its step then tells."""
    root = folder.parent if folder.is_file() else folder
    out = []
    for path in videos(folder):
        film = path.relative_to(root).as_posix()
        name = shard_name(film)
        try:
            head = probe(path, film)
            pieces = int(head.seconds // seconds) if head.splits and head.seconds else 0
        except Unreadable:
            pieces = 0
        for i in range(max(1, pieces)):  # what is left over belongs to the last
            last = i >= pieces - 1
            out.append(Unit(path, film, name + (f"@{i:04d}" if pieces > 1 else ""), i * seconds, None if last else (i + 1) * seconds))
    return out


def shard_name(film: str) -> str:
    """`clip1/video.mp4` -> `clip1__video.mp4`; paths that would give one name get a number of their own behind it."""
    flat = film.replace("/", "__")
    return flat if "__" not in film else f"{flat}-{zlib.crc32(film.encode('utf-8', 'surrogateescape')):08x}"


def identity(path: Path) -> str:
    """Size and both ends of a file, as one text: another after a change, the same after a copy."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        return f"{size}-{zlib.crc32(file.read(ENDS), zlib.crc32(head)):08x}"
