"""The datasets of the supplement's Table 1, in one table: which tasks each serves, how a folder of it is known, who reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..items import Item, Skips
from ..optional import need
from .containers import has_columns


@dataclass(frozen=True)
class Reader:
    """`signs`: patterns, any of which a folder of this dataset matches. `read(folder, task, skips)` yields Items.

    `columns`: those of the parquet files in which it is also distributed; a folder of them is one of this dataset too.
    `addresses`: columns of parquet files that only say where the pictures are, and `fetch`: what downloads them.
    """

    name: str
    tasks: tuple[str, ...]  # Table 1's rows; the first is the default
    signs: tuple[str, ...]
    module: str
    function: str
    needs: str  # what the folder must hold, for people
    columns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    fetch: str = ""

    def read(self, folder: Path, task: str, skips: Skips) -> Iterator[Item]:
        from importlib import import_module

        return getattr(import_module(f".{self.module}", __package__), self.function)(folder, task, skips)

    def fits(self, folder: Path) -> bool:
        return any(next(folder.glob(sign), None) is not None for sign in self.signs) or has_columns(folder, self.columns)

    def lacks(self, folder: Path) -> str:
        """Why a folder that does not fit cannot be read, in a sentence."""
        if self.addresses and has_columns(folder, self.addresses):
            return (
                f"{folder} holds {self.name}'s table of addresses, not its pictures. Download them: img2dataset --url_list {folder} "
                f"--input_format parquet {self.fetch} --output_format webdataset --output_folder OUT, and name OUT."
            )
        if self.columns and any(folder.rglob("*.parquet")):
            need("pyarrow.parquet")  # says what to install: without it no parquet file is looked into
        return ""


_IMG2DATASET = "tars that img2dataset wrote (NNNNN.tar with .jpg, .txt and .json), or its parquet files with pictures"
_TARS = ("[0-9]*.tar", "*/[0-9]*.tar")
_KEPT = "--save_additional_columns"
READERS: dict[str, Reader] = {
    r.name: r
    for r in (
        Reader(
            "laion-coco",
            ("reconstruction", "restoration"),
            _TARS,
            "captions",
            "laion_coco",
            _IMG2DATASET,
            ("jpg",),
            ("URL", "TEXT", "top_caption"),
            "--url_col URL --caption_col TEXT",
        ),
        Reader(
            "object365",
            ("reconstruction",),
            (
                "zhiyuan_objv2_*.json",
                "*/zhiyuan_objv2_*.json",
                "images/v*/patch*",
                "*/patch[0-9]*",
                "train/obj365_*.jpg",
                "images/train/obj365_*.jpg",
            ),
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
        Reader(
            "capsfusion",
            ("text-to-picture",),
            _TARS,
            "captions",
            "capsfusion",
            _IMG2DATASET,
            ("jpg",),
            ("image_url", "capsfusion"),
            "--url_col image_url --caption_col capsfusion",
        ),
        Reader(
            "journeydb",
            ("text-to-picture",),
            ("**/*_anno_realease_repath.jsonl", "**/valid_anno_repath.jsonl"),
            "captions",
            "journeydb",
            "train_anno_realease_repath.jsonl and imgs/",
        ),
        Reader(
            "grit",
            ("subject",),
            _TARS,
            "grounded",
            "grit",
            _IMG2DATASET + " with noun_chunks",
            ("jpg", "noun_chunks"),
            ("url", "caption", "noun_chunks"),
            f'--url_col url --caption_col caption {_KEPT} \'["id","noun_chunks","ref_exps"]\'',
        ),
        Reader("diic", ("subject",), ("diic.json",), "wegen", "diic", "shards that `wegen data diic` made"),
        Reader(
            "multigen-20m",
            ("condition", "restoration", "style"),
            ("json_files/aesthetics_plus_all_group_*_all.json",),
            "conditions",
            "multigen",
            "json_files/, conditions/ and images/, or parquet with image, text, control_depth",
            ("image", "text", "control_depth"),
        ),
        Reader(
            "seed-edit", ("editing",), ("**/annotations*/*.jsonl",), "edits", "seed_edit", "annotations/*.jsonl and the unpacked pictures"
        ),
        Reader(
            "magicbrush",
            ("editing",),
            (),
            "edits",
            "magicbrush",
            "data/train-*.parquet",
            ("img_id", "turn_index", "source_img", "instruction", "target_img"),
        ),
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
            "llava-150k",
            ("understanding",),
            ("llava_instruct_150k.json",),
            "answers",
            "llava",
            "llava_instruct_150k.json and train2017/, or parquet with image and conversations",
            ("image", "conversations"),
        ),
        Reader(
            "llavar",
            ("understanding",),
            ("llava_instruct_150k_llavar_*.json", "chat_llavar.json"),
            "answers",
            "llavar",
            "llava_instruct_150k_llavar_16k.json and finetune/, chat_llavar.json and pretrain/, or parquet with user_texts, bot_texts",
            ("image", "user_texts", "bot_texts"),
        ),
        Reader(
            "scienceqa",
            ("understanding",),
            ("problems.json", "scienceqa/problems.json", "data/scienceqa/problems.json"),
            "answers",
            "scienceqa",
            "problems.json and images/, or data/train-*.parquet",
            ("question", "choices", "answer", "solution"),
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
        if sentence := reader.lacks(folder):
            raise ValueError(sentence)
        kinds = guesses(folder)
        raise ValueError(
            f"{folder} does not hold {name}: there must be {reader.needs}." + (f" It looks like {' or '.join(kinds)}." if kinds else "")
        )
    return reader.read(folder, task, skips if skips is not None else Skips())
