"""What was not touched stays: a painting laid into an original picture, of which every pixel outside a mask comes out as it went in.

b pictures · H,W pixels of the original · h,w cells of the latents

    latents    after each step, cells outside the mask follow the original (models/decoder.py): what is painted fits what stays
    pixels     the painting is brought to the original's frame and blended in by an alpha that is 0 outside the mask and rises from its
               edge inwards. A VAE alone gives nothing back to the bit, so this is never left out.

The original passes through as it was loaded, in float32: through -1..1 and back, 63 of 256 values are saved one too low.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images import resize_float

FEATHER = 3.0  # percent of the shorter side: 4 pixels at 128. Double halves the seam once more but costs 1.6 dB inside (measured)
STEPS = 8  # levels of a feather: one a pixel up to here, smoothed between
SEEN = 0.5 / 255  # a mask's value below it counts as black
COLOUR_SIGMA = 3.0  # percent of the shorter side: how far the colours of what stays reach into the painting
ASPECTS = 0.02  # relative difference of two aspects that is rounding


@dataclass(frozen=True)
class Kept:
    """An original and where it is painted anew. `picture` (b,H,W,3) float32 in 0..1; `mask` (b,H,W) in 0..1, 0 where the original stays;
    `feather` in percent of the shorter side, inside the mask; `match_colours`: tint the painting near the edge as what stays."""

    picture: Tensor
    mask: Tensor
    feather: float = FEATHER
    match_colours: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the original."""
        return self.mask.shape[-2], self.mask.shape[-1]

    def cells(self, height: int, width: int) -> Tensor:
        """(b,1,height,width) bool: the latent cells to be painted, each that any pixel of the mask touches. Thin lines stay whole."""
        return F.adaptive_max_pool2d(self.mask[:, None], (height, width)) > SEEN

    def pixels(self, height: int, width: int) -> Tensor:
        """(b,3,height,width) in -1..1: the original squashed to a painting's size, for the VAE."""
        return resize_float(self.picture.movedim(-1, 1), (height, width)) * 2 - 1

    def composite(self, painted: Tensor) -> Tensor:
        """Lay paintings (b,h,w,3) in 0..1, of any size, into the original: (b,H,W,3), outside the mask the original to the bit."""
        painted = enlarge(painted, self.size)
        rows = max(len(painted), len(self.picture))
        original = self.picture.expand(rows, -1, -1, -1)
        if self.match_colours:
            painted = match_colours(painted, original, self.mask)
        alpha = feather(self.mask, self.feather)[..., None]
        return torch.where(alpha == 0, original, original * (1 - alpha) + painted * alpha)


def kept(
    original: Tensor,
    mask: Tensor,
    rows: int,
    *,
    feather: float = FEATHER,
    grow: float = 0.0,
    match_colours: bool = False,
    where: str = "SDXL Feature Decoder",
    warn: Callable[[str], None] = lambda _: None,
) -> Kept:
    """An original picture and a mask, checked and brought together.

    Args:
        original: (1 or rows,H,W,3) in 0..1, as `validation.check_images` gives it. rows: pictures to be painted.
        mask: (m,h,w) or (h,w) of any size, 1 where the picture is painted anew, 0 where it stays; grey blends. It is stretched to the
            original. One for all pictures, one each, or (for one picture) several that count together.
        feather: see `Kept`. grow: percent of the shorter side by which the mask is widened first (negative: narrowed).
    Raises:
        ValueError: which input does not fit, and what to do.
    """
    if len(original) not in (1, rows):
        raise ValueError(
            f"{where}: original holds {len(original)} pictures for {rows} to be painted. Connect one original, or one for each picture."
        )
    if mask.ndim == 4 and 1 in (mask.shape[1], mask.shape[-1]):  # (m,1,h,w) or (m,h,w,1), as some nodes make them
        mask = mask[:, 0] if mask.shape[1] == 1 else mask[..., 0]
    if mask.ndim not in (2, 3) or not mask.numel():
        raise ValueError(f"{where}: mask: its shape is {tuple(mask.shape)}, a mask is (pictures, height, width). Connect a MASK output.")
    mask = mask.detach().float().cpu().reshape(-1, *mask.shape[-2:])
    if not torch.isfinite(mask).all():
        raise ValueError(f"{where}: mask: it holds NaN or infinity. Make it anew.")
    if rows == 1:
        mask = mask.amax(0, keepdim=True)
    if len(mask) not in (1, rows):
        raise ValueError(f"{where}: mask holds {len(mask)} masks for {rows} pictures. Use one mask for all, or one a picture.")
    height, width = original.shape[1:3]
    aspect = mask.shape[-1] / mask.shape[-2] * height / width
    if not 1 - ASPECTS < aspect < 1 + ASPECTS:
        warn(
            f"mask measures {mask.shape[-1]}x{mask.shape[-2]}, the original {width}x{height}: it was stretched to the original. "
            "Is it the mask of another picture?"
        )
    mask = fit(mask.clamp(0, 1), (height, width))
    mask = torch.where(mask < SEEN, 0.0, mask)
    mask = widen(mask, side_pixels(grow, (height, width)))
    if not mask.any():
        warn("mask is all black: the original comes out as it is. Paint white what is to be painted anew.")
    elif bool((mask == 1).all()):
        warn("mask is all white: nothing of the original stays.")
    return Kept(original, mask, feather, match_colours)


