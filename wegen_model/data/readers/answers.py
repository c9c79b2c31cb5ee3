"""Questions and answers about a picture: LLaVA-150K, LLaVAR, ScienceQA.

LLaVA-150K   liuhaotian/LLaVA-Instruct-150K: llava_instruct_150k.json (id, image, conversations of from/value, "<image>" in the first);
             pictures are COCO's train2017
LLaVAR       SALT-NLP/LLaVAR: chat_llavar.json in the same form; pictures of finetune.zip
ScienceQA    github.com/lupantech/ScienceQA: data/scienceqa/problems.json (question, choices, answer, hint, image, lecture, solution,
             split), images/SPLIT/ID/image.png; problems without a picture are words alone
Not run on the real files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .files import find, load, picture, rng


def _talk(folder: Path, file: str, roots: tuple[str, ...]) -> Iterator[Item]:
    for number, row in enumerate(load(folder / file), 1):

        def make(row=row, number=number) -> Sample:
            said = row["conversations"]
            if len(said) < 2 or [t["from"] for t in said] != ["human", "gpt"] * (len(said) // 2):
                raise ValueError("the conversation is not questions and answers in turn")
            texts = [t["value"].replace("<image>", "") for t in said]
            if not all(text.strip() for text in texts[1::2]):
                raise ValueError("an answer is empty")
            key = f"{row.get('id', number)}"
            shown = picture(find(row["image"], *(folder / r for r in roots))) if row.get("image") else None
            return tasks.understanding(key, shown, list(zip(texts[::2], texts[1::2])), rng(key))

        yield Item(f"{file}:{number}", make)


def llava(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _talk(folder, "llava_instruct_150k.json", ("train2017", "coco/train2017", "images", "."))


def llavar(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    return _talk(folder, "chat_llavar.json", ("finetune", "images", "."))


def scienceqa(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    root = next(r for r in (folder, folder / "scienceqa", folder / "data/scienceqa") if (r / "problems.json").exists())
    for pid, row in load(root / "problems.json", dict).items():
        if not isinstance(row, dict):
            skips.add(f"problem {pid}", "not an object")
            continue
        if row.get("split", "train") != "train":
            continue

        def make(pid=pid, row=row) -> Sample:
            letters = "ABCDEFGH"
            if not 0 <= row["answer"] < len(row["choices"]) <= len(letters):
                raise ValueError(f"its answer is number {row['answer']} of {len(row['choices'])} choices")
            options = " ".join(f"({letters[i]}) {choice}" for i, choice in enumerate(row["choices"]))
            question = f"{row['question']} {row.get('hint') or ''} Options: {options}"
            answer = f"The answer is ({letters[row['answer']]}) {row['choices'][row['answer']]}. {row.get('solution') or ''}"
            shown = picture(find(f"{row['split']}/{pid}/{row['image']}", root / "images", root)) if row.get("image") else None
            return tasks.understanding(pid, shown, [(question, answer)], rng(pid))

        yield Item(f"problem {pid}", make)
