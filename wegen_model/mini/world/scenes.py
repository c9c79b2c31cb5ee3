"""Scenes: plain hashable values that say what is where on which colour, and the function that draws them.

A picture is (size, size, 3) uint8 sRGB; 128 px by default, over an 8x8 grid of 16-px cells (one cell a feature).
A box is (x, y, width, height), fractions 0..1 of the picture, x and y its top-left corner. Boxes made here lie
on the grid. Art: see concepts.STYLES.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .art import Art
from .concepts import COLOURS
from .effects import apply

Box = tuple[float, float, float, float]

GRID = 8  # cells a side
SIZE = 128  # pixels a side
MARGIN = 0.04  # of the box, left free on each side

CENTRE: Box = (1 / 8, 1 / 8, 6 / 8, 6 / 8)
LEFT: Box = (0.0, 2 / 8, 4 / 8, 4 / 8)
RIGHT: Box = (4 / 8, 2 / 8, 4 / 8, 4 / 8)


@dataclass(frozen=True)
class Item:
    """One thing, centred in its box with its aspect kept."""

    concept: str  # a concept's name, or the code point of a drawing without one
    style: str
    box: Box
    tint: str = ""  # painted in a named colour; empty: as drawn
    mirrored: bool = False
    hue: int = 0  # turned by this part of 256 of the colour circle


@dataclass(frozen=True)
class Scene:
    """Things on a plain colour; later items cover earlier ones."""

    background: str
    items: tuple[Item, ...]
    effect: str = ""  # what was done to the picture, see effects.apply


def canonical(concept: str, background: str, style: str = "noto") -> Scene:
    """One thing, large, in the middle."""
    return Scene(background, (Item(concept, style, CENTRE),))


def pair(left: str, right: str, background: str, style: str = "noto") -> Scene:
    """Two things side by side."""
    return Scene(background, (Item(left, style, LEFT), Item(right, style, RIGHT)))


def boxed(concepts: Iterable[str], boxes: Iterable[Box], background: str, style: str = "noto") -> Scene:
    """Each thing in its own box."""
    return Scene(background, tuple(Item(c, style, b) for c, b in zip(concepts, boxes, strict=True)))


def render(scene: Scene, art: Art, size: int = SIZE) -> np.ndarray:
    """The picture of a scene: (size, size, 3) uint8. ValueError for an unknown colour, ArtError for an unknown thing."""
    if scene.background not in COLOURS:
        raise ValueError(f"no background {scene.background!r}: the colours are {', '.join(COLOURS)}")
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = COLOURS[scene.background]
    for item in scene.items:
        over, place, part = _placed(item, art, size)
        if item.hue:
            over = turn_hue(over, item.hue)
        if item.tint:
            over = tint(over, COLOURS[item.tint])
        under = picture[place].astype(np.uint16) * (255 - over[part][..., 3:].astype(np.uint16))
        picture[place] = np.minimum(over[part][..., :3] + (under + 127) // 255, 255)
    if scene.effect:
        shown = np.max([mask(scene, i, art, size) for i in range(len(scene.items))], 0)
        picture = apply(scene.effect, picture, shown)
    return picture


def tint(sprite: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A premultiplied sprite painted in one colour: its lightness runs from black over the colour to white."""
    alpha = np.maximum(sprite[..., 3:].astype(np.float32), 1)
    light = (sprite[..., :3] / alpha) @ np.array([0.3, 0.59, 0.11], np.float32)
    light = light[..., None]
    target = np.array(colour, np.float32) / 255
    painted = np.where(light < 0.6, target * light / 0.6, target + (1 - target) * (light - 0.6) / 0.4)
    return np.concatenate([(painted.clip(0, 1) * alpha).astype(np.uint8), sprite[..., 3:]], -1)


def turn_hue(sprite: np.ndarray, hue: int) -> np.ndarray:
    """A premultiplied sprite with its hues turned by hue/256 of the circle."""
    hsv = np.array(Image.fromarray(np.ascontiguousarray(sprite[..., :3])).convert("HSV"))
    hsv[..., 0] += np.uint8(hue)
    rgb = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return np.concatenate([np.minimum(rgb, sprite[..., 3:]), sprite[..., 3:]], -1)


def mask(scene: Scene, index: int, art: Art, size: int = SIZE) -> np.ndarray:
    """How much of each pixel shows item `index`: (size, size) uint8, 0..255, less what later items cover."""
    shown = np.zeros((size, size), np.uint8)
    over, place, part = _placed(scene.items[index], art, size)
    shown[place] = over[part][..., 3]
    for item in scene.items[index:][1:]:
        over, place, part = _placed(item, art, size)
        shown[place] = (shown[place].astype(np.uint16) * (255 - over[part][..., 3].astype(np.uint16)) + 127) // 255
    return shown


def _placed(item: Item, art: Art, size: int):
    """An item's premultiplied sprite, the slices of the picture it goes to and the slices of it that lie inside."""
    x, y, width, height = (value * size for value in item.box)
    room = 1 - 2 * MARGIN
    sprite = art.fitted(item.concept, item.style, max(1, round(width * room)), max(1, round(height * room)))
    if item.mirrored:
        sprite = sprite[:, ::-1]
    top = round(y + (height - sprite.shape[0]) / 2)
    left = round(x + (width - sprite.shape[1]) / 2)
    place, part = [], []
    for start, length in ((top, sprite.shape[0]), (left, sprite.shape[1])):
        first, last = max(start, 0), max(min(start + length, size), 0)
        place.append(slice(first, last))
        part.append(slice(first - start, max(last - start, first - start)))
    return sprite, tuple(place), tuple(part)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def grid_box(rng: random.Random, cells: int = 4, avoid: Iterable[Box] = ()) -> Box | None:
    """A square box of cells x cells on the grid, clear of the boxes to avoid; None when there is no room."""
    avoid, steps, side = tuple(avoid), range(GRID - cells + 1), cells / GRID
    boxes = [(x / GRID, y / GRID, side, side) for x in steps for y in steps]
    free = [box for box in boxes if not any(overlap(box, other) for other in avoid)]
    return rng.choice(free) if free else None


def grid_boxes(rng: random.Random, cells: tuple[int, ...] = (4,)) -> tuple[Box, ...]:
    """One box for each entry of `cells`, none overlapping another. ValueError when they cannot fit."""
    for _ in range(1000):
        boxes: list[Box] = []
        for count in cells:
            box = grid_box(rng, count, boxes)
            if box is None:
                break
            boxes.append(box)
        else:
            return tuple(boxes)
    raise ValueError(f"boxes of {cells} cells do not fit on a grid of {GRID}x{GRID} without overlapping")
