"""What the miniature can draw: things, styles, background colours, and the open art the things come from.

A *concept* is one thing with a one-word name ("cat"); a *style* is one vendor's drawings, all from one npm package, found by
code point. To add a concept, add a row; to add a style, add a row to STYLES. Nothing else needs to change.

Beside the named concepts there are some thousand drawings without a name here, keyed by their code point ("1f9c0"): they are shown
as references and teach tower, decoder and writer to copy what they have no word for. A tenth of all code points, and the vendor
noto-v1, are never trained on.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """One vendor's drawings, in one npm package: an Iconify JSON of SVG, or a folder of WebP named by code point."""

    name: str
    package: str
    version: str
    sha256: str  # of the tarball `npm pack` writes
    licence: str  # SPDX
    credit: str  # the line for NOTICE
    webp: str = ""  # the folder in the package, where it holds WebP
    names_of: str = ""  # the style whose icon names this one shares, where its package knows no code points
    offered: bool = False  # may be asked for by its name
    held_out: bool = False  # never trained on


STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        Style(
            "noto",
            "@iconify-json/noto",
            "1.2.9",
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
            "Apache-2.0",
            "Noto Emoji, Copyright Google Inc. (github.com/googlefonts/noto-emoji), Apache License 2.0,"
            " as packaged in @iconify-json/noto 1.2.9",
            offered=True,
        ),
        Style(
            "3d",
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            "MIT",
            "Fluent Emoji, Copyright Microsoft Corporation (github.com/microsoft/fluentui-emoji), MIT License,"
            " as packaged by LobeHub in @lobehub/fluent-emoji-3d 1.1.0",
            webp="assets",
        ),
        Style(
            "twemoji",
            "@iconify-json/twemoji",
            "1.2.5",
            "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
            "CC-BY-4.0",
            "Twemoji, Copyright Twitter, Inc and other contributors (github.com/twitter/twemoji), CC-BY 4.0,"
            " as packaged in @iconify-json/twemoji 1.2.5",
        ),
        Style(
            "emojione",
            "@iconify-json/emojione",
            "1.2.3",
            "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
            "CC-BY-4.0",
            "EmojiOne (version 2), Copyright Ranks.com Inc. (emojione.com), CC-BY 4.0, as packaged in @iconify-json/emojione 1.2.3",
            names_of="noto",
        ),
        Style(
            "noto-v1",
            "@iconify-json/noto-v1",
            "1.2.5",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
            "Apache-2.0",
            "Noto Emoji (first drawings), Copyright Google Inc., Apache License 2.0, as packaged in @iconify-json/noto-v1 1.2.5",
            names_of="noto",
            held_out=True,
        ),
    )
}
OFFERED_STYLES: tuple[str, ...] = tuple(s.name for s in STYLES.values() if s.offered)
TRAINED_STYLES: tuple[str, ...] = tuple(s.name for s in STYLES.values() if not s.held_out)
DEFAULT_STYLE = "noto"  # of a request that names none


@dataclass(frozen=True)
class Concept:
    """One thing with a name. `held_out` ones are drawn into the cache for evaluation and never sampled for training."""

    name: str  # one lower-case English word
    codepoint: str  # Unicode, hexadecimal: the same thing across vendors
    held_out: bool = False


