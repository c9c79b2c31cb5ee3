"""Where a model folder and its files lie, and how a new folder takes the place of an old one. Loads no torch.

What the files hold, and reading and writing them: model_folder.py.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from .. import fileio
from ..config import PRESETS
from ..fileio import JSONError

# part -> where its weights are: a file, or a folder of (sharded) safetensors
WEIGHT_FILES = {
    "vision": "vision",
    "language": "language/model",
    "projectors": "projectors",
    "unet": "unet/diffusion_pytorch_model",
    "layout": "unet/layout",
    "vae": "vae/diffusion_pytorch_model",
}
TOKENIZER = ("tokenizer.json", "tokenizer.model", "added_tokens.json")
FOLDERS = ("language", "unet", "vae", "scheduler")


class CheckpointError(ValueError):
    """A model file is missing, damaged or of the wrong kind; the text names it and says what to do."""


def resolve(name_or_path: str | Path, roots: tuple[str | Path, ...] = ()) -> Path:
    """A model's folder: the bundled `wegen-mini`, a name below one of `roots`, or a path.

    Raises:
        CheckpointError: naming the folders that were searched and what they hold.
    """
    name = str(name_or_path)
    if name == "wegen-mini":
        return Path(__file__).parent.parent / "mini" / "weights"
    places = [*(Path(root) / name for root in roots), Path(name)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    for place in places:  # killed while it was replaced
        for left in sorted(place.parent.glob(f".{glob.escape(place.name)}.*/old/config.json")) if place.name else ():
            raise CheckpointError(
                f"no model folder '{name}': writing it was interrupted. What was there before is {left.parent}; rename it to {place}."
            )
        if place.name and (place.parent / f".{place.name}.converting").is_dir():
            raise CheckpointError(
                f"no model folder '{name}': its conversion was interrupted. The same `wegen convert` command goes on where it stopped."
            )
    searched = ", ".join(str(r) for r in roots) or "the current folder"
    presets = f" ('{name}' is a preset of sizes; its weights are not bundled.)" if name in PRESETS else ""
    raise CheckpointError(
        f"no model folder '{name}' (searched {searched}).{presets} Use wegen-mini, which is bundled, or a folder "
        "with a config.json as `wegen convert` writes it."
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; anything else is an error that names the file."""
    try:
        values = fileio.read_json(path)
    except JSONError as error:
        raise CheckpointError(f"{error.where}: not a valid configuration (it {error.reason}). Copy or convert it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a valid configuration (a JSON object was expected).")
    return values


def files(folder: str | Path, part: str) -> list[Path]:
    """The safetensors that hold a part, in order; empty when it is absent."""
    base = Path(folder) / WEIGHT_FILES[part]
    for stem in (base.name, base.name + ".fp16", base.name + ".bf16"):
        single = base.with_name(stem + ".safetensors")
        if single.is_file():
            return [single]
    index = base.with_name(base.name + ".safetensors.index.json")
    if index.is_file():
        listed = read_json(index).get("weight_map")
        names = index_names(listed, index)
        missing = [n for n in names if not (base.parent / n).is_file()]
        if missing:
            raise CheckpointError(f"{base.parent}: {index.name} lists {', '.join(missing)}, which is not there. Copy it again.")
        return [base.parent / n for n in names]
    return []


def index_names(listed: Any, index: Path) -> list[str]:
    """The file names of an index's «weight_map», each once. CheckpointError: it is none, or one of its names leaves the folder."""
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{index}: not an index of weights (no «weight_map» of file names). Copy it again.")
    names = sorted(set(listed.values()))
    for name in names:
        if not fileio.stays_inside(name) or Path(name).name != name:
            raise CheckpointError(
                f"{index}: it names {name[:80]!r}, which is no file beside it. Copy it again, from a source that you trust."
            )
    return names


def parts(folder: str | Path) -> list[str]:
    """The parts (keys of WEIGHT_FILES) whose weights are there."""
    return [part for part in WEIGHT_FILES if files(folder, part)]


def missing(folder: str | Path, part: str) -> NoReturn:
    """Raise the error of a part that the folder lacks."""
    raise CheckpointError(
        f"{Path(folder).name}: the model folder has no {part} ({WEIGHT_FILES[part]}.safetensors in {folder}). "
        f"It has: {', '.join(parts(folder)) or 'nothing'}. Convert a checkpoint that holds it, or choose "
        "another model."
    )


def check_target(target: Path, written: Collection[str], source: Path | None = None) -> None:
    """Refuse a folder whose replacement would lose something.

    Args:
        written: what the new folder will hold: keys of WEIGHT_FILES, and "tokenizer".
        source: what is read; the target must be neither inside it nor around it.
    Raises:
        CheckpointError: a file; no model folder; a model with parts, a tokenizer or folders that `written` lacks.
    """
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; name a folder to write.")
    if source is not None:
        here, there = target.resolve(), source.resolve()
        if here == there or there in here.parents or here in there.parents:
            raise CheckpointError(f"{target}: choose a folder outside the source {source}, which is never touched.")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / "config.json").is_file() or b"format_version" not in (target / "config.json").read_bytes():
        raise CheckpointError(f"{target} exists and is not a WeGen model folder: nothing there is overwritten. Name another folder.")
    lost = [part for part in WEIGHT_FILES if part not in written and list(target.glob(WEIGHT_FILES[part] + "*.safetensors"))]
    lost += ["tokenizer"] if "tokenizer" not in written and any((target / name).is_file() for name in TOKENIZER[:2]) else []
    if lost:
        hint = " (the tokenizer's files are taken from beside the source's weights)" if "tokenizer" in lost else ""
        raise CheckpointError(
            f"{target} holds a model whose {', '.join(lost)} would be lost, since they are not written anew. "
            f"Name another folder, or write all of it{hint}."
        )
    others = sorted(p.name for p in target.iterdir() if p.is_dir() and p.name not in FOLDERS)
    if others:
        raise CheckpointError(
            f"{target} holds folders that are no part of a model and would be lost: {', '.join(others)}. "
            "Name another folder, or move them away."
        )


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when the block ends well and is removed when it does not.

    It lies beside, in a hidden folder of a name of its own, which also keeps the old one until the new one is in its place:
    after a crash between the two renames it is there as `.<name>.<letters>/old`.
    """
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*/new"):  # of a killed process; one with `old` holds a model
        if not (left.parent / "old").exists() and all(time.time() - p.stat().st_mtime > fileio.OLD for p in (left, *left.rglob("*"))):
            shutil.rmtree(left.parent, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except BaseException:
        placed = not new.exists()
        try:
            if old.exists() and not placed:
                os.replace(old, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if placed or not old.exists():
                shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside, ignore_errors=True)
