"""Boxes in the forms that other nodes and people write them, and what Bbox Compose shows of them: masks, a preview and a plan.

Forms read: ComfyUI's native {"x","y","width","height"} (one, a list, or one list per frame), KJNodes' bare tuples (xywh or
xyxy), JSON text of any of these, and lines of four numbers. Numbers are fractions of the canvas where all of them are below 2,
pixels of the canvas otherwise. Everything leaves as `Box` (fractions, top-left corner).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from ..box import Box
from ..fileio import JSONError, parse_json
from ..images import resize_float
from .conversation import Reference, Turn
from .reference_cutout import cut_out

FORMATS = ("xywh", "xyxy")  # of bare tuples: x, y, width, height | left, top, right, bottom
SIDE = ("x", "y", "width", "height")
COLOURS = ((235, 94, 40), (46, 134, 222), (39, 174, 96), (155, 89, 182), (241, 196, 15))
LINE = re.compile(r"\[[^][{}]*],?|[^][{}]*")  # of box_text: numbers, bare or in brackets
PREVIEW = 768  # pixels, the preview's longer side at most


@dataclass(frozen=True)
class Composition:
    """`references` in order; `masks` (boxes,h,w), 1 inside; `preview` and `plan` (1,h,w,3) in 0..1; `boxes` native, one frame, pixels."""

    references: tuple[Reference, ...]
    prompt: str
    boxes: list[list[dict]]
    preview: Tensor
    masks: Tensor
    plan: Tensor


def compose(
    pictures: Sequence[Reference | None],
    boxes: Sequence[Box | None],
    prompt: str = "",
    chained: tuple[Reference, ...] = (),
    width: int = 1024,
    height: int = 1024,
    labels: Sequence[str] = (),
) -> Composition:
    """Join pictures and boxes by their order, after the references that were chained in, and check the prompt's tags.

    Args:
        pictures: one entry a slot, None where nothing is connected. boxes: likewise; more boxes than pictures are places.
        width, height: of the canvas in pixels. labels: one a slot, "" for none.
    Raises:
        ValueError: a tag of the prompt that no reference answers; too small a canvas.
    """
    if width < 8 or height < 8:
        raise ValueError(f"Bbox Compose: the canvas is {width}x{height}; both sides must be at least 8 pixels.")
    turn = Turn("user", prompt, (*chained, *(r for r in join(pictures, boxes, labels) if r is not None)))
    if turn.tags():
        turn.check()
    references = turn.references
    return Composition(
        references,
        prompt,
        native(references, width, height),
        preview(references, width, height),
        masks(references, width, height),
        plan(references, width, height),
    )


def join(pictures: Sequence[Reference | None], boxes: Sequence[Box | None], labels: Sequence[str] = ()) -> list[Reference | None]:
    """One entry a slot: its picture in its box, either alone, or None."""
    out: list[Reference | None] = []
    for k, (picture, box) in enumerate(zip_longest(pictures, boxes)):
        label = labels[k] if k < len(labels) else ""
        if picture is None:
            out.append(None if box is None else Reference(box=box, label=label))
        else:
            out.append(picture if box is None else replace(picture, box=box, label=label or picture.label))
    return out


# --- reading --------------------------------------------------------------------------------------------------------


def normalise_boxes(value: Any, width: int, height: int, bbox_format: str = "xywh") -> tuple[Box | None, ...]:
    """Any of the forms above to boxes; of several frames, the first. None stays: no box for that picture.

    Raises:
        ValueError: which box is wrong, and how.
    """
    if isinstance(value, str):
        value = _json(value, "boxes")
    return _boxes(_frame(value), width, height, bbox_format, "boxes")


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
    if isinstance(value, Tensor):
        value = value.tolist()
    if value is None:
        return []
    if isinstance(value, dict) or _is_tuple(value):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"boxes: {type(value).__name__} is not a box. Connect a BOUNDING_BOX or BBOX output.")
    value = list(value)
    nested = next((v for v in value if v is not None), None)
    if isinstance(nested, Tensor):
        nested = nested.tolist()
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
            out.append(Box(*row) if fractions else _from_pixels(row, width, height))
        except ValueError as error:
            told = "" if fractions else f" It was read as pixels of a canvas of {width}x{height}: {tuple(round(v, 2) for v in row)}."
            raise ValueError(f"{where}, box {k}: {error}{told}") from None
    return tuple(out)


def _row(row: Any, bbox_format: str, where: str) -> tuple[float, ...]:
    """x, y, width, height of one box, still in its own unit."""
    if isinstance(row, Tensor):
        row = row.tolist()
    if isinstance(row, dict):
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
    """Detectors overshoot the border by a fraction of a pixel: up to one is cut off."""
    x, y, w, h = row
    right, bottom = x + w, y + h
    x, y = (0.0 if -1 <= v < 0 else v for v in (x, y))
    right = width if width < right <= width + 1 else right
    bottom = height if height < bottom <= height + 1 else bottom
    return Box(x / width, y / height, (right - x) / width, (bottom - y) / height)


# --- showing --------------------------------------------------------------------------------------------------------


def edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom in pixels, at least one wide and high, inside."""
    left, right = (int(v * width + 0.5) for v in (box.x, box.x + box.width))
    top, bottom = (int(v * height + 0.5) for v in (box.y, box.y + box.height))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)


