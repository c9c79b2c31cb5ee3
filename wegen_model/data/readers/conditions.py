"""A picture from another that constrains it: MultiGen-20M and HR-VITON.

MultiGen-20M   UniControl's bucket sfr-unicontrol-data-research/dataset: json_files/aesthetics_plus_all_group_TASK_all.json, lines of
               {control_TASK, source, prompt}; conditions/…, images/… (github.com/salesforce/UniControl, train_util/dataset.py)
HR-VITON       zalando-hd-resized: train_pairs.txt, train/image, train/cloth, train/agnostic-v3.2 (github.com/sangyun884/HR-VITON)
               limingcv/MultiGen-20M_depth on Hugging Face: parquet with image, text, control_depth
What each was checked against: docs/data.md. Not run on the real files. Which of MultiGen's twelve conditions WeGen counts as
restoration or style is not published: blur, grey and
holes are restoration here, and a sketch that becomes a picture is style.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...fileio import open_text
from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .containers import rows
from .files import find, lines, picture, rng, shown, words

RESTORED = {"blur": "blur", "grayscale": "greyscale", "inpainting": "masks", "outpainting": "masks"}
SKETCH = ("hedsketch",)
EXPORTED = ("image", "text", "control_depth")


def multigen(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """Rows without a prompt are passed over, as by UniControl's loader."""
    if not (folder / "json_files").is_dir():
        yield from _depth(folder, task, skips)
    for path in sorted((folder / "json_files").glob("aesthetics_plus_all_group_*_all.json")):
        kind = path.name.removeprefix("aesthetics_plus_all_group_").removesuffix("_all.json")
        if task != ("restoration" if kind in RESTORED else "condition") and not (task == "style" and kind in SKETCH):
            continue
        for name, row in lines(path, skips):

            def make(name=name, row=row, kind=kind) -> Sample:
                prompt = words(row.get("prompt"), "its prompt")
                control = picture(find(row["control_seg" if kind == "segbase" else f"control_{kind}"], folder / "conditions"))
                whole, draw = picture(find(row["source"], folder / "images")), rng(name)
                if task == "restoration":
                    return tasks.mended(name, control, RESTORED[kind], whole, draw)
                if task == "style":
                    return tasks.style(name, control, f"of a finished picture. {prompt}", whole, draw)
                return tasks.condition(name, control, kind, prompt, whole, draw)

            yield Item(name, make)


def _depth(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    if task != "condition":
        raise ValueError(f"{folder}: MultiGen-20M as parquet holds depth maps, which serve the task condition, not {task}.")
    for name, row in rows(folder, EXPORTED, skips):

        def make(name=name, row=row) -> Sample:
            prompt = words(row["text"], "its prompt")
            control, whole = (shown(row[c], f"{name}, {c}") for c in ("control_depth", "image"))
            return tasks.condition(name, control, "depth", prompt, whole, rng(name))

        yield Item(name, make)


def hr_viton(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """The pairs of a person and the garment worn: the second column (another garment) has no picture to learn from."""
    with open_text(folder / "train_pairs.txt") as file:
        pairs = file.read().splitlines()
    for number, line in enumerate(pairs, 1):
        if not line.strip():
            continue

        def make(line=line) -> Sample:
            file = words(line, "its line").split()[0]
            root = folder / "train"
            person, cloth, whole = (picture(root / d / file) for d in ("agnostic-v3.2", "cloth", "image"))
            return tasks.try_on(file, person, cloth, whole, rng(file))

        yield Item(f"train_pairs.txt:{number}", make)
