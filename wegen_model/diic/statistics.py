"""What a DIIC or a recaptioned dataset is like, beside what the paper says of its own; and how fast each step was.

Numbers are counted while shards are written and stand in their indices: no picture is read for them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..chat.conversation import TAG
from ..data import shards
from ..data.sample import Sample
from .options import ORDER

PAPER = {"instances a frame": 4.9, "tokens a caption": 25.4, "tokens a short caption": 10.2, "tokens a long caption": 79.6}


def words(text: str) -> int:
    """Words and stops: about a tokenizer's count for plain English."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def count(numbers: dict[str, float], step: str, made: Any) -> None:
    """Add a record or sample that a step made to its shard's numbers."""
    add: dict[str, float]
    if isinstance(made, Sample):
        add = {"samples": 1, "pictures shown": len(made.turns[0].pictures)}
        if step == "recaption":
            add |= {"short": words(TAG.sub("", made.turns[0].text)), "long": words(made.turns[-1].text)}
    else:
        values = made[1]
        add = {"shots": 1, "frames": len(values["times"])}
        if step == "caption":
            add["words"] = sum(map(words, values["captions"]))
        if step == "track":
            add["seen"] = sum(b is not None for i in values["instances"] for b in i["boxes"])
    for name, value in add.items():
        numbers[name] = numbers.get(name, 0) + value


def _sums(folder: Path) -> dict[str, float]:
    """A step's numbers over all its shards, `shards` and `took` (seconds) among them."""
    out: dict[str, float] = {"shards": 0, "took": 0.0}
    for tar in sorted(folder.glob("*.tar")):
        notes = shards.Index.load(tar).notes or {}
        for name, value in {
            **notes.get("numbers", {}),
            "shards": 1,
            "took": notes.get("took", 0.0),
            "film": notes.get("seconds", 0.0),
        }.items():
            out[name] = out.get(name, 0) + value
    return out


def diic_numbers(out: Path) -> dict[str, float]:
    """Of a folder that `wegen data diic` wrote."""
    shot, caption, track, pair = (_sums(out / f"{ORDER.index(step) + 1}-{step}") for step in ("shots", "caption", "track", "pair"))
    made = {
        "pieces of film": shot["shards"],
        "minutes of film": shot.get("film", 0.0) / 60,
        "shots with motion": shot.get("shots", 0),
        "frames": track.get("frames", 0),
        "instances a frame": track.get("seen", 0) / max(1, track.get("frames", 0)),
        "tokens a caption": caption.get("words", 0) / max(1, caption.get("frames", 0)),
        "pairs": pair.get("samples", 0),
        "instances a pair": pair.get("pictures shown", 0) / max(1, pair.get("samples", 0)),
    }
    return made | speeds(out)


def speeds(out: Path) -> dict[str, float]:
    """Kept frames a second of each step, by one worker: those that the first step kept, by the step's own time."""
    frames = _sums(out / "1-shots").get("frames", 0)
    took = {step: _sums(out / f"{i}-{step}")["took"] for i, step in enumerate(ORDER, 1)}
    return {f"frames/s, {step}": frames / seconds for step, seconds in took.items() if seconds}


def recaption_numbers(folder: Path) -> dict[str, float]:
    """Of a folder that `wegen data recaption` wrote. The wording of the request around a short caption counts with it."""
    sums = _sums(folder)
    n = max(1, sums.get("samples", 0))
    return {
        "pictures": sums.get("samples", 0),
        "tokens a short caption": sums.get("short", 0) / n,
        "tokens a long caption": sums.get("long", 0) / n,
    }


def text(numbers: dict[str, float]) -> str:
    """A line each, the paper's number beside ours; of speeds, the hours that a million frames would take."""
    beside = {name: f"   the paper's: {value:g}" for name, value in PAPER.items()}
    beside |= {
        name: f"   a million frames: {1e6 / v / 3600:.1f} hours of one worker"
        for name, v in numbers.items()
        if name.startswith("frames/s") and v
    }
    return "\n".join(f"{name:24}{value:10.1f}{beside.get(name, '')}" for name, value in numbers.items())
