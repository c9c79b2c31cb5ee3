"""Which model does what, made when a step first needs it: `plain`, `plain:NAME` (colour_backend.py), `transformers:ID` (hf.py),
`wegen:FOLDER` (wegen_backend.py) or `things:FOLDER` (mini_backend.py).

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
WHERE = {"plain": "colour_backend", "transformers": "hf", "wegen": "wegen_backend", "things": "mini_backend"}
OFFERED = {"captioner": WHERE, "detector": WHERE, "tracker": ("plain", "transformers"), "embedder": ("plain", "transformers", "wegen")}


def check(kind: str, spec: str) -> None:
    """ValueError for a spec that names no model."""
    where, _, name = spec.partition(":")
    if where not in OFFERED[kind] or (where != "plain" and not name):
        more = ", ".join(f"`{w}:{'ID' if w == 'transformers' else 'FOLDER'}`" for w in OFFERED[kind] if w != "plain")
        raise ValueError(f"--{kind} {spec!r}: write `plain` (no weights, for trying), or name a model: {more}.")


@lru_cache(maxsize=8)
def model(kind: str, spec: str) -> Any:
    check(kind, spec)
    where, _, name = spec.partition(":")
    return getattr(import_module(f".{WHERE[where]}", __package__), KINDS[kind])(name)


@lru_cache(maxsize=2)
def phrases(spec: str) -> Callable[[str], list[tuple[int, int, str]]]:
    from .noun_phrases import noun_phrases, spacy_phrases

    if spec == "plain":
        return noun_phrases
    where, _, name = spec.partition(":")
    if where != "spacy" or not name:
        raise ValueError(f"--phrases {spec!r}: write `plain` or `spacy:PIPELINE`.")
    return spacy_phrases(name)
