"""A picture, an instruction, the picture changed: SEED-Edit, MagicBrush, StyleBooth.

SEED-Edit    AILab-CVC/SEED-Data-Edit-Part1-Openimages, -Part1-Unsplash, -Part2-3: annotations/*.jsonl below the parts; single turns have
             source_image, target_image, instruction; several have source_image, instruction_1, edit_image_1, … . annotations_GPT4V/
             holds some of the same pairs, worded again, with a response (the card; github.com/AILab-CVC/SEED-X, src/data/sft_clm.py
             takes instruction_new and response where both are): a pair is read once, in the new words.
MagicBrush   osunlp/MagicBrush: data/train-*.parquet with img_id, turn_index, source_img, mask_img, instruction, target_img
StyleBooth   scepter-studio/stylebooth, datasets/stylebooth_dataset.zip: train.csv with ShortStyleName, Target:FILE, Source:FILE,
             SearchResult:DICT (JSON whose keys are exemplars of the style); EnStyle where it is there
What each was checked against: docs/data.md. Not run on the real files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...fileio import parse_json
from .. import tasks
from ..items import Item, Skips
from ..record import Unreadable
from ..sample import Sample
from .containers import rows
from .files import find, lines, picture, rng, shown, table, words

STYLE, TARGET, SOURCE, EXEMPLARS = ("EnStyle", "ShortStyleName"), "Target:FILE", "Source:FILE", "SearchResult:DICT"
Turns = Iterable[tuple[object, Callable[[], np.ndarray]]]  # an instruction, and what reads the picture that it gives


def _turns(name: str, turns: Turns, skips: Skips) -> list[tuple[str, np.ndarray]]:
    """Instructions and their pictures, up to the first that is broken, which is entered; the first one's fault is raised."""
    out: list[tuple[str, np.ndarray]] = []
    for number, (instruction, read) in enumerate(turns, 1):
        try:
            out.append((words(instruction, "its instruction"), read()))
        except ValueError as error:
            if not out:
                raise
            skips.add(name, f"its turns from the {number}. on: {error}; those before are read")
            break
    return out


def seed_edit(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    again = dict(_worded_again(folder, skips))
    for path in sorted(folder.rglob("annotations/*.jsonl")):
        for name, row in lines(path, skips, folder):
            new = again.pop(_pair(path, row), None)
            yield _edit(name, row, new[1] if new else {}, path, skips)
    for name, row, path in ((name, row, path) for (path, *_), (name, row) in again.items()):  # those that annotations/ does not have
        yield _edit(name, row, row, path / "annotations_GPT4V" / "x", skips)


def _worded_again(folder: Path, skips: Skips) -> Iterator[tuple[tuple, tuple[str, dict]]]:
    for path in sorted(folder.rglob("annotations_GPT4V/*.jsonl")):
        for name, row in lines(path, skips, folder):
            yield _pair(path, row), (name, row)


def _pair(path: Path, row: dict) -> tuple:
    """What makes rows of annotations/ and annotations_GPT4V/ one pair: their part and pictures."""
    return path.parent.parent, str(row.get("source_image")), str(row.get("target_image"))


def _edit(name: str, row: dict, new: dict, path: Path, skips: Skips) -> Item:
    base = path.parent.parent
    roots = (
        base / "images",
        base,
        *(base / f"{f}{d}" for d in ("source_images", "target_images", "unsplash_images") for f in ("images/", "")),
    )

    def make() -> Sample:
        turns: Turns
        if "target_image" in row:
            instruction = new.get("instruction_new") or new.get("instruction") or row.get("instruction_new") or row.get("instruction")
            turns = [(instruction, lambda: picture(find(row["target_image"], *roots)))]
        else:
            numbers = list(itertools.takewhile(lambda i: row.get(f"edit_image_{i}") and row.get(f"instruction_{i}"), itertools.count(1)))
            turns = [(row[f"instruction_{i}"], lambda i=i: picture(find(row[f"edit_image_{i}"], *roots))) for i in numbers]  # type: ignore[misc]
            if not numbers:
                raise ValueError("neither target_image nor edit_image_1 with an instruction")
        before = picture(find(row.get("source_image", ""), *roots))
        response = new.get("response") or row.get("response")
        return tasks.editing(name, before, _turns(name, turns, skips), rng(name), reply=response if isinstance(response, str) else "")

    return Item(name, make)


def magicbrush(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """The turns of one picture are one conversation."""
    wanted = ("img_id", "turn_index", "source_img", "instruction", "target_img")
    for group, some in itertools.groupby(rows(folder, wanted, skips), key=lambda r: str(r[1]["img_id"])):
        turns = [row for _, row in some]

        def make(group=group, turns=turns) -> Sample:
            ordered = sorted(turns, key=lambda r: r["turn_index"])
            before = shown(ordered[0]["source_img"], f"{group}-input")
            after = [(r["instruction"], lambda r=r: shown(r["target_img"], f"{group}-output{r['turn_index']}")) for r in ordered]
            return tasks.editing(group, before, _turns(f"img_id {group}", after, skips), rng(group))

        yield Item(f"img_id {group}", make)


def stylebooth(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    """Half of the samples name the style, half show it by an exemplar, where the row has one."""
    columns: dict[str, int] = {}
    for name, row in table(folder / "train.csv", skips):
        if not columns:
            columns = {c.strip(): i for i, c in enumerate(row)}
            named = next((c for c in STYLE if c in columns), STYLE[1])
            missing = [c for c in (named, TARGET, SOURCE) if c not in columns]
            if missing:
                raise ValueError(f"{folder / 'train.csv'}: no column {missing[0]}; StyleBooth's has {STYLE[1]}, {TARGET}, {SOURCE}.")
            continue

        def make(name=name, row=row, columns=columns, named=named) -> Sample:
            if len(row) <= max(columns[c] for c in (named, TARGET, SOURCE)):
                raise Unreadable(f"only {len(row)} columns")
            style, target, source = (words(row[columns[c]], f"its {c}") for c in (named, TARGET, SOURCE))
            before, after = (picture(find(file, folder)) for file in (source, target))
            draw = rng(name)
            if draw.random() < 0.5 and (exemplar := _exemplar(name, row, columns, folder, target, draw, skips)) is not None:
                return tasks.style_by_example(name, before, exemplar, after, draw)
            return tasks.style(name, before, style, after, draw)

        yield Item(name, make)


def _exemplar(name: str, row: list[str], columns: dict[str, int], folder: Path, target: str, draw, skips: Skips) -> np.ndarray | None:
    """One of a row's exemplars; None where it has none that can be read: then the style's name is told."""
    at = columns.get(EXEMPLARS, len(row))
    try:
        listed = parse_json(row[at], f"{name}, {EXEMPLARS}") if at < len(row) and row[at].strip() else {}
        others = [path for path in listed if path != target]
        return picture(find(tasks.pick(draw, others), folder)) if others else None
    except (ValueError, TypeError) as error:
        skips.add(name, f"its exemplar cannot be shown, its style is named instead: {error}")
        return None
