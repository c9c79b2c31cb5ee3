"""What stands out from a plain ground, cut out and named one by one by a WeGen: `things:FOLDER`, for drawn video.

With the bundled miniature (`things:wegen-mini`), which knows 24 drawings, video of open art goes through every step on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..chat.conversation import Box
from ..mini.world.concepts import article
from .colour_backend import NAMES, _ground, blobs, named
from .noun_phrases import head
from .wegen_backend import Own

MARGIN = 0.25  # of a thing's longer side, around it when it is looked at alone
LARGE = 0.03  # of the picture: smaller things are not named


class Namer(Own):
    """`things(picture)`: box and name of each, from left to right, and the ground's colour."""

    def things(self, picture: np.ndarray) -> tuple[list[tuple[Box, str]], str]:
        colours = named(picture)
        ground = _ground(colours)
        boxes = [b for b in outermost(blobs(colours != ground)) if b.width * b.height >= LARGE]
        return [(b, self.name(around(picture, b))) for b in sorted(boxes, key=lambda b: b.x)], NAMES[ground]

    def name(self, crop: np.ndarray) -> str:
        """The answer's first thing, with its article."""
        return self.ask("<image_1> what is this?", crop).text.lower().split(",")[0].split(" and ")[0].strip(" .")


class Captioner(Namer):
    """`a fox at the upper left and a rocket at the lower right on a white background.`"""

    def caption(self, picture: np.ndarray) -> str:
        found, ground = self.things(picture)
        said = [f"{name} at the {place(b)}" for b, name in found]
        return f"{' and '.join(said) or 'nothing'} on {article(ground)} background."


class Detector(Namer):
    """A thing whose name is in a phrase."""

    def detect(self, picture: np.ndarray, phrases: Sequence[str]) -> list[tuple[int, Box, float]]:
        return [(i, b, 1.0) for b, name in self.things(picture)[0] for i, phrase in enumerate(phrases) if head(name) == head(phrase)]


def place(b: Box) -> str:
    """Where a box lies in the picture, in words."""
    across, down = b.centre
    row = "upper " if down < 0.4 else "lower " if down > 0.6 else ""
    return row + ("left" if across < 0.4 else "right" if across > 0.6 else "middle")


def around(picture: np.ndarray, b: Box) -> np.ndarray:
    """The square around a box, with some of its ground; past the edge the ground goes on."""
    h, w = picture.shape[:2]
    side = round((1 + 2 * MARGIN) * max(b.width * w, b.height * h))
    left, top = round(b.centre[0] * w - side / 2), round(b.centre[1] * h - side / 2)
    rows, columns = (np.clip(np.arange(start, start + side), 0, size - 1) for start, size in ((top, h), (left, w)))
    return picture[rows][:, columns]


def outermost(boxes: Sequence[Box]) -> list[Box]:
    """Without those that lie in a larger one: parts of a thing that the ground's colour cuts off. Largest first."""
    out: list[Box] = []
    for b in sorted(boxes, key=lambda b: -b.width * b.height):
        inside = [a.x <= b.centre[0] <= a.x + a.width and a.y <= b.centre[1] <= a.y + a.height for a in out]
        if not any(inside):
            out.append(b)
    return out