CONCEPTS: tuple[Concept, ...] = (
    # animals
    Concept("cat", "1f431"),
    Concept("dog", "1f436"),
    Concept("fox", "1f98a"),
    Concept("panda", "1f43c"),
    Concept("frog", "1f438"),
    Concept("pig", "1f437"),
    Concept("penguin", "1f427"),
    Concept("whale", "1f433"),
    Concept("butterfly", "1f98b"),
    # food
    Concept("apple", "1f34e"),
    Concept("banana", "1f34c"),
    Concept("pineapple", "1f34d"),
    Concept("watermelon", "1f349"),
    Concept("pizza", "1f355"),
    Concept("donut", "1f369"),
    # plants
    Concept("sunflower", "1f33b"),
    Concept("cactus", "1f335"),
    Concept("tree", "1f333"),
    # things
    Concept("car", "1f697"),
    Concept("rocket", "1f680"),
    Concept("sailboat", "26f5"),
    Concept("house", "1f3e0"),
    Concept("umbrella", "2602"),
    Concept("star", "2b50"),
    # never trained on
    Concept("owl", "1f989", held_out=True),
    Concept("rabbit", "1f430", held_out=True),
    Concept("turtle", "1f422", held_out=True),
    Concept("strawberry", "1f353", held_out=True),
    Concept("mushroom", "1f344", held_out=True),
    Concept("rose", "1f339", held_out=True),
    Concept("balloon", "1f388", held_out=True),
    Concept("crown", "1f451", held_out=True),
)

# Code points that noto, 3d and twemoji all draw (objects, food, animals, plants, places, people, faces; no flags, no letters).
_DRAWN = (
    "231a-231b 2328 23f0-23f3 2600-2604 260e 2614-2615 2618 261d 2620 2639-263a 265f-2660 2663 2665-2666 2668 2692-2694 "
    "2696-2697 2699 26a1 26b0-26b1 26bd-26be 26c4-26c5 26c8 26cf 26d1 26d3 26e9-26ea 26f0-26f5 26f7-26fa 26fd 2702 2708-270d "
    "270f 2712 2728 2744 2763-2764 2b50 1f004 1f0cf 1f300-1f321 1f324-1f38b 1f38d-1f393 1f396-1f397 1f399-1f39b 1f39e-1f3a5 "
    "1f3a7-1f3c0 1f3c2-1f3e6 1f3e8-1f3f0 1f3f5 1f3f7-1f3fa 1f400-1f448 1f44a-1f469 1f46e-1f48e 1f490 1f492-1f49f 1f4a1-1f4b0 "
    "1f4b3-1f4da 1f4dc-1f4f2 1f4f7-1f4fd 1f4ff 1f507-1f517 1f525-1f52e 1f54a-1f54d 1f550-1f567 1f56f-1f570 1f573-1f57a 1f587 "
    "1f58a-1f58d 1f590 1f595-1f596 1f5a4-1f5a5 1f5a8 1f5b1-1f5b2 1f5bc 1f5c2-1f5c4 1f5d1-1f5d3 1f5dc-1f5de 1f5e1 1f5e3 1f5e8 "
    "1f5ef 1f5f3 1f5fa-1f64f 1f680-1f6a8 1f6aa 1f6ac 1f6b2 1f6b4-1f6b6 1f6bd 1f6bf-1f6c1 1f6cb-1f6cf 1f6d1-1f6d2 1f6d5-1f6d7 "
    "1f6dd-1f6e5 1f6e9 1f6eb-1f6ec 1f6f0 1f6f3-1f6fc 1f90c-1f93a 1f93c-1f945 1f947-1f9af 1f9b4-1f9ff 1fa70-1fa7c 1fa80-1fa88 "
    "1fa90-1faae 1fab0-1fabd 1fabf-1fac5 1face-1fadb 1fae0-1fae8 1faf0-1faf8 "
)


def _codepoints() -> tuple[str, ...]:
    named = {c.codepoint for c in CONCEPTS}
    out = []
    for span in _DRAWN.split():
        first, _, last = span.partition("-")
        out += [f"{i:x}" for i in range(int(first, 16), int(last or first, 16) + 1)]
    return tuple(c for c in out if c not in named)


def held_out_drawing(codepoint: str) -> bool:
    """Whether a drawing without a name is kept out of training: one in ten, in every vendor."""
    return zlib.crc32(codepoint.encode()) % 10 == 0


DRAWINGS: tuple[str, ...] = tuple(c for c in _codepoints() if not held_out_drawing(c))  # shown, never named
HELD_OUT_DRAWINGS: tuple[str, ...] = tuple(c for c in _codepoints() if held_out_drawing(c))
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
    """ "a cat", "an apple": the word with its indefinite article (right for every name in this file)."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
