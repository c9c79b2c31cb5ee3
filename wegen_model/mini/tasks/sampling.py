"""What every task of the miniature draws from: the values of a conversation, and random things, colours, boxes and scenes.

Every draw takes the sample's own `Rng`, so that a sample is a pure function of its seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

from ..world.concepts import (
    COLOURS,
    DEFAULT_BACKGROUND,
    DEFAULT_STYLE,
    DRAWINGS,
    NAMES,
    OFFERED_STYLES,
    TRAINED_STYLES,
    article,
    held_out_combination,
)
from ..world.effects import LAID
from ..world.scenes import CENTRE, GRID, Box, Item, Scene, boxed, canonical, grid_boxes, overlap, pair

SPLITS = ("train", "heldout")
TAG = re.compile(r"<(image|bbox)_([1-9])>")
PLAIN_SHARE = 0.1  # of the requests to draw in "train": no colour named, so white
STYLED_SHARE = 0.4  # of the requests by words: in another offered style
CUT_SHARE = 0.7  # of the things shown with a box: laid there from a picture, rather than drawn there
UNNAMED_SHARE = 0.7  # of the things shown and copied: drawings that no word names


@dataclass(frozen=True)
class Ref:
    """What a turn refers to: a picture, a box, or both."""

    scene: Scene | None
    box: Box | None


@dataclass(frozen=True)
class Turn:
    """What one side says; `picture` is what the assistant draws after its text."""

    role: str  # "user" | "assistant"
    text: str
    references: tuple[Ref, ...] = ()
    picture: Scene | None = None


@dataclass(frozen=True)
class Sample:
    """One conversation."""

    task: str
    turns: tuple[Turn, ...]

    @property
    def shown(self) -> Scene:
        """The picture that the first turn shows. ValueError where it shows none."""
        return _there(next((r.scene for r in self.turns[0].references), None), f"a sample of {self.task} begins with no picture")

    @property
    def drawn(self) -> Scene:
        """The picture that the last turn draws. ValueError where it is answered in words."""
        return _there(self.turns[-1].picture, f"a sample of {self.task} ends with no picture")


def _there(scene: Scene | None, otherwise: str) -> Scene:
    if scene is None:
        raise ValueError(otherwise)
    return scene


class Rng(random.Random):
    """The random draws of one sample."""


Task = Callable[[Rng, bool], tuple[Turn, ...]]  # (rng, held_out) -> turns


def say(rng: Rng, templates: tuple[str, ...], a: str = "", b: str = "", on: str = "", style: str = "") -> str:
    """A template filled in. A style is named at the end, the default one seldom."""
    template = rng.choice(templates)
    articles = {f"an_{key}": article(word) for key, word in (("a", a), ("b", b), ("on", on)) if word}
    named = style and (style != DEFAULT_STYLE or rng.random() < 0.15)
    return template.format(a=a, b=b, on=on, **articles) + (f", {style} style" if named else "")


def plain(rng: Rng, held_out: bool) -> bool:
    return rng.random() < PLAIN_SHARE and not held_out  # white is never held out


def colour(rng: Rng) -> str:
    return rng.choice(tuple(COLOURS))


def asked_style(rng: Rng) -> str:
    """The style of a request by words."""
    others = [s for s in OFFERED_STYLES if s != DEFAULT_STYLE]
    return rng.choice(others) if others and rng.random() < STYLED_SHARE else DEFAULT_STYLE


def anything(rng: Rng) -> tuple[str, str]:
    """A thing to show and copy, and its style: any drawing of any trained vendor, or a named one."""
    style = rng.choice(TRAINED_STYLES[:3])  # the three that draw every code point
    return rng.choice(DRAWINGS if rng.random() < UNNAMED_SHARE else NAMES), style


def is_held_out(scene: Scene) -> bool:
    return any(held_out_combination(item.concept, scene.background) for item in scene.items)


def pick(make: Callable[[], Scene], held_out: bool) -> Scene:
    """The first scene of this side of the split. About one thing in 12 is held out, so this ends soon."""
    while True:
        scene = make()
        if is_held_out(scene) is held_out:
            return scene


def named_scene(rng: Rng, count: int, held_out: bool, layout: str, plain: bool = False, style: str = DEFAULT_STYLE) -> Scene:
    """A scene of different named things. layout: "usual" (canonical or pair) or "boxes"; plain: on white."""

    def make() -> Scene:
        concepts = rng.sample(NAMES, count)
        background = DEFAULT_BACKGROUND if plain else colour(rng)
        if layout == "boxes":
            return boxed(concepts, grid_boxes(rng, sides(rng, count)), background, style)
        if count == 2:
            return pair(concepts[0], concepts[1], background, style)
        return canonical(concepts[0], background, style)

    return pick(make, held_out)


def sides(rng: Rng, count: int) -> tuple[int, ...]:
    """Cells a side of each box of the grid: mostly 4."""
    tables: dict[int, dict[tuple[int, ...], int]] = {
        1: {(3,): 2, (4,): 5, (5,): 2, (6,): 1},
        2: {(4, 4): 9, (3, 4): 3, (4, 3): 3, (3, 3): 2, (3, 5): 1, (5, 3): 1},
        3: {(4, 4, 4): 2, (3, 3, 4): 2, (4, 3, 3): 2, (3, 3, 3): 2},
    }
    return rng.choices(list(tables[count]), list(tables[count].values()))[0]


def free_boxes(rng: Rng, count: int) -> tuple[Box, ...]:
    """Boxes of any shape on half cells, for things that are copied; now and then overlapping, or the second before the first."""
    if count == 2 and rng.random() < 0.15:
        return _worn(rng)
    low, high = {1: (5, 14), 2: (5, 10), 3: (5, 8)}[count]  # half cells
    steps, together = 2 * GRID, rng.random() < 0.15
    while True:
        out: list[Box] = []
        for _ in range(60):
            w, h = rng.randint(low, high), rng.randint(low, high)
            box = (rng.randint(0, steps - w) / steps, rng.randint(0, steps - h) / steps, w / steps, h / steps)
            if together or not any(overlap(box, other) for other in out):
                out.append(box)
            if len(out) == count:
                return tuple(out)


def _worn(rng: Rng) -> tuple[Box, Box]:
    """A large box, and one inside its lower part: what a figure wears or holds."""
    steps = 2 * GRID
    w, h = rng.randint(8, 13), rng.randint(8, 13)
    x, y = rng.randint(0, steps - w), rng.randint(0, steps - h)
    inner_w, inner_h = rng.randint(w // 2, w - 1), rng.randint(h // 3, h * 2 // 3)
    inner_x, inner_y = x + (w - inner_w) // 2, y + rng.randint(h // 3, h - inner_h)
    return (x / steps, y / steps, w / steps, h / steps), (inner_x / steps, inner_y / steps, inner_w / steps, inner_h / steps)


class Look(TypedDict):
    """Fields of Item."""

    mirrored: bool
    hue: int


def varied(rng: Rng) -> Look:
    """How a thing that is to be copied differs from its drawing, so that copying is learned and not the drawings."""
    return {"mirrored": rng.random() < 0.5, "hue": rng.randrange(256) if rng.random() < 0.5 else 0}


def shown(rng: Rng, item: Item, box: Box | None = None, not_on: str | None = None) -> Scene:
    """A reference picture: the thing large in the middle, half the time on white; with a box laid there, most often from a
    colour it was cut out of, with what that leaves at its outline."""
    cut = box is not None and rng.random() < CUT_SHARE

    def make() -> Scene:
        background = DEFAULT_BACKGROUND if box and not cut or not box and rng.random() < 0.5 else colour(rng)
        effect = f"{LAID}:{' '.join(map(str, box))}" if box and cut else ""
        return Scene(background, (replace(item, box=box if box and not cut else CENTRE),), effect)

    while True:
        scene = pick(make, held_out=False)
        if scene.background != not_on:
            return scene


def words(scene: Scene) -> dict[str, str]:
    """The words of a scene, for say: things in the order of its items."""
    named = {key: item.concept for key, item in zip("ab", scene.items)}
    return {**named, "on": scene.background, "style": scene.items[0].style if scene.items else DEFAULT_STYLE}


def in_reading_order(scene: Scene) -> list[str]:
    """Things from left to right, then from top to bottom."""
    return [i.concept for i in sorted(scene.items, key=lambda i: (i.box[0] + i.box[2] / 2, i.box[1]))]


def draws(text: str, scene: Scene, references: tuple[Ref, ...] = (), reply: str = "") -> tuple[Turn, Turn]:
    return Turn("user", text, references), Turn("assistant", reply, (), scene)


def answers(text: str, scene: Scene, reply: str, boxes: tuple[Box, ...] = ()) -> tuple[Turn, Turn]:
    references = tuple(Ref(None, box) for box in boxes)
    return Turn("user", text, (Ref(scene, None),)), Turn("assistant", reply, references)
