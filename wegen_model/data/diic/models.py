"""Which model does what: `plain`, `plain:NAME` (classical.py) or `transformers:ID` (hf.py), made when a step first needs it.

Captioner  caption(picture) -> text
Detector   detect(picture, phrases) -> [(number of the phrase, Box, score)]
Tracker    track(frames, boxes of the first) -> for each box, a Box or None in every frame
Embedder   embed(crops) -> (n,d), rows of length 1
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

KINDS = {"captioner": "Captioner", "detector": "Detector", "tracker": "Tracker", "embedder": "Embedder"}
WHERE = {"plain": "classical", "transformers": "hf"}


def check(kind: str, spec: str) -> None:
    """ValueError for a spec that names no model."""
    where, _, name = spec.partition(":")
    if where not in WHERE or (where == "transformers" and not name):
        raise ValueError(f"--{kind} {spec!r}: write `plain` (no weights, for trying) or `transformers:ID` with a model's id or folder.")


@lru_cache(maxsize=8)
def model(kind: str, spec: str) -> Any:
    check(kind, spec)
    where, _, name = spec.partition(":")
    return getattr(import_module(f".{WHERE[where]}", __package__), KINDS[kind])(name)


@lru_cache(maxsize=2)
def phrases(spec: str) -> Callable[[str], list[tuple[int, int, str]]]:
    from .phrases import noun_phrases, spacy_phrases

    if spec == "plain":
        return noun_phrases
    where, _, name = spec.partition(":")
    if where != "spacy" or not name:
        raise ValueError(f"--phrases {spec!r}: write `plain` or `spacy:PIPELINE`.")
    return spacy_phrases(name)
