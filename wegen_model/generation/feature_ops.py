"""Features as material: mixing, arithmetic, and a picture of the grid.

b pictures · n features (rows x columns of the grid, row-major) · c feature width · t share of the second, 0..1

Every function refuses features of different spaces, NaN, and batches that do not fit (a batch of one goes with any other).
Spherical: Shoemake, "Animating rotation with quaternion curves", 1985, on each feature's direction; its length goes linearly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..features import Features

METHODS = ("linear", "spherical")
PARALLEL = 1e-4  # sine of the angle below which two directions count as one (or as opposite), and are mixed linearly


def mix(a: Features, b: Features, amount: float = 0.5, method: str = "linear", shares: Tensor | None = None, warn=None) -> Features:
    """From `a` (amount 0) to `b` (amount 1), cell by cell; both ends come out bit for bit.

    Args:
        method: one of METHODS. linear mixes the numbers; spherical turns each feature's direction and keeps its length between the two.
        shares: (1 or b, rows, columns) in 0..1, multiplied with the amount: 0 keeps `a` in that cell.
        warn: called with a sentence when the two come from different towers.
    Raises:
        ValueError: which input is wrong, and what to do.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: choose one of {', '.join(METHODS)}.")
    if not 0 <= amount <= 1:
        raise ValueError(f"amount is {amount}: a mix lies between 0 (only a) and 1 (only b). To go beyond, use Feature Arithmetic.")
    x, y = _together({"a": a, "b": b}, warn)
    t = torch.full((1, a.grid[0] * a.grid[1], 1), float(amount))
    if shares is not None:
        t = t * _shares(shares, a.grid, len(x))
    return replace(a, tokens=_mixed(x, y, t.to(x), method))


def arithmetic(a: Features, b: Features, c: Features, amount: float = 1.0, warn=None) -> Features:
    """a + amount · (c - b): with amount 1, «a without b, with c instead». Where b equals c, `a` comes out bit for bit."""
    x, y, z = _together({"a": a, "b": b, "c": c}, warn)
    return replace(a, tokens=x + amount * (z - y))


def cell_shares(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A MASK (b,h,w) or (h,w), any size, to (b,rows,columns): the share of white in each cell.

    Raises:
        ValueError: not a mask, or one smaller than the grid.
    """
    if mask.ndim not in (2, 3) or not mask.numel():
        raise ValueError(f"mask: its shape is {tuple(mask.shape)}, a mask is (pictures, height, width). Connect a MASK output.")
    mask = mask.detach().float().cpu()
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.shape[-2] < grid[0] or mask.shape[-1] < grid[1]:
        raise ValueError(
            f"mask: it measures {mask.shape[-1]}x{mask.shape[-2]} pixels, fewer than the {grid[1]}x{grid[0]} cells of the "
            "features. Use a mask of the picture's size."
        )
    if not torch.isfinite(mask).all():
        raise ValueError("mask: it holds NaN or infinity. Make it anew.")
    return F.adaptive_avg_pool2d(mask, (grid[0], grid[1]))[:, 0].clamp(0, 1)


def portrait(features: Features, size: int = 512) -> tuple[Tensor, float]:
    """The grid as a picture: the first three principal components of all features of the batch as red, green and blue.

    Alike cells get alike colours, over the whole batch. The sign of each component is fixed, so the same features give the same picture.

    Args:
        size: pixels along the longer side; each cell is a flat square.
    Returns:
        (b,h,w,3) in 0..1, and the share of the variance that the three components hold (1 where all features are equal).
    """
    _together({"features": features}, None)
    b, n, c = features.tokens.shape
    x = features.tokens.detach().double().cpu().reshape(-1, c)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)
    k = min(3, c)
    axes = vectors[:, -k:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    seen = F.pad(x @ axes, (0, 3 - k))
    low, high = seen.amin(0), seen.amax(0)
    flat = (high - low) < 1e-9 * max(1.0, float(high.max() - low.min()))  # a component without variance is grey
    seen = torch.where(flat, torch.full_like(seen, 0.5), (seen - low) / (high - low).clamp_min(1e-30))
    rows, columns = features.grid
    cell = max(1, size // max(rows, columns))
    picture = seen.float().reshape(b, rows, columns, 3).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    total = float(values.clamp_min(0).sum())
    return picture, float(values[-k:].clamp_min(0).sum()) / total if total > 0 else 1.0


def _together(given: dict[str, Features], warn) -> list[Tensor]:
    """The tokens of each input in float32 on the CPU, at one batch size."""
    names, count = list(given), max(len(f) for f in given.values())
    first = given[names[0]]
    for name, f in given.items():
        if not len(f):
            raise ValueError(f"{name}: the batch of features is empty. Encode at least one picture.")
        if f.space != first.space or f.grid != first.grid or f.tokens.shape[-1] != first.tokens.shape[-1]:
            raise ValueError(
                f"{name}: the features are of the space '{f.space}', those of {names[0]} of '{first.space}'. Only features of "
                "one space can be put together: encode or generate both with the same model."
            )
        if len(f) not in (1, count):
            raise ValueError(
                f"{name}: it holds {len(f)} pictures, another input {count}. Use batches of one size, or a single picture, "
                "which goes with every other."
            )
        f.check_finite(name)
        if f.tower != first.tower and warn is not None:
            warn(f"{name} comes from the tower '{f.tower}', {names[0]} from '{first.tower}'. The result may differ in colour and detail.")
    return [f.tokens.detach().float().cpu().expand(count, -1, -1) for f in given.values()]


def _shares(shares: Tensor, grid: tuple[int, int], count: int) -> Tensor:
    if tuple(shares.shape[-2:]) != tuple(grid):
        raise ValueError(f"mask: {tuple(shares.shape[-2:])} cells do not fit features of {grid[0]}x{grid[1]}.")
    shares = shares.reshape(-1, grid[0] * grid[1], 1)
    if len(shares) not in (1, count):
        raise ValueError(f"mask: it holds {len(shares)} masks for {count} pictures. Use one mask for all, or one a picture.")
    return shares


def _mixed(x: Tensor, y: Tensor, t: Tensor, method: str) -> Tensor:
    """(b,n,c) from x at t = 0 to y at t = 1."""
    out = x + t * (y - x)
    if method == "spherical":
        long_x, long_y = x.norm(dim=-1, keepdim=True), y.norm(dim=-1, keepdim=True)
        u, v = (x / long_x.clamp_min(1e-12)).double(), (y / long_y.clamp_min(1e-12)).double()
        angle = torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True)) * 2
        sine, s = angle.sin(), t.double()
        turned = (((1 - s) * angle).sin() * u + (s * angle).sin() * v) / sine.clamp_min(PARALLEL)
        round_ = turned.to(x) * (long_x + t * (long_y - long_x))
        out = torch.where(sine > PARALLEL, round_, out)
    return torch.where(t == 0, x, torch.where(t == 1, y, out))
