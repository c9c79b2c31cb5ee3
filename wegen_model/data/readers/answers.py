"""Questions and answers about a picture: LLaVA-150K, LLaVAR, ScienceQA.

LLaVA-150K   liuhaotian/LLaVA-Instruct-150K (github.com/haotian-liu/LLaVA, docs/Data.md): llava_instruct_150k.json (id, image,
             conversations of from/value, "<image>" in the first); pictures are COCO's train2017. Ids repeat: three kinds of talk a picture.
             Parquet with the same columns: the picture's name, or itself.
LLaVAR       SALT-NLP/LLaVAR (github.com/SALT-NLP/LLaVAR, README). Fine-tuning: llava_instruct_150k_llavar_16k.json (or _20k), pictures
             of finetune.zip merged into train2017. It begins with LLaVA-150K, which is not read here (`llava-150k` reads it): LLaVAR's
             own pictures have names in COCO's form that COCO does not use. Pretraining: chat_llavar.json, pictures of pretrain.zip
             merged into cc3m; read where no file of fine-tuning is. HuggingFaceM4/LLaVAR-Instruct-16K: parquet with image, user_texts,
             bot_texts.
ScienceQA    github.com/lupantech/ScienceQA: data/scienceqa/problems.json (question, choices, answer, hint, image, lecture, solution,
             split), images/SPLIT/ID/image.png; derek-thomas/ScienceQA: data/train-*.parquet with the picture itself. Problems without
             a picture are words alone. The question is worded as in models/base_prompt.py.
What each was checked against: docs/data.md. Not run on the real files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .containers import rows
from .files import find, load, picture, rng, shown, unique, words

LLAVA = "llava_instruct_150k.json"
FINE_TUNING = ("llava_instruct_150k_llavar_16k.json", "llava_instruct_150k_llavar_20k.json")  # the second holds the first
PRETRAINING = "chat_llavar.json"
COCO = re.compile(r"0{6}\d{6}\.jpg")  # train2017's names: its ids end at 581929
LETTERS = "ABCDEFGH"


def talk(said: list) -> list[tuple[str, str]]:
    """Questions and answers of LLaVA's turns, up to the first answer that is empty: what is asked after it rests on it."""
    if not isinstance(said, list) or not said or [t["from"] for t in said] != ["human", "gpt"] * (len(said) // 2):
        raise ValueError("the conversation is not questions and answers in turn")
    return pairs([t["value"] for t in said[::2]], [t["value"] for t in said[1::2]])


def pairs(questions: list, answers: list) -> list[tuple[str, str]]:
    """Questions without `<image>`, and answers, up to the first that is empty."""
    out: list[tuple[str, str]] = []
    for question, answer in zip(questions, answers, strict=True):
        if not isinstance(answer, str) or not answer.strip():
            break
        out.append((words(question, "a question").replace("<image>", "").strip(), words(answer, "an answer")))
    if not out:
        raise ValueError("an answer is empty")
    return out


def _talks(numbered: Iterable[tuple[str, dict]], roots: tuple[Path, ...]) -> Iterator[Item]:
    """Items of LLaVA's rows, whose ids may repeat."""
    seen: set[str] = set()
    for name, row in numbered:
        key = unique(row["id"] if isinstance(row, dict) and row.get("id") is not None else name, seen)

        def make(name=name, row=row, key=key) -> Sample:
            if not isinstance(row, dict):
                raise ValueError("not an object")
            made = talk(row["conversations"])
            p = shown(row["image"], name, *roots) if row.get("image") else None
            return tasks.understanding(key, p, made, rng(key))

        yield Item(name, make)


def _listed(path: Path) -> Iterator[tuple[str, dict]]:
    for number, row in enumerate(load(path), 1):
        yield f"{path.name}:{number}", row


def _below(folder: Path, *names: str) -> tuple[Path, ...]:
    return tuple(folder / name for name in names)


def llava(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    roots = _below(folder, "train2017", "coco/train2017", "coco/images/train2017", "images", ".")
    listed = (folder / LLAVA).exists()
    return _talks(_listed(folder / LLAVA) if listed else rows(folder, ("conversations", "image"), skips), roots)


def llavar(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    tuning = next((folder / name for name in FINE_TUNING if (folder / name).exists()), None)
    if tuning is not None:
        own = ((name, row) for name, row in _listed(tuning) if not _of_llava(row))
        return _talks(own, _below(folder, "finetune", "train2017", "coco/train2017", "coco/images/train2017", "images", "."))
    if (folder / PRETRAINING).exists():
        return _talks(_listed(folder / PRETRAINING), _below(folder, "cc3m", "pretrain", "images", "."))
    return _exported(folder, skips)


def _of_llava(row: object) -> bool:
    """Whether a row of LLaVAR's fine-tuning file is one of LLaVA-150K's: its picture has a name of COCO's."""
    name = row.get("image") if isinstance(row, dict) else None
    return isinstance(name, str) and COCO.fullmatch(name.replace("\\", "/").rpartition("/")[2]) is not None


def _exported(folder: Path, skips: Skips) -> Iterator[Item]:
    for name, row in rows(folder, ("image", "user_texts", "bot_texts"), skips):

        def make(name=name, row=row) -> Sample:
            return tasks.understanding(name, shown(row["image"], name), pairs(row["user_texts"], row["bot_texts"]), rng(name))

        yield Item(name, make)


def scienceqa(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    root = next((r for r in (folder, folder / "scienceqa", folder / "data/scienceqa") if (r / "problems.json").exists()), None)
    if root is None:
        for name, row in rows(folder, ("question", "choices", "answer", "solution"), skips):

            def make_row(name=name, row=row) -> Sample:
                return _problem(name, row, shown(row["image"], name) if row.get("image") else None)

            yield Item(name, make_row)
        return
    for pid, row in load(root / "problems.json", dict).items():
        if not isinstance(row, dict):
            skips.add(f"problem {pid}", "not an object")
            continue
        if row.get("split", "train") != "train":
            continue

        def make(pid=pid, row=row) -> Sample:
            name = f"train/{pid}/{row['image']}" if row.get("image") else None
            return _problem(pid, row, picture(find(name, root / "images", root)) if name else None)

        yield Item(f"problem {pid}", make)


def _problem(key: str, row: dict, p) -> Sample:
    choices, number = row["choices"], row["answer"]
    if not isinstance(choices, list) or not isinstance(number, int) or not 0 <= number < len(choices) <= len(LETTERS):
        raise ValueError(f"its answer is number {number} of {len(choices) if isinstance(choices, list) else 'no'} choices")
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices))
    context = f"Context: {row['hint']}\n" if row.get("hint") else ""
    question = f"Question: {words(row['question'], 'its question')}\n{context}Options: {options}"
    answer = f"The answer is ({LETTERS[number]}) {choices[number]}. {row.get('solution') or ''}"
    return tasks.understanding(key, p, [(question, answer)], rng(key))
