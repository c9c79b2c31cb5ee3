"""A picture from another that constrains it: MultiGen-20M and HR-VITON.

MultiGen-20M   UniControl's bucket sfr-unicontrol-data-research/dataset: json_files/aesthetics_plus_all_group_TASK_all.json, lines of
               {control_TASK, source, prompt}; conditions/…, images/… (github.com/salesforce/UniControl, train_util/dataset.py)
HR-VITON       zalando-hd-resized: train_pairs.txt, train/image, train/cloth, train/agnostic-v3.2 (github.com/sangyun884/HR-VITON)
Not run on the real files. Which of MultiGen's twelve conditions WeGen counts as restoration or style is not published: blur, grey and
holes are restoration here, and a sketch that becomes a picture is style.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...fileio import open_text
from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .files import find, lines, picture, rng

RESTORED = {"blur": "blur", "grayscale": "greyscale", "inpainting": "masks", "outpainting": "masks"}
SKETCH = ("hedsketch",)


def multigen(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for path in sorted((folder / "json_files").glob("aesthetics_plus_all_group_*_all.json")):
        kind = path.name.removeprefix("aesthetics_plus_all_group_").removesuffix("_all.json")
        if task != ("restoration" if kind in RESTORED else "condition") and not (task == "style" and kind in SKETCH):
            continue
        for name, row in lines(path, skips):

            def make(name=name, row=row, kind=kind) -> Sample:
                control = picture(find(row["control_seg" if kind == "segbase" else f"control_{kind}"], folder / "conditions"))
                whole, draw = picture(find(row["source"], folder / "images")), rng(name)
                if task == "restoration":
                    return tasks.mended(name, control, RESTORED[kind], whole, draw)
                if task == "style":
                    return tasks.style(name, control, f"of a finished picture. {row['prompt']}", whole, draw)
                return tasks.condition(name, control, kind, row["prompt"], whole, draw)

            yield Item(name, make)


def hr_viton(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """The pairs of a person and the garment worn: the second column (another garment) has no picture to learn from."""
    with open_text(folder / "train_pairs.txt") as file:
        pairs = file.read().splitlines()
    for number, line in enumerate(pairs, 1):
        if not line.strip():
            continue

        def make(line=line) -> Sample:
            file = line.split()[0]
            root = folder / "train"
            person, cloth, whole = (picture(root / d / file) for d in ("agnostic-v3.2", "cloth", "image"))
            return tasks.try_on(file, person, cloth, whole, rng(file))

        yield Item(f"train_pairs.txt:{number}", make)