def fit(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(b,h,w) to (b,*size): each pixel is as white as the whitest that it covers, so that no thin line is lost."""
    return mask if tuple(mask.shape[-2:]) == tuple(size) else F.adaptive_max_pool2d(mask[:, None], size)[:, 0]


def side_pixels(percent: float, size: tuple[int, int]) -> int:
    """A share of the shorter side in whole pixels; at least one where it is not 0."""
    n = round(abs(percent) / 100 * min(size))
    return 0 if percent == 0 else max(n, 1) * (1 if percent > 0 else -1)


def widen(mask: Tensor, by: int) -> Tensor:
    """(b,h,w) in 0..1, each pixel the whitest within a square of `by` pixels to each side; below 0 the blackest. The frame is no edge."""
    if by == 0:
        return mask
    kernel, sign = 2 * abs(by) + 1, 1 if by > 0 else -1
    x = F.max_pool2d(sign * mask[:, None], (kernel, 1), 1, (abs(by), 0))
    return sign * F.max_pool2d(x, (1, kernel), 1, (0, abs(by)))[:, 0]


def feather(mask: Tensor, percent: float) -> Tensor:
    """(b,H,W) alpha of a mask (b,H,W): 0 outside it, rising over `percent` of the shorter side from its edge inwards, times the mask.

    A part thinner than two feathers rises faster and is full in its middle, so that lines are painted too.
    """
    width = side_pixels(max(percent, 0.0), (mask.shape[-2], mask.shape[-1]))
    inside = (mask > 0).float()
    if not width or not inside.any() or inside.all():
        return mask
    levels = min(width, STEPS)
    radii = [round(width * k / levels) for k in range(levels + 1)]
    eroded, depth, thickness = inside, torch.zeros_like(inside), torch.zeros_like(inside)
    for k in range(1, levels + 1):
        eroded = widen(eroded, radii[k - 1] - radii[k])
        depth = depth + eroded
        thickness = torch.maximum(thickness, k * widen(eroded, radii[k]))
        if not eroded.any():
            break
    step = radii[1]  # pixels of a level
    ramp = (depth + 1) / (thickness + 1)
    if step > 1:  # a mean over a level's width, of what is inside alone
        ramp = _mean(ramp * inside, step // 2) / _mean(inside, step // 2).clamp_min(1e-6)
    return ramp * mask


def match_colours(painted: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Paintings (b,H,W,3) tinted near the mask's edge by what they miss of the original just outside; deep inside they are as they were."""
    size = (mask.shape[-2], mask.shape[-1])
    outside = (mask == 0).float()[..., None].expand(len(painted), -1, -1, -1)
    sigma = max(COLOUR_SIGMA / 100 * min(size), 0.5)
    near = _blur(outside, sigma)
    lacking = _blur((original - painted) * outside, sigma) / near.clamp_min(1e-4)
    return (painted + lacking * (2 * near).clamp(max=1)).clamp(0, 1)


def enlarge(painted: Tensor, size: tuple[int, int]) -> Tensor:
    """(b,h,w,3) in 0..1 to (b,*size,3): bicubic with antialiasing; of that size already, untouched."""
    if tuple(painted.shape[1:3]) == tuple(size):
        return painted
    x = F.interpolate(painted.movedim(-1, 1), size, mode="bicubic", antialias=True, align_corners=False)
    return x.movedim(1, -1).clamp(0, 1)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """(b,H,W,c) blurred by three boxes, about a Gaussian of `sigma` pixels; the frame's outside does not count."""
    radius = max(1, round((4 * sigma**2 + 1) ** 0.5 / 2 - 0.5))
    x = x.movedim(-1, 1)
    for _ in range(3):
        x = _mean(x, radius)
    return x.movedim(1, -1)


def _mean(x: Tensor, radius: int) -> Tensor:
    """(b,…,H,W) the mean of each square of `radius` pixels to each side, of those inside the frame."""
    kernel = 2 * radius + 1
    x = F.avg_pool2d(x, (kernel, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, kernel), 1, (0, radius), count_include_pad=False)
