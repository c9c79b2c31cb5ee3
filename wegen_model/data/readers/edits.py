"""A picture, an instruction, the picture changed: SEED-Edit, MagicBrush, StyleBooth.

SEED-Edit    AILab-CVC/SEED-Data-Edit-Part1-Openimages, -Part1-Unsplash, -Part2-3: annotations/*.jsonl; single turns have source_image,
             target_image, instruction (or instruction_new), several turns have source_image, instruction_1, edit_image_1, …
MagicBrush   osunlp/MagicBrush: data/train-*.parquet with img_id, turn_index, source_img, mask_img, instruction, target_img
StyleBooth   scepter-studio/stylebooth: train.csv with EnStyle, ZhStyle, ShortStyleName, Target:FILE, Source:FILE, SearchResult:DICT
Not run on the real files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from .. import tasks
from ..items import Item, Skips
from ..record import Unreadable, decode
from ..sample import Sample
from .files import find, lines, picture, rng, rows, table


def seed_edit(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for path in sorted(folder.rglob("annotations*/*.jsonl")):
        base = path.parent.parent
        roots = (base, base / "images", base / "source_images", base / "target_images", base / "unsplash_images")
        for name, row in lines(path, skips):

            def make(name=name, row=row, roots=roots) -> Sample:
                if "target_image" in row:
                    changes = [(row.get("instruction_new") or row["instruction"], row["target_image"])]
                else:
                    numbers = itertools.takewhile(lambda i: f"edit_image_{i}" in row, itertools.count(1))
                    changes = [(row[f"instruction_{i}"], row[f"edit_image_{i}"]) for i in numbers]
                if not changes:
                    raise ValueError("neither target_image nor edit_image_1")
                after = [(text, picture(find(file, *roots))) for text, file in changes]
                return tasks.editing(name, picture(find(row["source_image"], *roots)), after, rng(name))

            yield Item(name, make)


def magicbrush(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """The turns of one picture are one conversation."""
    columns = ["img_id", "turn_index", "source_img", "instruction", "target_img"]
    for group, some in itertools.groupby(rows(folder, "**/train-*.parquet", columns, skips), key=lambda r: r[1]["img_id"]):
        turns = [row for _, row in some]

        def make(group=group, turns=turns) -> Sample:
            ordered = sorted(turns, key=lambda r: r["turn_index"])
            after = [(r["instruction"], decode(r["target_img"]["bytes"], f"{group}-output{r['turn_index']}")) for r in ordered]
            return tasks.editing(group, decode(ordered[0]["source_img"]["bytes"], f"{group}-input"), after, rng(group))

        yield Item(f"img_id {group}", make)


def stylebooth(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    columns: dict[str, int] = {}
    for name, row in table(folder / "train.csv", skips):
        if not columns:
            columns = {c.strip(): i for i, c in enumerate(row)}
            missing = [c for c in ("EnStyle", "Target:FILE", "Source:FILE") if c not in columns]
            if missing:
                raise ValueError(f"{folder / 'train.csv'}: no column {missing[0]}; StyleBooth's has EnStyle, Target:FILE, Source:FILE.")
            continue

        def make(name=name, row=row, columns=columns) -> Sample:
            if len(row) < 5:
                raise Unreadable("fewer than 5 columns")
            before, after = (picture(find(row[columns[c]], folder)) for c in ("Source:FILE", "Target:FILE"))
            return tasks.style(name, before, row[columns["EnStyle"]], after, rng(name))

        yield Item(name, make)
