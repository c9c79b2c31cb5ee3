"""Pictures joined with their boxes, and what Bbox Compose shows of them: masks, a preview, a plan, and boxes as ComfyUI has them.

The forms that boxes are read from are in box_forms.py. They leave as `Box` (fractions, top-left corner).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from ..box import Box
from ..images import resize_float
from .conversation import Reference, Turn
from .reference_cutout import cut_out

COLOURS = (
    *((235, 94, 40), (46, 134, 222), (39, 174, 96), (155, 89, 182), (241, 196, 15)),
    *((231, 76, 140), (26, 188, 196), (141, 110, 75), (94, 107, 220), (140, 190, 50)),
)
PREVIEW = 768  # pixels, the preview's longer side at most


@dataclass(frozen=True)
class Composition:
    """`references` in order; `masks` (boxes,h,w), 1 inside; `preview` and `plan` (1,h,w,3) in 0..1; `boxes` native, one frame, pixels;
    `elements` in thousandths."""

    references: tuple[Reference, ...]
    prompt: str
    boxes: list[list[dict]]
    preview: Tensor
    masks: Tensor
    plan: Tensor
    elements: list[dict]


def compose(
    pictures: Sequence[Reference | None],
    boxes: Sequence[Box | None],
    prompt: str = "",
    chained: tuple[Reference, ...] = (),
    width: int = 1024,
    height: int = 1024,
    labels: Sequence[str] = (),
    background: Tensor | None = None,
) -> Composition:
    """Join pictures and boxes by their order, after the references that were chained in, and check the prompt's tags.

    Args:
        pictures: one entry a slot, None where nothing is connected. boxes: likewise; more boxes than pictures are places.
        width, height: of the canvas in pixels. labels: one a slot, "" for none. background: IMAGE below the preview's boxes.
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
        preview(references, width, height, background),
        masks(references, width, height),
        plan(references, width, height),
        elements(references),
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


def elements(references: Sequence[Reference]) -> list[dict]:
    """ComfyUI's `elements`: {"bbox": [top, left, bottom, right] in thousandths, "desc"} for each box."""
    return [
        {"bbox": [round(v * 1000) for v in (b.y, b.x, b.y + b.height, b.x + b.width)], "desc": r.label or f"bbox_{k}"}
        for k, r in enumerate(references, 1)
        if (b := r.box) is not None
    ]


def masks(references: Sequence[Reference], width: int, height: int) -> Tensor:
    """(boxes,h,w), 1 inside the box; one empty mask where there are no boxes."""
    boxes = [r.box for r in references if r.box is not None]
    out = torch.zeros(max(len(boxes), 1), height, width)
    for i, box in enumerate(boxes):
        left, top, right, bottom = edges(box, width, height)
        out[i, top:bottom, left:right] = 1
    return out


def preview(references: Sequence[Reference], width: int, height: int, background: Tensor | None = None) -> Tensor:
    """(1,h,w,3): the canvas, at most PREVIEW pixels long, with each whole reference over its box, an outline and its number. `background`:
    IMAGE (b,h,w,1|3|4) below them, of which the first is stretched over the canvas."""
    from PIL import Image

    canvas, sides = _canvas(width, height)
    if background is not None:
        below = Image.fromarray((_rgb(background) * 255).round().byte().numpy())
        canvas.paste(below.resize(sides, Image.Resampling.BILINEAR))
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


__all__ = ["Composition", "compose", "edges", "elements", "join", "masks", "native", "plan", "preview"]
