"""References, a second look: their own features take the place of written ones, in their boxes, without training.

    paint -> lay the cut-out references over that painting, in their boxes -> encode -> mix into the written features -> paint again

b pictures · h,w their height and width in pixels · features as in features.py

Written features blur what they copy, and more so as references grow (arXiv 2503.01115, section 3, Figure 5). A tower that looks at the
references where they will stand writes them as the decoder was trained to read them. It is a *collage*: pose, light and size are those of
the reference picture. They are laid over the painting rather than over white because features of a cell tell of what is around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .chat.conversation import Box, Reference
from .chat.reference_cutout import NEAR, PLAIN, lay_subject
from .features import Features
from .generation import feature_ops
from .validation import check_images, check_number

WHERE = "WeGen Second Look"
RING = 1 / 16  # of the sides: how far around a box its ground is looked at


class SecondLook(NamedTuple):
    """`features` to paint from, `collage` (b,h,w,3) that was encoded for them, and the `image` (b,h,w,3) where one was painted."""

    features: Features
    collage: Tensor
    image: Tensor | None = None


def collage(painting: Tensor, references: Sequence[Reference], warn: Callable[[str], None] | None = None) -> Tensor:
    """(b,h,w,3): the references laid over each painting (b,h,w,3), in their order, so that of two boxes that overlap the later is on top.

    A box that stands on plain ground is cleared first: else what was painted there shows around the reference.

    Raises:
        ValueError: none of them has both a picture and a box.
    """
    laid = _placed(references, warn)
    rows = []
    for row in check_images(painting, f"{WHERE}, painting").cpu():
        row = _cleared(row, [box for _, box in laid])
        for picture, box in laid:
            row = lay_subject(picture, box, row)
        rows.append(row)
    return torch.stack(rows)


def box_mask(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """(h,w), 1 inside any of the boxes."""
    out = torch.zeros(height, width)
    for box in boxes:
        top, left = round(box.y * height), round(box.x * width)
        out[top : round((box.y + box.height) * height), left : round((box.x + box.width) * width)] = 1
    return out


def look_again(
    encode: Callable[[Tensor], Features],
    features: Features,
    painting: Tensor,
    references: Sequence[Reference],
    strength: float = 1.0,
    warn: Callable[[str], None] | None = None,
) -> SecondLook:
    """Written features with those of the references in the cells that are more than half inside a box.

    Args:
        encode: pictures (b,h,w,3) to features, of the model that wrote them (`WeGenEncoder.encode`).
        painting: (b,h,w,3) in 0..1, what was painted from the features (b,n,c): as many pictures, or one for all.
        references: with picture and box; others are left out, with a warning.
        strength: 0 leaves the features bit for bit, 1 takes the references' own; between, a mixture.
    Raises:
        ValueError: which input is wrong, and what to do.
    """
    check_number(WHERE, "strength", strength, 0, 1, hint=" (0 is off)")
    picture = collage(painting, references, warn)
    if len(picture) not in (1, len(features)):
        raise ValueError(
            f"{WHERE}: painting holds {len(picture)} pictures for {len(features)} rows of features. Connect what was painted of them."
        )
    if strength == 0:
        return SecondLook(features, picture)
    boxes = [box for _, box in _placed(references, None)]
    cells = _cells(boxes, features.grid)
    if warn is not None:
        for k, box in enumerate(boxes, 1):
            if not _cells([box], features.grid).any():
                warn(
                    f"{WHERE}: box {k} covers no cell of the {features.grid[1]}x{features.grid[0]} features by more than half: it is too small to change one."
                )
    seen = encode(picture)
    return SecondLook(feature_ops.mix(features, seen, strength, shares=cells, warn=warn), picture)


def paint_twice(
    model: Any,
    features: Features,
    references: Sequence[Reference],
    *,
    strength: float = 1.0,
    last_steps: float = 1.0,
    decoder: Any = None,
    **options: Any,
) -> SecondLook:
    """Paint, look again, paint again.

    Args:
        model: a `WeGen`, whose tower looks, and whose decoder paints where no other `WeGenDecoder` is given.
        last_steps: the share of the denoising steps, counted from the end, that the second painting gives to the new features.
        options: of `WeGenDecoder.decode`, for both paintings.
    """
    decoder = decoder or model.painter
    first = decoder.decode(features, **options)
    made = look_again(model.encode, features, first, references, strength, model.runtime.warn)
    if strength == 0 or last_steps == 0:
        return made._replace(image=first)
    late = None if last_steps == 1 else (made.features, last_steps)
    return made._replace(image=decoder.decode(made.features if late is None else features, late=late, **options))


def _cleared(painting: Tensor, boxes: Sequence[Box]) -> Tensor:
    """(h,w,3) with each box filled by the colour around it, where that is plain; as it is elsewhere."""
    height, width = painting.shape[:2]
    out, taken = painting.clone(), box_mask(boxes, height, width) > 0
    for box in boxes:
        x0, y0, x1, y1 = max(box.x - RING, 0), max(box.y - RING, 0), min(box.x + box.width + RING, 1), min(box.y + box.height + RING, 1)
        ground = painting[(box_mask([Box(x0, y0, x1 - x0, y1 - y0)], height, width) > 0) & ~taken]
        if len(ground) and ((ground - (colour := ground.median(0).values)).abs().amax(-1) < NEAR).float().mean() >= PLAIN:
            out[box_mask([box], height, width) > 0] = colour
    return out


def _cells(boxes: Sequence[Box], grid: tuple[int, int]) -> Tensor:
    """(1,rows,columns), 1 where a cell is more than half inside a box."""
    fine = 64  # parts of a cell's side
    mask = box_mask(boxes, grid[0] * fine, grid[1] * fine)
    return (feature_ops.cell_shares(mask, grid) > 0.5).float()


def _placed(references: Sequence[Reference], warn: Callable[[str], None] | None) -> list[tuple[Tensor, Box]]:
    """Pictures (h,w,3) and their boxes, of the references that have both."""
    out = []
    for k, reference in enumerate(references, 1):
        if reference.picture is not None and reference.box is not None:
            out.append((check_images(reference.picture[:1], f"{WHERE}, reference {k}")[0].cpu(), reference.box))
        elif warn is not None and reference.has_picture:
            lacks = "no box" if reference.box is None else "no picture, only features"
            warn(f"{WHERE}: reference {k} has {lacks}, so it is not laid over the painting.")
    if not out:
        raise ValueError(
            f"{WHERE}: none of the {len(references)} references has both a picture and a box, so there is nothing to lay over the painting. "
            "Connect the references of Bbox Compose, with a picture at image_1 and a box drawn for it."
        )
    return out
