"""Pictures with captions: Laion-COCO, CapsFusion (both downloaded with img2dataset), JourneyDB.

Laion-COCO      laion/laion-coco: parquet with URL, TEXT, top_caption, all_captions; img2dataset makes NNNNN.tar with KEY.jpg, .txt, .json
CapsFusion      BAAI/CapsFusion-120M: parquet with image_url, laion_2b, laion_coco, capsfusion; img2dataset with --url_col image_url
                --caption_col capsfusion, the other two as additional columns
JourneyDB       JourneyDB/JourneyDB: data/train/train_anno_realease_repath.jsonl (sic) with img_path, prompt, Task2.Caption, and
                data/train/imgs/NNN/
Not run on the real files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...fileio import parse_json
from .. import tasks
from ..items import Item, Skips
from .files import find, image, lines, members, picture, rng

ANNOTATIONS = ("train_anno_realease_repath.jsonl", "valid_anno_repath.jsonl")


def laion_coco(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for name, files in members(folder, skips):

        def make(name=name, files=files):
            build = tasks.restoration if task == "restoration" else tasks.reconstruction
            return build(name, image(files, name), rng(name))

        yield Item(name, make)


def capsfusion(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for name, files in members(folder, skips):

        def make(name=name, files=files):
            values = parse_json(files.get("json", b"{}"), f"{name}.json")
            caption = values.get("capsfusion") or values.get("caption") or files.get("txt", b"").decode("utf-8-sig")
            if not caption:
                raise ValueError("no caption")
            return tasks.text_to_picture(name, caption, image(files, name), rng(name))

        yield Item(name, make)


def journeydb(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for root in (folder, folder / "data/train", folder / "data/valid", folder / "train", folder / "valid"):
        for path in (root / n for n in ANNOTATIONS if (root / n).exists()):
            for name, row in lines(path, skips):

                def make(row=row, root=root):
                    draw = rng(row["img_path"])
                    caption = (row.get("Task2") or {}).get("Caption")
                    prompt = re.sub(r"\s--?\w+(\s[\w.:]+)?", "", " " + (row.get("prompt") or "")).strip()  # Midjourney's switches
                    text = caption if caption and (not prompt or draw.random() < 0.5) else prompt
                    if not text:
                        raise ValueError("neither a caption nor a prompt")
                    return tasks.text_to_picture(row["img_path"], text, picture(find(row["img_path"], root / "imgs", root)), draw)

                yield Item(name, make)
