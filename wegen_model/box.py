"""A box: a place in a picture, in fractions of its sides, and what it becomes in a prompt.

In text a box is six ids: <box_start>, the locations of x centre, y centre, width and height, <box_end>.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOCATIONS = 224  # along a side: <loc-0> … <loc-223>
BOX_IDS = 6  # of a box in a prompt: start, four locations, end


@dataclass(frozen=True)
class Box:
    """x, y (top-left), width, height in fractions 0..1, inside the picture; errors name what is wrong."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self):
        where = f"box ({self.x:g}, {self.y:g}, {self.width:g}, {self.height:g})"
        if not all(math.isfinite(v) for v in (self.x, self.y, self.width, self.height)):
            raise ValueError(f"{where} is not made of numbers: use fractions of the side between 0 and 1.")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(
                f"{where} is empty or reversed: width and height must be above 0. "
                "Boxes are x, y, width, height with x, y the top-left corner."
            )
        if self.x < -1e-6 or self.y < -1e-6 or self.x + self.width > 1 + 1e-4 or self.y + self.height > 1 + 1e-4:
            raise ValueError(
                f"{where} reaches outside the picture: use fractions of the side between 0 and 1, with x + width and y + height at most 1."
            )

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def locations(self) -> tuple[int, int, int, int]:
        """x centre, y centre, width, height in 224ths of the side (LOCATIONS): floor, at most 223."""
        x, y, width, height = (min(int(v * LOCATIONS + 1e-6), LOCATIONS - 1) for v in (*self.centre, self.width, self.height))
        return x, y, width, height

    @classmethod
    def from_locations(cls, values: tuple[int, int, int, int]) -> Box:
        """The box at the middle of each 224th, cut to the picture."""
        cx, cy, w, h = ((v + 0.5) / LOCATIONS for v in values)
        x0, y0 = max(cx - w / 2, 0.0), max(cy - h / 2, 0.0)
        return cls(x0, y0, min(cx + w / 2, 1.0) - x0, min(cy + h / 2, 1.0) - y0)


def read_sides(value: dict) -> tuple[float, float, float, float] | None:
    """x, y, width, height of a box in JSON from outside, as they stand there; None where one lacks or is no finite number."""
    sides = [value.get(key) for key in ("x", "y", "width", "height")]
    x, y, width, height = (v if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) else None for v in sides)
    return None if x is None or y is None or width is None or height is None else (x, y, width, height)
