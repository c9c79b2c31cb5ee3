"""The datasets of the supplement's Table 1, in one table: which tasks each serves, how a folder of it is known, who reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..items import Item, Skips


@dataclass(frozen=True)
class Reader:
    """`signs`: patterns, any of which a folder of this dataset matches. `read(folder, task, skips)` yields Items."""

    name: str
    tasks: tuple[str, ...]  # Table 1's rows; the first is the default
    signs: tuple[str, ...]
    module: str
    function: str
    needs: str  # what the folder must hold, for people

    def read(self, folder: Path, task: str, skips: Skips) -> Iterator[Item]:
        from importlib import import_module

        return getattr(import_module(f".{self.module}", __package__), self.function)(folder, task, skips)

    def fits(self, folder: Path) -> bool:
        return any(next(folder.glob(sign), None) is not None for sign in self.signs)


_IMG2DATASET = "tars that img2dataset wrote (NNNNN.tar with .jpg, .txt and .json)"
READERS: dict[str, Reader] = {
    r.name: r
    for r in (
        Reader("laion-coco", ("reconstruction", "restoration"), ("[0-9]*.tar", "*/[0-9]*.tar"), "captions", "laion_coco", _IMG2DATASET),
        Reader(
            "object365",
            ("reconstruction",),
            ("zhiyuan_objv2_*.json", "*/zhiyuan_objv2_*.json", "images/v*/patch*", "*/patch[0-9]*"),
            "photos",
            "object365",
            "images/v1/patch0 … or train/patch0 …",
        ),
        Reader(
            "openimages",
            ("reconstruction",),
            tuple(f"{d}/{'[0-9a-f]' * 16}.jpg" for d in ("train*", "validation", "test")),
            "photos",
            "openimages",
            "train_0 …, train, validation or test with files named by 16 hexadecimal digits",
        ),
        Reader(
            "laion-coco-recaption",
            ("text-to-picture", "understanding"),
            ("recaption.json",),
            "wegen",
            "recaption",
            "shards that `wegen data recaption` made",
        ),
        Reader("capsfusion", ("text-to-picture",), ("[0-9]*.tar", "*/[0-9]*.tar"), "captions", "capsfusion", _IMG2DATASET),
        Reader(
            "journeydb",
            ("text-to-picture",),
            ("**/*_anno_realease_repath.jsonl", "**/valid_anno_repath.jsonl"),
            "captions",
            "journeydb",
            "train_anno_realease_repath.jsonl and imgs/",
        ),
        Reader("grit", ("subject",), ("[0-9]*.tar", "*/[0-9]*.tar"), "grounded", "grit", _IMG2DATASET + " with noun_chunks"),
        Reader("diic", ("subject",), ("diic.json",), "wegen", "diic", "shards that `wegen data diic` made"),
        Reader(
            "multigen-20m",
            ("condition", "restoration", "style"),
            ("json_files/aesthetics_plus_all_group_*_all.json",),
            "conditions",
            "multigen",
            "json_files/, conditions/ and images/",
        ),
        Reader(
            "seed-edit", ("editing",), ("**/annotations*/*.jsonl",), "edits", "seed_edit", "annotations/*.jsonl and the unpacked pictures"
        ),
        Reader("magicbrush", ("editing",), ("**/train-*.parquet",), "edits", "magicbrush", "data/train-*.parquet"),
        Reader(
            "hr-viton",
            ("condition",),
            ("train_pairs.txt",),
            "conditions",
            "hr_viton",
            "train_pairs.txt and train/image, cloth, agnostic-v3.2",
        ),
        Reader("stylebooth", ("style",), ("train.csv",), "edits", "stylebooth", "train.csv and the pictures it names"),
        Reader(
            "llava-150k", ("understanding",), ("llava_instruct_150k.json",), "answers", "llava", "llava_instruct_150k.json and train2017/"
        ),
        Reader("llavar", ("understanding",), ("chat_llavar.json",), "answers", "llavar", "chat_llavar.json and finetune/"),
        Reader(
            "scienceqa",
            ("understanding",),
            ("problems.json", "scienceqa/problems.json", "data/scienceqa/problems.json"),
            "answers",
            "scienceqa",
            "problems.json and images/",
        ),
    )
}


def guesses(folder: Path) -> list[str]:
    """The datasets that a folder looks like: several for img2dataset's tars."""
    return [r.name for r in READERS.values() if folder.is_dir() and r.fits(folder)]


def items(name: str, folder: str | Path, task: str = "", skips: Skips | None = None) -> Iterator[Item]:
    """The Items of a dataset's folder for one task (default: its first).

    Raises:
        ValueError: no such dataset or task; or the folder is missing or of another kind, which is then named.
    """
    folder, reader = Path(folder), READERS.get(name)
    if reader is None:
        raise ValueError(f"no dataset {name!r}; choose one of {', '.join(READERS)}.")
    task = task or reader.tasks[0]
    if task not in reader.tasks:
        raise ValueError(f"{name} has no task {task!r}; it serves {', '.join(reader.tasks)}.")
    if not folder.is_dir():
        raise ValueError(f"{name}: {folder} is not a folder.")
    if not reader.fits(folder):
        kinds = guesses(folder)
        raise ValueError(
            f"{folder} does not hold {name}: there must be {reader.needs}." + (f" It looks like {' or '.join(kinds)}." if kinds else "")
        )
    return reader.read(folder, task, skips if skips is not None else Skips())
