"""The value of Bbox Compose's canvas: boxes that a person drew, as JSON text in the workflow.

    {"version": 1, "boxes": [{"ref": 1, "x": 0.1, "y": 0.2, "width": 0.4, "height": 0.5, "label": "panda"}], "seen": "…", "background": {…}}

`ref` is the number of the image socket; sides are fractions of the canvas, top-left corner. `seen` is the digest of the boxes that had
arrived (through the socket or the text) when the person last edited: as long as it stays so, the person's boxes count.
js/boxes/state.js is the other reader and the writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..box import read_sides
from ..fileio import JSONError, parse_json
from .conversation import Box

MOST = 100  # boxes read; the rest is ignored, with a note
LABEL = 100  # characters


@dataclass(frozen=True)
class Placement:
    """`boxes`, `labels`: one entry a reference, None and "" where there is none; `edited`: somebody drew here; `ignored`: in words."""

    boxes: tuple[Box | None, ...] = ()
    labels: tuple[str, ...] = ()
    seen: str = ""
    edited: bool = False
    ignored: tuple[str, ...] = ()


def parse_placement(text: Any) -> Placement:
    """Read the canvas' value; what is wrong in it is left out and named in `ignored`. Never raises: a workflow may come from anywhere."""
    if not isinstance(text, str) or not text.strip():
        return Placement()
    try:
        value = parse_json(text, "the canvas", lenient=True)
    except JSONError:
        return Placement(ignored=("the canvas holds no readable boxes, so it counts as empty",))
    rows = value.get("boxes") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        return Placement(ignored=("the canvas holds no list of boxes, so it counts as empty",))
    found: dict[int, tuple[Box, str]] = {}
    ignored = [f"the canvas holds {len(rows)} boxes: the first {MOST} are read"] if len(rows) > MOST else []
    for row in rows[:MOST]:
        number = row.get("ref") if isinstance(row, dict) else None
        number = int(number) if isinstance(number, float) and number.is_integer() else number  # JSON has one kind of number: 2.0 is 2
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST or number in found:
            ignored.append(f"a box of the canvas without a reference of its own ({str(number)[:20]})")
            continue
        box = _box(row)
        if box is None:
            ignored.append(f"box {number} of the canvas, whose sides are no fractions of it")
            continue
        label = row.get("label")
        found[number] = box, label.strip()[:LABEL] if isinstance(label, str) else ""
    if len(ignored) > 3:
        ignored = [*ignored[:3], f"and {len(ignored) - 3} more"]
    last = max(found, default=0)
    boxes = tuple(found[k][0] if k in found else None for k in range(1, last + 1))
    labels = tuple(found[k][1] if k in found else "" for k in range(1, last + 1))
    seen = value.get("seen") if isinstance(value, dict) else ""
    return Placement(boxes, labels, seen if isinstance(seen, str) else "", True, tuple(ignored))


def _box(row: dict) -> Box | None:
    """A box cut to the canvas; None for values that are no box, and where nothing is left."""
    sides = read_sides(row)
    if sides is None:
        return None
    x, y, width, height = sides
    if x >= 0 and y >= 0 and width > 1e-4 and height > 1e-4 and x + width <= 1 and y + height <= 1:
        return Box(float(x), float(y), float(width), float(height))
    left, top, right, bottom = (min(max(float(v), 0.0), 1.0) for v in (x, y, x + width, y + height))
    return Box(left, top, right - left, bottom - top) if right - left > 1e-4 and bottom - top > 1e-4 else None


def digest(boxes: Sequence[Box | None]) -> str:
    """A digest of the boxes that arrived: `ref:x,y,width,height` in 10000ths, joined by `;`; "" for none."""
    return ";".join(
        f"{k}:" + ",".join(str(int(v * 10000 + 0.5)) for v in (b.x, b.y, b.width, b.height))
        for k, b in enumerate(boxes, 1)
        if b is not None
    )


def choose(placement: Placement, arrived: Sequence[Box | None]) -> tuple[tuple[Box | None, ...], bool]:
    """The boxes that count, and whether they are the person's: theirs win until what arrives changes."""
    incoming = digest(arrived)
    if placement.edited and (not incoming or placement.seen == incoming):
        return placement.boxes, True
    return tuple(arrived), False
