"""Features files: which folders they may be in, which there are, and whether a name still leads to one.

A name is a path below ComfyUI's input folder; ` [output]` behind it means the output folder, as for Load Image. Headless, `wegen run` hands
its folders to the nodes as a hidden input.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

from ..wegen_model.fileio import parse_json, stays_inside
from . import host

SUFFIX = ".safetensors"
FORMAT = "wegen-features-1"
HEADER = 1 << 20  # bytes: longer headers are other files


HIDDEN = {"folders": "WEGEN_FOLDERS"}  # as wegen_model/workflow/spec.py names it


def folders_of(given: Any = None) -> dict[str, list[Path]]:
    """{"input" | "output": folders in order of search}: ComfyUI's, or those that `wegen run` gave."""
    found = host.person_folders()
    if found is not None:
        return {kind: [folder] for kind, folder in found.items()}
    return {"input": [], "output": [Path("output")]} if given is None else {"input": list(given.input), "output": [given.output]}


def is_features(path: Path) -> bool:
    """Whether a file's header says that it holds features. Only the header is read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(length), str(path)) if length <= HEADER else {}
        return (header.get("__metadata__") or {}).get("format") == FORMAT
    except (OSError, ValueError, struct.error, AttributeError):
        return False


def list_features(folders: dict[str, list[Path]]) -> list[str]:
    """Names of all features files, those of the input folder first."""
    found = []
    for place, ending in (("input", ""), ("output", " [output]")):
        for root in folders[place]:
            paths = (Path(folder) / name for folder, names in host.walk(root) for name in names)
            found += sorted(p.relative_to(root).as_posix() + ending for p in paths if p.suffix == SUFFIX and is_features(p))
    return list(dict.fromkeys(found))


def find_features(name: str, folders: dict[str, list[Path]]) -> Path:
    """The file that a picker's value means.

    Raises:
        ValueError: there is none, it is outside the folders, or it holds something else.
    """
    plain, place = (name[: -len(" [output]")], "output") if name.endswith(" [output]") else (name.removesuffix(" [input]"), "input")
    roots = folders[place]
    where = " or ".join(str(r.absolute()) for r in roots) or "any folder (no input folder is set)"
    for root in roots:
        path = root / plain.replace("\\", "/")
        if plain and not stays_inside(plain) and not _given_headless(plain):  # folders that a person linked there are within
            raise ValueError(f"«{plain[:200]}» leads out of the {place} folder {root.absolute()}. Put the file into it.")
        if plain and path.is_file():
            if not is_features(path):
                raise ValueError(f"{path} holds no WeGen features. Save WeGen Features and `wegen encode` write them.")
            return path
    raise ValueError(f"there is no features file «{plain}» in {where}. Put it there, or write one with Save WeGen Features.")


def _given_headless(plain: str) -> bool:
    """On the command line a full path is as good."""
    return not host.inside_comfyui() and Path(plain).is_absolute()


def digest(path: Path) -> str:
    """SHA-256 of a (small) file's bytes."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
