"""What a DIIC or a recaptioned dataset is like, beside what the paper says of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ..chat.conversation import TAG
from ..data import shards

PAPER = {"instances a frame": 4.9, "tokens a caption": 25.4, "tokens a short caption": 10.2, "tokens a long caption": 79.6}


def words(text: str) -> int:
    """Words and stops: about a tokenizer's count for plain English."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / max(1, len(values))


def diic_numbers(out: Path, tokens: Callable[[str], int] = words) -> dict[str, float]:
    """Of a folder that `wegen data diic` wrote."""
    tracked = [values for tar in sorted((out / "4-track").glob("*.tar")) for _, values, _ in shards.records(tar)]
    seen = [sum(i["boxes"][f] is not None for i in v["instances"]) for v in tracked for f in range(len(v["captions"]))]
    pairs = [shards.sample(tar, i) for tar in sorted((out / "5-pair").glob("*.tar")) for i in range(len(shards.Index.load(tar).keys))]
    return {
        "videos": len(list((out / "1-shots").glob("*.tar"))),
        "shots with motion": sum(shards.counts(out / "1-shots").values()),
        "frames": len(seen),
        "instances a frame": _mean(seen),
        "tokens a caption": _mean(tokens(c) for v in tracked for c in v["captions"]),
        "pairs": len(pairs),
        "instances a pair": _mean(len(s.turns[0].pictures) for s in pairs),
    }


def recaption_numbers(folder: Path, tokens: Callable[[str], int] = words) -> dict[str, float]:
    """Of a folder that `wegen data recaption` wrote. The wording of the request around a short caption counts with it."""
    both = [
        (s.turns[0].text, s.turns[-1].text)
        for tar in sorted(folder.glob("*.tar"))
        for s in (shards.sample(tar, i) for i in range(len(shards.Index.load(tar).keys)))
    ]
    return {
        "pictures": len(both),
        "tokens a short caption": _mean(tokens(TAG.sub("", a)) for a, _ in both),
        "tokens a long caption": _mean(tokens(b) for _, b in both),
    }


def text(numbers: dict[str, float]) -> str:
    """A line each, the paper's number beside ours."""
    beside = {name: f"   the paper's: {value:g}" for name, value in PAPER.items()}
    return "\n".join(f"{name:24}{value:10.1f}{beside.get(name, '')}" for name, value in numbers.items())
