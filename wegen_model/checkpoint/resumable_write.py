"""Writing a model folder so that nothing is lost: shards beside the target, a list of the finished ones, one rename at the end.

    .NAME.converting/progress.json   which work this is, and the finished files with their lengths and hashes
    .NAME.converting/files/…         what will be the folder

An interruption leaves it where it is; the same command finds it, checks the finished files and goes on behind them. Another
command on the same target starts anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..fileio import read_json, stays_inside, write_text
from .model_paths import CheckpointError, replacing
from .tensor_file import Spec, write_file

INDEX = "index.json"  # of a folder: every weight file's length and SHA-256
SHARD = 5 * 2**30  # bytes: the UNet in 16 bits is one file
Tensors = dict[str, tuple[Spec, Callable]]


def shards(name: str, tensors: Tensors, limit: int = SHARD) -> dict[str, list[str]]:
    """File name -> keys, in order, none over `limit` bytes unless a single tensor is. One file keeps the plain name."""
    groups: list[list[str]] = [[]]
    room = limit
    for key, (spec, _) in tensors.items():
        if spec.bytes > room and groups[-1]:
            groups.append([])
            room = limit
        groups[-1].append(key)
        room -= spec.bytes
    if len(groups) == 1:
        return {f"{name}.safetensors": groups[0]}
    return {f"{name}-{i:05d}-of-{len(groups):05d}.safetensors": keys for i, keys in enumerate(groups, 1)}


def shard_index(files: dict[str, list[str]], tensors: Tensors) -> str:
    """The index beside shards, as Hugging Face's libraries write and read it."""
    total = sum(spec.bytes for spec, _ in tensors.values())
    weight_map = {key: name for name, keys in files.items() for key in keys}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n"


def digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(f)


def _digest(f) -> str:
    value = hashlib.sha256()
    while block := f.read(2**20):
        value.update(block)
    return value.hexdigest()


class Staging:
    """The work beside `target`. `plan`: text that identifies this work (a hash of it is kept)."""

    def __init__(self, target: Path, plan: str):
        self.target = target.resolve()
        self.folder = self.target.with_name(f".{self.target.name}.converting")
        self.files = self.folder / "files"
        self.plan = hashlib.sha256(plan.encode()).hexdigest()
        self.done: dict[str, dict] = self._earlier()

    def _earlier(self) -> dict[str, dict]:
        """Files of an earlier, interrupted run of the same work that are whole; anything else there is removed."""
        record = self.folder / "progress.json"
        done = {}
        try:
            found = read_json(record)
            if found["plan"] == self.plan:
                done = {name: entry for name, entry in found["done"].items() if self._whole(name, entry)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            done = {}
        if not done:
            shutil.rmtree(self.folder, ignore_errors=True)
        return done

    def _whole(self, name: str, entry: dict) -> bool:
        path = self.files / name
        return stays_inside(name) and path.is_file() and path.stat().st_size == entry["bytes"] and digest(path) == entry["sha256"]

    def room(self, sizes: dict[str, int]) -> None:
        """Refuse, before the work, when the disk has too little room."""
        need = sum(size for name, size in sizes.items() if name not in self.done)
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if need > free:
            raise CheckpointError(
                f"{self.target}: {need / 2**30:.1f} GiB are to be written, {free / 2**30:.1f} GiB are free on that disk. "
                "Make room, choose another place, or write a part (--part) or a lower precision (--dtype)."
            )

    def write(self, name: str, tensors: Tensors, after: Callable[[str], None]) -> None:
        """One file, unless an earlier run wrote it. Half a file is never left under its name."""
        if name in self.done:
            for key in tensors:
                after(key)
            return
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            sha = write_file(part, tensors, after)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self.done[name] = {"bytes": path.stat().st_size, "sha256": sha}
        write_text(self.folder / "progress.json", json.dumps({"plan": self.plan, "done": self.done}, indent=1))

    def finish(self) -> None:
        """Put the files in the target's place and the index beside them."""
        write_text(self.files / INDEX, json.dumps({"files": dict(sorted(self.done.items()))}, indent=1) + "\n")
        for left in self.files.rglob("*.part"):  # of a process that was killed
            left.unlink()
        with replacing(self.target) as new:
            new.rmdir()
            os.replace(self.files, new)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> str:
        """What an interruption leaves, in words; nothing is left when no file was finished."""
        if not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)
            return ""
        return (
            f" {len(self.done)} finished files wait in {self.folder}: the same command goes on behind them; to give up, delete that folder."
        )


def verify(folder: Path) -> list[str]:
    """Names of files that are not as the index says; raises when there is no index."""
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {INDEX}, so there is nothing to compare with. `wegen convert` writes one.")
    try:
        entries = read_json(path)["files"]
        return [
            name
            for name, entry in entries.items()
            if not stays_inside(name)
            or not (folder / name).is_file()
            or (folder / name).stat().st_size != entry["bytes"]
            or digest(folder / name) != entry["sha256"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a valid index of files. Convert the folder again.") from error
