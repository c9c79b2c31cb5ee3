"""What changed from one frame of a shot to a later one, in words: how each thing moved by itself, what came, what left, what the camera did.

From boxes and the camera's motion, by rule. A caption says in full what a picture shows; the second turn of a sample is to say what is new.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..chat.conversation import Box
from ..data.tasks import clean
from .motion import Motion

MOVED, GREW = 0.04, 0.12  # of the picture's side, by itself; of its own size
PANNED, ZOOMED, TURNED = 0.03, 0.04, 3.0  # of the camera: widths, growth, degrees
STOP = set("a an the is are in on at of and to with it its as by for from into".split())


def changed(
    kept: Sequence[dict], a: int, b: int, moved: Motion, new: Sequence[dict], gone: Sequence[dict], captions: Sequence[str]
) -> tuple[str, list[Box]]:
    """The words, with `<bbox_k>` behind each thing that is in frame b, and the boxes in that order."""
    parts, boxes = [], []
    for instance in kept:
        boxes.append(instance["boxes"][b])
        name = _the(instance["phrase"])
        parts.append(f"{name} <bbox_{len(boxes)}> {moves(instance['boxes'][a], instance['boxes'][b], moved)}")
    for instance in new:
        boxes.append(instance["boxes"][b])
        parts.append(f"{clean(instance['phrase'])} <bbox_{len(boxes)}> comes into view")
    parts += [f"{_the(instance['phrase'])} leaves the view" for instance in gone]
    if said := camera(moved):
        parts.append(said)
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}.{_news(captions[a], captions[b])}", boxes


def moves(a: Box, b: Box, moved: Motion) -> str:
    """What a thing did from box a to box b, besides what the camera's motion made of it."""
    x, y = moved.carry(*a.centre)
    right, down = b.centre[0] - x, b.centre[1] - y
    growth = (b.width * b.height / (a.width * a.height * moved.zoom**2)) ** 0.5
    said = []
    if max(abs(right), abs(down)) >= MOVED:
        where = [word for share, word in ((down, "down"), (-down, "up")) if share >= MOVED]
        where += [word for share, word in ((right, "to the right"), (-right, "to the left")) if share >= MOVED]
        said.append(f"moves {' and '.join(where)}")
    if growth >= 1 + GREW:
        said.append("becomes larger")
    elif growth <= 1 / (1 + GREW):
        said.append("becomes smaller")
    return " and ".join(said) or "stays in its place"


def camera(moved: Motion) -> str:
    """What the camera did; nothing where it stood still. The scene's shift to the right is a pan to the left."""
    said = []
    for share, words in ((moved.right, ("pans to the left", "pans to the right")), (moved.down, ("tilts up", "tilts down"))):
        if abs(share) >= PANNED:
            said.append(words[share < 0])
    if abs(moved.zoom - 1) >= ZOOMED:
        said.append("comes nearer" if moved.zoom > 1 else "goes back")
    if abs(moved.turn) >= TURNED:
        said.append("turns")
    return f"the camera {' and '.join(said)}" if said else ""


def _the(phrase: str) -> str:
    """A phrase as that of a thing that is known."""
    return re.sub(r"^(a|an|the|some|another)\s+", "the ", clean(phrase), flags=re.IGNORECASE)


def _news(before: str, after: str) -> str:
    """The second caption, where it has words that the first has not."""
    first, second = ({w for w in re.findall(r"\w+", text.lower()) if w not in STOP} for text in (before, after))
    return f" Now: {clean(after)}" if second - first else ""
