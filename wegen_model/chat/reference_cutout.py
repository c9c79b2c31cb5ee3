"""What a model is shown of a reference picture: code, not weights, cuts its subject out and lays it in its box.

    picture (h,w,3|4), box -> (s,s,3): the subject, cut out, on white, at the place and size of the box
    picture (h,w,3|4)      -> the whole picture, its proportions kept

h,w: the picture's pixels; s: the tower's side. A fourth channel is opacity, 1 where the picture is solid: with it the subject is what is
opaque, over whatever colours lie around it. Without it the subject is what differs from a plain rim; without a plain rim, the whole picture.

A model of 7B parameters is shown the whole picture and finds the place from the location tokens (`references="whole"`, as the public
code does). The miniature learns far sooner when the subject's features already stand in the slots where they will be written
(`references="placed"`), and always on white: what remains is to merge them, and to change white into the background asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..box import Box
from ..images import resize_float

PLAIN = 0.8  # share of the rim that must have one colour for the border to be cut off
NEAR = 0.06  # in 0..1: largest difference from the rim's colour that still counts as border
HOLE = 0.01  # the same where the subject encloses it: a ring is seen through, an eye of a similar colour is not
MARGIN = 0.04  # of the box, left free on each side
SEEN = 0.02  # opacity from which a pixel belongs to the subject
SOLID = 0.98  # opacity from which a pixel's colour is the subject's alone
FINE = 8  # a cut-out of more canvas sides squared than this keeps its outline's colours: scaled down, it does not show


def shown(picture: Tensor, box: Box | None, size: int) -> Tensor:
    """What a model with `references="placed"` is shown.

    Args:
        picture: (h,w,3), or (h,w,4) with opacity, in 0..1. box: fractions of the picture to be made, or None. size: pixels along the tower.
    Returns:
        with a box (size,size,3), see `paste_subject`; without one the whole picture on white, square (`pad_to_square`).
    """
    return pad_to_square(picture, size) if box is None else paste_subject(picture, box, size)


def has_transparency(picture: Tensor) -> bool:
    """True when a picture (…,c) has a fourth channel that is not 1 everywhere."""
    return picture.shape[-1] == 4 and bool((picture[..., 3] < 1).any())


def pad_to_square(picture: Tensor, size: int) -> Tensor:
    """A picture with its proportions kept: what is not square gets bars of its plain rim's colour, or white ones.

    Args:
        picture: (h,w,3|4) in 0..1; opacity is laid over white. size: the longer side of a padded picture, in pixels.
    Returns:
        (h,w,3) as it was when h = w, else (size,size,3).
    """
    picture, cut = picture.float(), has_transparency(picture)
    rgb = picture[..., :3]
    if picture.shape[-1] == 4:
        rgb = rgb * picture[..., 3:] + (1 - picture[..., 3:])
    height, width = rgb.shape[:2]
    if height == width:
        return rgb
    colour, plain = _rim(rgb)
    small = resize_float(rgb.movedim(-1, 0)[None], _within(height, width, size / max(height, width), (size, size)))[0].movedim(0, -1)
    canvas = (colour if plain and not cut else torch.ones(3)).expand(size, size, 3).clone()
    _put(canvas, small, (size - small.shape[0]) // 2, (size - small.shape[1]) // 2)
    return canvas


def _rim(picture: Tensor) -> tuple[Tensor, bool]:
    """The median colour (3,) of a picture's rim (h,w,3), and whether the rim is plain: of that colour in a share of PLAIN."""
    rim = torch.cat([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour = rim.median(0).values
    return colour, bool(((rim - colour).abs().amax(-1) < NEAR).float().mean() >= PLAIN)


def border(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The median colour (3,) of a picture's rim (h,w,3), and the mask (h,w) of what differs from it; all True without a plain rim."""
    colour, plain = _rim(picture)
    if not plain:
        return colour, torch.ones(picture.shape[:2], dtype=torch.bool)
    other = (picture - colour).abs().amax(-1) >= NEAR
    return colour, other if other.any() else torch.ones_like(other)


def paste_subject(picture: Tensor, box: Box, size: int) -> Tensor:
    """(size,size,3): a picture's subject in a box of a white canvas of so many pixels: see `lay_subject`."""
    return cut_out(picture, box, size)[0]


def cut_out(picture: Tensor, box: Box, size: int) -> tuple[Tensor, Tensor]:
    """The canvas (size,size,3) of `paste_subject`, and the subject's opacity (size,size) in it. On another colour c than white the
    subject is `canvas - (1 - opacity) * (1 - c)`."""
    return _laid(picture, box, torch.ones(size, size, 3))


def lay_subject(picture: Tensor, box: Box, paper: Tensor) -> Tensor:
    """Lay a picture's subject over another picture, in a box.

    Args:
        picture: (h,w,3), or (h,w,4) with opacity, in 0..1. What is transparent, else a plain border, is cut off; aspect is kept, the
            subject is centred in the box.
        box: fractions of the paper. paper: (H,W,3) in 0..1, which stays as it is.
    Returns:
        (H,W,3): the paper around the subject, in its holes and, in part, at its outline; the paper alone when nothing of the picture is opaque.
    """
    return _laid(picture, box, paper)[0]


def _laid(picture: Tensor, box: Box, paper: Tensor) -> tuple[Tensor, Tensor]:
    """`lay_subject`, and the subject's opacity (H,W) over the paper."""
    picture, side = picture.float(), (paper.shape[0], paper.shape[1])
    if has_transparency(picture):
        return _laid_opaque(picture, box, paper)
    picture = picture[..., :3]
    colour, subject = border(picture)
    cut, top, left = _fit(_crop(picture, subject), box, side)
    if subject.all():  # no border that differs from it
        canvas, opacity = paper.clone(), torch.zeros(side)
        _put(canvas, cut, top, left)
        _put(opacity, torch.ones(cut.shape[:2]), top, left)
        return canvas, opacity
    canvas = colour.expand(*side, 3).clone()
    _put(canvas, cut, top, left)
    opacity = _alpha(canvas, colour)
    return (canvas + (1 - opacity)[..., None] * (paper - colour)).clamp(0, 1), opacity


def _laid_opaque(picture: Tensor, box: Box, paper: Tensor) -> tuple[Tensor, Tensor]:
    """`_laid` of a picture (h,w,4) by its opacity."""
    canvas, opacity = paper.clone(), torch.zeros(paper.shape[:2])
    seen = picture[..., 3] >= SEEN
    if not seen.any():
        return canvas, opacity
    cut = _crop(picture, seen)
    alpha = cut[..., 3:]
    colours = _own_colours(cut) if alpha.numel() <= (FINE * max(opacity.shape)) ** 2 else cut[..., :3]
    cut = torch.cat([colours * alpha, alpha], -1)  # weighted, so that colours of transparent pixels do not mix in
    cut, top, left = _fit(cut, box, (paper.shape[0], paper.shape[1]))
    cut = cut.clamp(0, 1)
    under = canvas[top : top + cut.shape[0], left : left + cut.shape[1]]
    _put(canvas, cut[..., :3] + (1 - cut[..., 3:]) * under, top, left)
    _put(opacity, cut[..., 3], top, left)
    return canvas.clamp(0, 1), opacity


def _own_colours(cut: Tensor) -> Tensor:
    """(h,w,3) of a picture (h,w,4): at a soft outline the colour of the solid pixels around, where there are any: what was cut out of a
    photo has the photo's colours mixed in there."""
    rgb, alpha = cut[..., :3].movedim(-1, 0)[None], cut[None, None, ..., 3]
    solid = (alpha >= SOLID).float()
    weight = F.avg_pool2d(solid, 5, 1, 2)
    inner = F.avg_pool2d(rgb * solid, 5, 1, 2) / weight.clamp(min=1e-6)
    return torch.where((solid == 0) & (weight > 0), inner, rgb)[0].movedim(0, -1)


def _crop(picture: Tensor, subject: Tensor) -> Tensor:
    """The smallest rectangle of a picture (h,w,c) that holds the subject (h,w)."""
    rows, columns = subject.any(1).nonzero(), subject.any(0).nonzero()
    return picture[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


def _fit(cut: Tensor, box: Box, side: tuple[int, int]) -> tuple[Tensor, int, int]:
    """A cut-out (h,w,c) scaled into the box less its margin, and its top and left on a canvas of so many rows and columns."""
    room = 1 - 2 * MARGIN
    width, height = box.width * side[1] * room, box.height * side[0] * room
    shape = _within(cut.shape[0], cut.shape[1], min(width / cut.shape[1], height / cut.shape[0]), side)
    cut = F.interpolate(cut.movedim(-1, 0)[None], shape, mode="bilinear", antialias=True, align_corners=False)[0].movedim(0, -1)
    top = round((box.y + box.height / 2) * side[0] - shape[0] / 2)
    left = round((box.x + box.width / 2) * side[1] - shape[1] / 2)
    top, left = (max(0, min(length - n, at)) for length, n, at in zip(side, shape, (top, left)))
    return cut, top, left


def _within(height: int, width: int, scale: float, side: tuple[int, int]) -> tuple[int, int]:
    return max(1, min(side[0], round(height * scale))), max(1, min(side[1], round(width * scale)))


def _put(canvas: Tensor, part: Tensor, top: int, left: int) -> None:
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part


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
