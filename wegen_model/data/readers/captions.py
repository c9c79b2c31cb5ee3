"""Pictures with captions: Laion-COCO, CapsFusion (both downloaded with img2dataset), JourneyDB.

Laion-COCO      laion/laion-coco: parquet with URL, TEXT, top_caption, all_captions, all_similarities …; img2dataset makes NNNNN.tar with
                KEY.jpg, .txt, .json (github.com/rom1504/img2dataset, dataset_examples/laion-coco.md), or with --output_format parquet
                NNNNN.parquet with the columns jpg, caption and the additional ones
CapsFusion      BAAI/CapsFusion-120M: capsfusion_N.parquet with image_url, laion_2b, laion_coco, capsfusion; img2dataset with
                --url_col image_url --caption_col capsfusion
JourneyDB       JourneyDB/JourneyDB: data/train/train_anno_realease_repath.jsonl (sic) with img_path, prompt, Task2.Caption (which may
                be absent or null), Task3; data/train/imgs/NNN/ unpacked of NNN.tgz
What each was checked against: docs/data.md. Not run on the real files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import tasks
from ..items import Item, Skips
from ..record import Unreadable
from ..sample import Sample
from .containers import members
from .files import find, lines, picture, rng, words

ANNOTATIONS = ("train_anno_realease_repath.jsonl", "valid_anno_repath.jsonl")


def laion_coco(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for member in members(folder, skips):

        def make(member=member) -> Sample:
            build = tasks.restoration if task == "restoration" else tasks.reconstruction
            return build(member.name, member.image(), rng(member.name))

        yield Item(member.name, make)


def capsfusion(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for member in members(folder, skips):

        def make(member=member) -> Sample:
            values = member.values()
            caption = words(values.get("capsfusion") or values.get("caption") or member.text() or None, "its caption")
            return tasks.text_to_picture(member.name, caption, member.image(), rng(member.name))

        yield Item(member.name, make)


def journeydb(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for root in (folder, folder / "data/train", folder / "data/valid", folder / "train", folder / "valid"):
        for path in (root / n for n in ANNOTATIONS if (root / n).exists()):
            for name, row in lines(path, skips):

                def make(row=row, root=root) -> Sample:
                    key = words(row.get("img_path"), "its img_path")
                    draw = rng(key)
                    caption, prompt = (row.get("Task2") or {}).get("Caption"), midjourney(row.get("prompt") or "")
                    text = caption if caption and (not prompt or draw.random() < 0.5) else prompt
                    if not text:
                        raise ValueError("neither a caption nor a prompt")
                    return tasks.text_to_picture(key, words(text, "its caption"), _journey(root, key), draw)

                yield Item(name, make)


def _journey(root: Path, name: str) -> np.ndarray:
    """The picture of a row. Some rows say .png where the file is .jpg."""
    path = find(name, root / "imgs", root)
    if not path.is_file():
        path = next((p for p in (path.with_suffix(".jpg"), path.with_suffix(".png")) if p.is_file()), path)
    packed = path.parent.with_suffix(".tgz")
    if not path.is_file() and packed.is_file():
        raise Unreadable(f"imgs/{packed.name} is not unpacked: tar xzf {packed.name} in its folder")
    return picture(path)


def midjourney(prompt: str) -> str:
    """The words of a prompt to Midjourney: without links to pictures, weights (`fox::2`) and, at its end, switches (`--ar 16:9`)."""
    text = re.sub(r"<?\bhttps?://\S+", " ", f" {prompt}")
    text = re.split(r"\s--\s?\w|\s—(?:ar|v|s|q|c|no|iw|hd|niji|seed|style|stylize|chaos|quality|version|uplight|test\w*)\b", text)[0]
    text = re.sub(r"\s*::\s*-?(?:\d+\.?\d*|\.\d+)?", ", ", text)
    text = re.sub(r"\s+", " ", re.sub(r"\s+([,.;])", r"\1", text))
    return re.sub(r"(?:[,;]\s*){2,}", ", ", text).strip(" ,;")