def native(references: Sequence[Reference], width: int, height: int) -> list[list[dict]]:
    """ComfyUI's BOUNDING_BOX: one frame of {x, y, width, height, label} in pixels."""
    out = []
    for k, reference in enumerate(references, 1):
        if reference.box is not None:
            left, top, right, bottom = edges(reference.box, width, height)
            out.append({"x": left, "y": top, "width": right - left, "height": bottom - top, "label": reference.label or f"bbox_{k}"})
    return [out]


def masks(references: Sequence[Reference], width: int, height: int) -> Tensor:
    """(boxes,h,w), 1 inside the box; one empty mask where there are no boxes."""
    boxes = [r.box for r in references if r.box is not None]
    out = torch.zeros(max(len(boxes), 1), height, width)
    for i, box in enumerate(boxes):
        left, top, right, bottom = edges(box, width, height)
        out[i, top:bottom, left:right] = 1
    return out


def preview(references: Sequence[Reference], width: int, height: int) -> Tensor:
    """(1,h,w,3): the canvas, at most PREVIEW pixels long, with each whole reference over its box, an outline and its number."""
    from PIL import Image

    canvas, sides = _canvas(width, height)
    for k, reference in enumerate(references, 1):
        if reference.box is None:
            continue
        left, top, right, bottom = edges(reference.box, *sides)
        if reference.picture is not None:
            pixels = (_rgb(reference.picture) * 255).round().byte().numpy()
            canvas.paste(Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))
        _mark(canvas, reference, k, str(k))
    return _image(canvas)


def plan(references: Sequence[Reference], width: int, height: int) -> Tensor:
    """(1,h,w,3): what a model with `references="placed"` is shown: each reference cut out and laid in its box on white
    (reference_cutout.py), outlined, with its number and label. What it is shown is square, so another canvas stretches it."""
    from PIL import Image

    canvas, (width, height) = _canvas(width, height)
    laid = _image(canvas)[0]
    subjects = [(r.picture, r.box) for r in references if r.box is not None and r.picture is not None]
    for _, box in subjects:
        left, top, right, bottom = edges(box, width, height)
        laid[top:bottom, left:right] = 1
    for picture, box in subjects:  # after all boxes: where two overlap, both subjects show
        shown, opacity = cut_out(_colours(picture), box, max(width, height))
        both = resize_float(torch.cat([shown, opacity[..., None]], -1).movedim(-1, 0)[None], (height, width))[0].movedim(0, -1)
        laid = (both[..., :3] - (1 - both[..., 3:]) * (1 - laid)).clamp(0, 1)
    canvas = Image.fromarray((laid * 255).round().byte().numpy())
    for k, reference in enumerate(references, 1):
        if reference.box is not None:
            name = f"{k} {reference.label[:24]}".strip().encode("latin-1", "replace").decode("latin-1")  # what the font has
            _mark(canvas, reference, k, name)
    return _image(canvas)


def _canvas(width: int, height: int):
    """An empty canvas of this shape, at most PREVIEW pixels long, and its (width, height)."""
    from PIL import Image

    scale = min(1.0, PREVIEW / max(width, height))
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.new("RGB", sides, (38, 38, 42)), sides


def _mark(canvas, reference: Reference, k: int, name: str) -> None:
    """Outline the box of reference k on the canvas, filled where its features alone are known, and write its name into the corner."""
    from PIL import ImageDraw

    assert reference.box is not None
    draw, colour = ImageDraw.Draw(canvas), COLOURS[(k - 1) % len(COLOURS)]
    font, line = _font(max(12, min(canvas.size) // 16)), max(2, min(canvas.size) // 200)
    left, top, right, bottom = edges(reference.box, *canvas.size)
    if reference.picture is None and reference.features is not None:
        draw.rectangle((left, top, right - 1, bottom - 1), fill=tuple(c // 3 for c in colour))
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
    tag = draw.textbbox((left + 2 * line, top + 2 * line), name, font=font)
    draw.rectangle((tag[0] - line, tag[1] - line, tag[2] + line, tag[3] + line), fill=colour)
    draw.text((left + 2 * line, top + 2 * line), name, fill=(255, 255, 255), font=font)


def _image(canvas) -> Tensor:
    """A Pillow picture as IMAGE (1,h,w,3)."""
    import numpy as np

    return torch.from_numpy(np.array(canvas, dtype=np.float32) / 255.0)[None]


def _rgb(picture: Tensor) -> Tensor:
    """(h,w,3) of a picture (1,h,w,1|3|4), opacity laid over white."""
    x = _colours(picture)
    return x if x.shape[-1] == 3 else x[..., :3] * x[..., 3:] + 1 - x[..., 3:]


def _colours(picture: Tensor) -> Tensor:
    """(h,w,3|4) in 0..1 of a picture (1,h,w,1|3|4)."""
    x = picture[0].detach().float().cpu().nan_to_num().clamp(0, 1)
    return x.expand(*x.shape[:2], 3) if x.shape[-1] == 1 else x


def _font(size: int):
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


__all__ = ["Composition", "compose", "edges", "join", "masks", "native", "normalise_boxes", "parse_boxes", "plan", "preview"]
