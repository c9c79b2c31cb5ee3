"""A reference picture pasted into its box: how a small model is shown the subject of a box, and what a second look lays over a painting.

    picture (h,w,3), box -> canvas (s,s,3): the subject, cut out of its plain border, at the place and size of the box

A model of 7B parameters is shown the whole picture and finds the place from the location tokens (`references="whole"`, as the public
code does). The miniature learns far sooner when the subject's features already stand in the slots where they will be written
(`references="placed"`), and always on white: what remains is to merge them, and to change white into the background asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..box import Box

PLAIN = 0.8  # share of the rim that must have one colour for the border to be cut off
NEAR = 0.06  # in 0..1: largest difference from the rim's colour that still counts as border
HOLE = 0.01  # the same where the subject encloses it: a ring is seen through, an eye of a similar colour is not
MARGIN = 0.04  # of the box, left free on each side


def border(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The median colour (3,) of a picture's rim (h,w,3), and the mask (h,w) of what differs from it; all True without a plain rim."""
    rim = torch.cat([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour = rim.median(0).values
    if ((rim - colour).abs().amax(-1) < NEAR).float().mean() < PLAIN:
        return colour, torch.ones(picture.shape[:2], dtype=torch.bool)
    other = (picture - colour).abs().amax(-1) >= NEAR
    return colour, other if other.any() else torch.ones_like(other)


def paste_subject(picture: Tensor, box: Box, size: int) -> Tensor:
    """(size,size,3): a picture's subject in a box of a white canvas of so many pixels: see `lay_subject`."""
    return lay_subject(picture, box, torch.ones(size, size, 3))


def lay_subject(picture: Tensor, box: Box, paper: Tensor) -> Tensor:
    """Lay a picture's subject over another picture, in a box.

    Args:
        picture: (h,w,3) in 0..1. A plain border is cut off, aspect is kept, the subject is centred in the box.
        box: fractions of the paper. paper: (H,W,3) in 0..1, which stays as it is.
    Returns:
        (H,W,3): the paper around the subject, in its holes and, in part, at its outline.
    """
    picture = picture.float()
    high, wide = paper.shape[:2]
    colour, subject = border(picture)
    rows, columns = subject.any(1).nonzero(), subject.any(0).nonzero()
    cut = picture[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    room = 1 - 2 * MARGIN
    width, height = box.width * wide * room, box.height * high * room
    scale = min(width / cut.shape[1], height / cut.shape[0])
    shape = max(1, min(high, round(cut.shape[0] * scale))), max(1, min(wide, round(cut.shape[1] * scale)))
    cut = F.interpolate(cut.movedim(-1, 0)[None], shape, mode="bilinear", antialias=True, align_corners=False)[0].movedim(0, -1)
    top = round((box.y + box.height / 2) * high - shape[0] / 2)
    left = round((box.x + box.width / 2) * wide - shape[1] / 2)
    top, left = (max(0, min(side - n, at)) for side, n, at in zip((high, wide), shape, (top, left)))
    if subject.all():  # no border that differs from it
        canvas = paper.clone()
        canvas[top : top + shape[0], left : left + shape[1]] = cut
        return canvas
    canvas = colour.expand(high, wide, 3).clone()
    canvas[top : top + shape[0], left : left + shape[1]] = cut
    return (canvas + (1 - _alpha(canvas, colour))[..., None] * (paper - colour)).clamp(0, 1)


def _alpha(canvas: Tensor, colour: Tensor) -> Tensor:
    """(h,w) how much of a pixel is subject: none where its colour reaches from the rim or shows through a hole, a part at the outline."""
    near = ((canvas - colour).abs().amax(-1) < NEAR)[None, None].float()
    outside = near.clone()
    outside[..., 1:-1, 1:-1] = 0
    while True:
        wider = F.max_pool2d(outside, 3, 1, 1) * near
        if torch.equal(wider, outside):
            break
        outside = wider
    outside = torch.maximum(outside, ((canvas - colour).abs().amax(-1) < HOLE)[None, None].float())
    solid = 1 - F.max_pool2d(outside, 5, 1, 2)  # two pixels and more inside
    weight = F.avg_pool2d(solid, 7, 1, 3)
    inner = F.avg_pool2d(canvas.movedim(-1, 0)[None] * solid, 7, 1, 3) / weight.clamp(min=1e-6)
    away = inner[0].movedim(0, -1) - colour
    share = (((canvas - colour) * away).sum(-1) / away.square().sum(-1).clamp(min=1e-4)).clamp(0, 1)
    mixed = (canvas - colour - share[..., None] * away).abs().amax(-1) < 2 * NEAR  # of the two colours, not an outline of a third
    edge = (1 - solid)[0, 0] * (1 - outside)[0, 0] * (weight[0, 0] > 0) * mixed
    return torch.where(edge > 0, share, 1 - outside[0, 0])
