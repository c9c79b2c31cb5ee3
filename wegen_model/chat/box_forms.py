"""Boxes in the forms that other nodes and people write them.

Forms read: ComfyUI's native {"x","y","width","height"} (one, a list, or one list per frame), its `elements`
({"bbox": [top, left, bottom, right] in thousandths, "desc"}), KJNodes' bare tuples (xywh or xyxy), detectors' numpy arrays, JSON text
of any of these, and lines of four numbers. Other numbers are fractions of the canvas where all of them are below 2,
pixels of the canvas otherwise. Everything leaves as `Box` (fractions, top-left corner).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ..box import Box
from ..fileio import JSONError, parse_json

FORMATS = ("xywh", "xyxy")  # of bare tuples: x, y, width, height | left, top, right, bottom
SIDE = ("x", "y", "width", "height")
SLACK = 0.01  # of the side: how far a detector may overshoot the border; it is cut off
LINE = re.compile(r"\[[^][{}]*],?|[^][{}]*")  # of box_text: numbers, bare or in brackets


def normalise_boxes(value: Any, width: int, height: int, bbox_format: str = "xywh") -> tuple[Box | None, ...]:
    """Any of the forms above to boxes; of several frames, the first. None stays: no box for that picture.

    Raises:
        ValueError: which box is wrong, and how.
    """
    return _boxes(_frame(_read(value)), width, height, bbox_format, "boxes")


def given_labels(value: Any) -> tuple[str, ...]:
    """The names that boxes of `normalise_boxes` bring with them: `label`, or a description (`desc`, in `metadata` too); "" for none."""

    def name(row: Any) -> str:
        if not isinstance(row, dict):
            return ""
        more = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
        found = next((v for v in (row.get("label"), row.get("desc"), more.get("label"), more.get("desc")) if isinstance(v, str) and v), "")
        return "" if re.fullmatch(r"bbox_\d+", found) else found[:100]  # what `native` calls a box without a name

    return tuple(name(row) for row in _frame(_read(value)))


def _read(value: Any) -> Any:
    """Text as its JSON, tensors and arrays as lists, at any depth."""
    if isinstance(value, str):
        value = _json(value, "boxes")
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_read(v) if not isinstance(v, str) else v for v in value]
    return {k: v if isinstance(v, str) else _read(v) for k, v in value.items()} if isinstance(value, dict) else value


def parse_boxes(text: str, width: int, height: int, bbox_format: str = "xywh") -> tuple[Box | None, ...]:
    """The lines of the box widget, one a reference: `x y width height`, commas or spaces; blank or `-` is no box. Or JSON, on one line or
    several: what starts with a bracket and is not lines of numbers, each in brackets of its own.

    Raises:
        ValueError: which line is wrong, and how.
    """
    text, where = text.rstrip(), "box_text"
    if text.lstrip()[:1] in ("[", "{") and not all(LINE.fullmatch(line.strip()) for line in text.splitlines()):
        return _boxes(_frame(_json(text, where)), width, height, bbox_format, where)
    rows: list = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().strip("[](),").strip()
        if line in ("", "-", "none", "null"):
            rows.append(None)
            continue
        parts = [p for p in re.split(r"[\s,;]+", line) if p]
        try:
            rows.append(tuple(float(p) for p in parts))
        except ValueError:
            raise ValueError(
                f"{where}, line {number}: «{line[:60]}» is not four numbers. Write x y width height as fractions "
                "of the picture, for example 0.1 0.2 0.4 0.5; an empty line is a reference without a box."
            ) from None
    return _boxes(rows, width, height, bbox_format, where)


def _json(text: str, where: str) -> Any:
    try:
        return parse_json(text, where)
    except JSONError as error:
        raise ValueError(
            f"{where}: neither lines of four numbers nor JSON (it {error.reason}). Write x y width height on a line, or a JSON "
            'list such as [{"x": 0.1, "y": 0.2, "width": 0.4, "height": 0.5}].'
        ) from None


def _frame(value: Any) -> list:
    """The boxes of the first frame, unread."""
    if value is None:
        return []
    if isinstance(value, dict) or _is_tuple(value):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"boxes: {type(value).__name__} is not a box. Connect a BOUNDING_BOX or BBOX output.")
    value = list(value)
    nested = next((v for v in value if v is not None), None)
    if isinstance(nested, (list, tuple)) and not _is_tuple(nested):
        return _frame(nested) if nested else []
    return value


def _is_tuple(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    )


def _boxes(rows: Sequence, width: int, height: int, bbox_format: str, where: str) -> tuple[Box | None, ...]:
    if bbox_format not in FORMATS:
        raise ValueError(f"bbox_format is {bbox_format!r}; choose xywh or xyxy.")
    read = [None if row is None else _row(row, bbox_format, f"{where}, box {k}") for k, row in enumerate(rows, 1)]
    fractions = all(abs(v) < 2 for row in read if row is not None for v in row)
    out: list[Box | None] = []
    for k, row in enumerate(read, 1):
        if row is None:
            out.append(None)
            continue
        try:
            out.append(_from_pixels(row, *((1, 1) if fractions else (width, height))))
        except ValueError as error:
            told = "" if fractions else f" It was read as pixels of a canvas of {width}x{height}: {tuple(round(v, 2) for v in row)}."
            raise ValueError(f"{where}, box {k}: {error}{told}") from None
    return tuple(out)


def _row(row: Any, bbox_format: str, where: str) -> tuple[float, ...]:
    """x, y, width, height of one box, still in its own unit."""
    if isinstance(row, dict) and isinstance(row.get("bbox"), (list, tuple)) and len(row["bbox"]) == 4:
        top, left, bottom, right = (v / 1000 if isinstance(v, (int, float)) else v for v in row["bbox"])
        values, bbox_format = [left, top, right, bottom], "xyxy"
    elif isinstance(row, dict):
        row = {{"w": "width", "h": "height"}.get(k, k): v for k, v in row.items()}
        missing = [key for key in SIDE if key not in row]
        if missing:
            raise ValueError(f"{where}: it has no {', '.join(missing)}. A box is {{x, y, width, height}}.")
        values = [row[key] for key in SIDE]
        bbox_format = "xywh"
    elif isinstance(row, (list, tuple)) and len(row) == 4:
        values = list(row)
    else:
        raise ValueError(f"{where}: {str(row)[:60]} is not four numbers. A box is x, y, width, height.")
    try:
        a, b, c, d = (float(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {values} are not four numbers.") from None
    if not all(math.isfinite(v) for v in (a, b, c, d)):
        raise ValueError(f"{where}: {values} holds NaN or infinity.")
    return (a, b, c, d) if bbox_format == "xywh" else (a, b, c - a, d - b)


def _from_pixels(row: tuple[float, ...], width: int, height: int) -> Box:
    """In fractions; what overshoots the border by a pixel, or by SLACK of the side, is cut off as the canvas would."""
    x, y, w, h = row
    right, bottom = x + w, y + h
    across, along = (SLACK * side if side == 1 else max(1.0, SLACK * side) for side in (width, height))
    left, top = 0.0 if -across <= x < 0 else x, 0.0 if -along <= y < 0 else y
    w = width - left if width < right <= width + across else w if left == x else right - left
    h = height - top if height < bottom <= height + along else h if top == y else bottom - top
    return Box(left / width, top / height, w / width, h / height)
