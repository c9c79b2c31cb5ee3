"""Which model does what, made when a step first needs it: `plain`, `plain:NAME` (colour_backend.py), `transformers:ID` (hf.py),
`wegen:FOLDER` (wegen_backend.py) or `things:FOLDER` (mini_backend.py).

Captioner  captions(pictures) -> a text each
Detector   detections(pictures, phrases) -> for each picture [(number of the phrase, Box, score)]
Tracker    track(frames, boxes of the first) -> for each box, a Box or None in every frame
Embedder   embed(crops) -> (n,d), rows of length 1

Models of transformers take `batch` pictures a call, in the precision that is named; the others take one at a time, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from ..chat.conversation import Box

KINDS = {"captioner": "Captioner", "detector": "Detector", "tracker": "Tracker", "embedder": "Embedder"}
WHERE = {"plain": "colour_backend", "transformers": "hf", "wegen": "wegen_backend", "things": "mini_backend"}
OFFERED = {"captioner": WHERE, "detector": WHERE, "tracker": ("plain", "transformers"), "embedder": ("plain", "transformers", "wegen")}
PRECISIONS = ("auto", "float32", "bfloat16", "float16")  # auto: bfloat16 on CUDA, float32 elsewhere
Found = list[tuple[int, Box, float]]


class OneByOne:
    """A captioner or detector that takes a picture at a time, by the contract of many."""

    def captions(self, pictures: Sequence[np.ndarray]) -> list[str]:
        return [self.caption(p) for p in pictures]  # type: ignore[attr-defined]

    def detections(self, pictures: Sequence[np.ndarray], phrases: Sequence[str]) -> list[Found]:
        return [self.detect(p, phrases) for p in pictures]  # type: ignore[attr-defined]


def check(kind: str, spec: str) -> None:
    """ValueError for a spec that names no model."""
    where, _, name = spec.partition(":")
    if where not in OFFERED[kind] or (where != "plain" and not name):
        more = ", ".join(f"`{w}:{'ID' if w == 'transformers' else 'FOLDER'}`" for w in OFFERED[kind] if w != "plain")
        raise ValueError(f"--{kind} {spec!r}: write `plain` (no weights, for trying), or name a model: {more}.")


@lru_cache(maxsize=8)
def model(kind: str, spec: str, precision: str = "auto", batch: int = 8) -> Any:
    """The model that a spec names; it is kept for the next call. `precision`, `batch`: of models of transformers."""
    check(kind, spec)
    where, _, name = spec.partition(":")
    made = getattr(import_module(f".{WHERE[where]}", __package__), KINDS[kind])
    return made(name, precision, batch) if where == "transformers" else made(name)


@lru_cache(maxsize=2)
def phrases(spec: str) -> Callable[[str], list[tuple[int, int, str]]]:
    from .noun_phrases import noun_phrases, spacy_phrases

    if spec == "plain":
        return noun_phrases
    where, _, name = spec.partition(":")
    if where != "spacy" or not name:
        raise ValueError(f"--phrases {spec!r}: write `plain` or `spacy:PIPELINE`.")
    return spacy_phrases(name)
