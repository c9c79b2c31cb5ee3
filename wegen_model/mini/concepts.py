"""What the miniature can draw: things, background colours, and the open art the things come from.

A *concept* is one thing with a one-word name ("cat"); a *style* is one vendor's drawings of such things,
all from one npm package. To add a concept, add a row with its icon's name in every style that draws it; to
add a style, add a row to STYLES and an entry to `icons` of the concepts it has. Nothing else needs to change.

Art: Noto Emoji by Google (Apache-2.0), packaged as Iconify JSON. Credit lines are in each Style.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """One vendor's drawings, in one Iconify JSON package of npm."""

    name: str
    package: str
    version: str
    sha256: str  # of the tarball `npm pack` writes
    licence: str  # SPDX
    credit: str  # the line for NOTICE


STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        Style(
            name="noto",
            package="@iconify-json/noto",
            version="1.2.9",
            sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
            licence="Apache-2.0",
            credit="Noto Emoji, Copyright Google Inc. (github.com/googlefonts/noto-emoji), Apache License 2.0,"
            " as packaged in @iconify-json/noto 1.2.9",
        ),
    )
}


@dataclass(frozen=True)
class Concept:
    """One thing. `held_out` ones are drawn into the cache for evaluation and never sampled for training."""

    name: str  # one lower-case English word
    codepoint: str  # Unicode, hexadecimal: the same thing across vendors
    icons: Mapping[str, str]  # style -> icon name, for the styles that draw this concept
    held_out: bool = False


CONCEPTS: tuple[Concept, ...] = (
    # animals
    Concept("cat", "1f431", {"noto": "cat-face"}),
    Concept("dog", "1f436", {"noto": "dog-face"}),
    Concept("fox", "1f98a", {"noto": "fox"}),
    Concept("panda", "1f43c", {"noto": "panda"}),
    Concept("frog", "1f438", {"noto": "frog"}),
    Concept("pig", "1f437", {"noto": "pig-face"}),
    Concept("penguin", "1f427", {"noto": "penguin"}),
    Concept("whale", "1f433", {"noto": "spouting-whale"}),
    Concept("butterfly", "1f98b", {"noto": "butterfly"}),
    # food
    Concept("apple", "1f34e", {"noto": "red-apple"}),
    Concept("banana", "1f34c", {"noto": "banana"}),
    Concept("pineapple", "1f34d", {"noto": "pineapple"}),
    Concept("watermelon", "1f349", {"noto": "watermelon"}),
    Concept("pizza", "1f355", {"noto": "pizza"}),
    Concept("donut", "1f369", {"noto": "doughnut"}),
    # plants
    Concept("sunflower", "1f33b", {"noto": "sunflower"}),
    Concept("cactus", "1f335", {"noto": "cactus"}),
    Concept("tree", "1f333", {"noto": "deciduous-tree"}),
    # things
    Concept("car", "1f697", {"noto": "automobile"}),
    Concept("rocket", "1f680", {"noto": "rocket"}),
    Concept("sailboat", "26f5", {"noto": "sailboat"}),
    Concept("house", "1f3e0", {"noto": "house"}),
    Concept("umbrella", "2602", {"noto": "umbrella"}),
    Concept("star", "2b50", {"noto": "star"}),
    # never trained on
    Concept("owl", "1f989", {"noto": "owl"}, held_out=True),
    Concept("rabbit", "1f430", {"noto": "rabbit-face"}, held_out=True),
    Concept("turtle", "1f422", {"noto": "turtle"}, held_out=True),
    Concept("strawberry", "1f353", {"noto": "strawberry"}, held_out=True),
    Concept("mushroom", "1f344", {"noto": "mushroom"}, held_out=True),
    Concept("rose", "1f339", {"noto": "rose"}, held_out=True),
    Concept("balloon", "1f388", {"noto": "balloon"}, held_out=True),
    Concept("crown", "1f451", {"noto": "crown"}, held_out=True),
)

NAMES: tuple[str, ...] = tuple(c.name for c in CONCEPTS if not c.held_out)
HELD_OUT_NAMES: tuple[str, ...] = tuple(c.name for c in CONCEPTS if c.held_out)

# Plain backgrounds, sRGB 0..255. Any two differ clearly at a glance and in CIELAB (test_data.py checks it).
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (132, 132, 132),
    "red": (216, 36, 36),
    "orange": (250, 132, 8),
    "yellow": (255, 221, 30),
    "green": (30, 142, 52),
    "lime": (164, 230, 44),
    "teal": (0, 122, 122),
    "cyan": (80, 214, 236),
    "blue": (40, 96, 232),
    "navy": (18, 28, 92),
    "purple": (130, 46, 176),
    "pink": (255, 128, 190),
    "brown": (122, 72, 34),
    "beige": (238, 218, 182),
}
DEFAULT_BACKGROUND = "white"  # of a request that names none


def held_out_combination(concept: str, background: str) -> bool:
    """Whether a thing on a colour is kept out of training: about 1 in 12, the same everywhere, never white."""
    if background == DEFAULT_BACKGROUND:
        return False
    return zlib.crc32(f"{concept} on {background}".encode()) % 12 == 0


def article(word: str) -> str:
    """"a cat", "an apple": the word with its indefinite article (right for every name in this file)."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
