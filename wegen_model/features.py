"""The features that everything shares: the `Features` value, whose space they are of, pooling to the grid, and their file.

b pictures · n features (rows x columns of the grid, row-major) · c feature width

Source: the public WeGen code (`AvgPoolQuery`, `AvgPoolProjector`): 1024 tokens -> 4x4 average -> 64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .fileio import atomic


@dataclass(frozen=True)
class Features:
    """`tokens` (b,n,c) raw, float; `grid` (rows, columns); `space` and `tower` say who understands them."""

    tokens: Tensor
    grid: tuple[int, int]
    space: str
    tower: str

    def __post_init__(self):
        t = self.tokens
        if min(self.grid) < 1 or t.ndim != 3 or t.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(f"features: tokens are {tuple(t.shape)}, expected (b, {self.grid[0] * self.grid[1]}, c).")

    @property
    def pooled(self) -> Tensor:
        """(b,c): the mean over the n features, the decoder's second condition."""
        return self.tokens.mean(1)

    def __str__(self) -> str:
        rows, columns = self.grid
        return f"{len(self)} x {rows}x{columns} features of {self.tokens.shape[-1]} numbers, space {self.space}, tower {self.tower}"

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: slice) -> Features:
        return replace(self, tokens=self.tokens[index])

    def repeat(self, times: int) -> Features:
        """Each picture's features `times` times, one after another."""
        return replace(self, tokens=self.tokens.repeat_interleave(times, 0))

    def to(self, *args, **kwargs) -> Features:
        return replace(self, tokens=self.tokens.to(*args, **kwargs))

    def check_finite(self, where: str) -> None:
        bad = (~torch.isfinite(self.tokens)).sum().item()
        if bad:
            raise ValueError(
                f"{where}: {bad} of the features' values are NaN or infinite. Where do they come from? "
                "A 16-bit overflow upstream is the usual cause; encode or generate them anew in a wider precision."
            )


def check_space(features: Features, space: str, tower: str, reader: str, where: str, width: int | None = None) -> str | None:
    """Error when the features are of another space than the reader's; a warning text when only the tower differs.

    `width`: what each feature must measure; an empty batch is an error too.
    """
    if not len(features):
        raise ValueError(f"{where}: the batch of features is empty. Encode at least one picture.")
    if features.space != space:
        raise ValueError(
            f"{where}: the features are of the space '{features.space}', but {reader} reads '{space}'. "
            f"Encode or generate them with a model of '{space}', or load a decoder made for '{features.space}'."
        )
    if width is not None and features.tokens.shape[-1] != width:
        raise ValueError(
            f"{where}: each feature has {features.tokens.shape[-1]} numbers, {reader} reads {width}. The file or node that "
            "made them is not of this model; encode the picture again."
        )
    if features.tower != tower:
        return (
            f"{where}: the features come from the tower '{features.tower}', {reader} was trained with '{tower}'. "
            "The picture may differ in colour and detail."
        )
    return None


def pool(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(b,p,c) of a square patch grid to (b,n,c): mean over equal blocks, row-major. Already n tokens: passes through."""
    b, p, c = tokens.shape
    side = int(p**0.5)
    rows, columns = grid
    if side * side != p or side % rows or side % columns:
        raise ValueError(f"pooling: {p} tokens cannot be averaged to {rows}x{columns} equal blocks.")
    if (side, side) == tuple(grid):
        return tokens
    x = tokens.transpose(1, 2).reshape(b, c, side, side)
    return F.avg_pool2d(x, (side // rows, side // columns)).flatten(2).transpose(1, 2)


def mosaic(tokens: Tensor, grid: tuple[int, int], cell: int = 1) -> Tensor:
    """(k,c) features, the first k cells of the grid -> a picture (rows*cell,columns*cell,3) in 0..1, one colour a cell, dark where none is
    yet. `cell` in pixels.

    Colours are three fixed random directions, standardised over the cells: like features look alike; a colour means nothing by itself.
    """
    k, c = tokens.shape
    directions = torch.randn(c, 3, generator=torch.Generator().manual_seed(0))
    x = (tokens.detach().float().cpu() - tokens.detach().float().cpu().mean(0)) @ directions
    out = torch.full((grid[0] * grid[1], 3), 0.12)
    out[:k] = torch.sigmoid(1.3 * x / x.std(0, unbiased=False).clamp_min(1e-6)).nan_to_num(0.5)
    return out.reshape(*grid, 3).repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def save_features(features: Features, path: str | Path) -> None:
    """One safetensors: `tokens` float32, and grid, space and tower as metadata. Written beside and renamed."""
    from safetensors.torch import save_file

    meta = {"format": "wegen-features-1", "space": features.space, "tower": features.tower, "grid": "x".join(map(str, features.grid))}
    with atomic(path) as part:
        save_file({"tokens": features.tokens.float().contiguous()}, part, meta)


def load_features(path: str | Path) -> Features:
    """Read what `save_features` wrote; anything else is an error that says so."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            meta, tokens = f.metadata() or {}, f.get_tensor("tokens")
        rows, columns = meta["grid"].split("x")
        if not tokens.is_floating_point() or not tokens.numel():
            raise ValueError(f"tokens are {tuple(tokens.shape)} of {str(tokens.dtype).removeprefix('torch.')}")
        wide = tokens if tokens.dtype == torch.float32 else tokens.float()
        return Features(wide, (int(rows), int(columns)), meta["space"], meta["tower"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no WeGen features ({error}). `wegen encode` and the save node write them.") from error
