"""Regional attention: a bias on the UNet's cross-attention by pixel and token, so that places hold.

    locality      a token weighs most near its own cell: exp(-d^2 / 2 s^2), d the distance of pixel and cell in cells, s `locality`
    references    further tokens, of cells inside the boxes of a picture in which the references stand; each acts inside its boxes only

b pictures · r rows of a UNet call · n tokens (rows x columns of the grid, row-major) · m further tokens · p pixels of a level · c width

The bias is added to attention's logits: log-weights. Nothing is learned, and nothing is patched where both are off. Here for diffusers'
UNet; nodes/host/regional.py puts the same bias into ComfyUI's. Sources: diffusers' attention processors; positional biases as in
Press et al. 2021 (arXiv 2108.12409) and Swin (arXiv 2103.14030); regional prompts as in Omost and attention-couple.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..box import Box
from ..config import ModelConfig
from ..features import Features, check_space

WHERE = "WeGen Regional Attention"
NARROWEST = 0.1  # cells: below it 16-bit logits overflow


@dataclass(frozen=True)
class RegionalAttention:
    """locality: in cells, 0 is off. features: of a picture (or b) in which the references stand in their boxes. strength: how much a
    reference's token weighs beside one of the picture's own, 0 is off."""

    locality: float = 0.0
    features: Features | None = None
    boxes: tuple[Box, ...] = ()
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.locality) or self.locality < 0 or 0 < self.locality < NARROWEST:
            raise ValueError(f"{WHERE}: locality is {self.locality}: it must be 0 (off) or at least {NARROWEST} cells.")
        if not math.isfinite(self.strength) or self.strength < 0:
            raise ValueError(f"{WHERE}: strength is {self.strength}: it must be 0 (off) or above.")
        if (self.features is None) != (not self.boxes):
            have, lack = ("boxes", "reference_features") if self.features is None else ("reference_features", "boxes")
            raise ValueError(
                f"{WHERE}: there are {have} but no {lack}. References need both: their boxes, and the features of a picture in which they stand "
                "there, such as the collage of WeGen Second Look through EVA-CLIP Encode. Connect both, or neither."
            )

    @property
    def has_references(self) -> bool:
        return self.features is not None and self.strength > 0

    @property
    def off(self) -> bool:
        return not self.locality and not self.has_references

    def check(self, config: ModelConfig) -> str | None:
        """Refuse a decoder that has no places to be biased by; a sentence where the bias will hardly be seen.

        Raises:
            ValueError: its tokens lie on no grid, or the features are of another space or grid.
        """
        c, note = config.decoder, None
        if min(c.grid) < 2:
            raise ValueError(
                f"{WHERE}: the tokens of the decoder '{config.name}' lie on no grid ({c.grid[0]}x{c.grid[1]}), so they have no places. "
                "Use it with a decoder whose features are cells of a picture."
            )
        if self.features is not None:
            where = f"{WHERE}, reference_features"
            self.features.check_finite(where)
            note = check_space(self.features, c.space, c.tower, f"the decoder '{config.name}'", where, width=c.width)
            if tuple(self.features.grid) != tuple(c.grid):
                raise ValueError(
                    f"{where}: their grid is {self.features.grid}, the decoder's {tuple(c.grid)}. Encode the picture with the decoder's model."
                )
            if self.has_references and not self.cells(c.grid):
                raise ValueError(
                    f"{WHERE}: no cell of the {c.grid[1]}x{c.grid[0]} features is more than half inside a box. Draw larger boxes."
                )
        if c.layout_channels:
            return (
                f"{config.name} reads its features from channels laid out beside the latents and hardly uses cross-attention, so regional "
                "attention changes next to nothing in its pictures. It is for decoders that read by attention, as the full-size ones do."
            )
        return note

    def cells(self, grid: Sequence[int]) -> dict[int, list[Box]]:
        """Cell -> the boxes that it is more than half inside of."""
        rows, columns = grid
        out: dict[int, list[Box]] = {}
        for box in self.boxes:
            for cell in range(rows * columns):
                y, x = divmod(cell, columns)
                share = _overlap(y, y + 1, box.y * rows, (box.y + box.height) * rows) * _overlap(
                    x, x + 1, box.x * columns, (box.x + box.width) * columns
                )
                if share > 0.5:
                    out.setdefault(cell, []).append(box)
        return out

    def logits(self, size: tuple[int, int], grid: Sequence[int]) -> Tensor:
        """(p,n+m) float32: the bias of a level of size (h,w) whose pixels lie on the grid as on the picture. Own tokens come first."""
        y, x = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size)
        rows, columns = grid
        far = ((y[:, None] * rows - 0.5 - torch.arange(rows)) ** 2)[:, None, :, None] + (
            (x[:, None] * columns - 0.5 - torch.arange(columns)) ** 2
        )[:, None]
        near = (
            -far.reshape(len(y) * len(x), rows * columns) / (2 * self.locality**2)
            if self.locality
            else torch.zeros(len(y) * len(x), rows * columns)
        )
        if not self.has_references:
            return near.float()
        extra = []
        for cell, boxes in self.cells(grid).items():
            inside = torch.zeros(len(y), len(x), dtype=torch.bool)
            for box in boxes:
                inside |= ((y >= box.y) & (y < box.y + box.height))[:, None] & ((x >= box.x) & (x < box.x + box.width))
            extra.append((near[:, cell] + math.log(self.strength)).masked_fill(~inside.reshape(-1), -math.inf))
        return torch.cat([near, torch.stack(extra, 1)], 1).float()


class AttentionBias:
    """A RegionalAttention at work: lengthens contexts, and gives the bias of each level, on the device and in the precision it is needed."""

    def __init__(
        self,
        regional: RegionalAttention,
        grid: Sequence[int],
        latent: tuple[int, int] = (0, 0),
        pictures: int = 1,
        conditional: Sequence[bool] = (True, False),
    ):
        """`latent`: height and width of the latents. `conditional`: whether references act in each chunk of so many `pictures` of a UNet
        call's rows; the default is the order of guidance.py."""
        self.regional, self.grid = regional, (grid[0], grid[1])
        self.latent, self.pictures, self.conditional = latent, pictures, tuple(conditional)
        self._kept: dict[Any, Tensor] = {}
        tokens = regional.features.tokens if regional.features is not None and regional.has_references else None
        self.tokens = None if tokens is None else tokens[:, list(regional.cells(grid))]  # (1 or b,m,c)

    @classmethod
    def of(cls, regional: RegionalAttention | None, latent: tuple[int, int], grid: Sequence[int], pictures: int) -> AttentionBias | None:
        """None where nothing is to be biased."""
        return None if regional is None or regional.off else cls(regional, grid, latent, pictures)

    def at(self, latent: tuple[int, int], pictures: int, conditional: Sequence[bool]) -> AttentionBias:
        """The same for another call; what was made for a level stays."""
        out = copy.copy(self)
        out.latent, out.pictures, out.conditional = latent, pictures, tuple(conditional)
        return out

    def lengthen(self, context: Tensor) -> Tensor:
        """(r,n,c) to (r,n+m,c).

        Raises:
            ValueError: the context is not one token for each cell, or there are reference features for another number of pictures.
        """
        n = self.grid[0] * self.grid[1]
        if context.shape[1] != n:
            raise ValueError(
                f"{WHERE}: a conditioning holds {context.shape[1]} tokens, and this decoder's grid has {n} cells ({self.grid[1]}x{self.grid[0]}). "
                "Tokens without a place (a text encoder's, or conditionings joined end to end or of different length) cannot be biased: use "
                "«Features to Conditioning» alone."
            )
        if self.tokens is None:
            return context
        own = self.tokens
        tokens = self._keep(("tokens", context.device, context.dtype), lambda: own.to(context.device, context.dtype))
        if len(tokens) not in (1, self.pictures):
            raise ValueError(
                f"{WHERE}: reference_features hold {len(tokens)} pictures, and {self.pictures} are painted. Use one for all, or one each."
            )
        if len(tokens) > 1:
            tokens = tokens.repeat(len(context) // len(tokens), 1, 1)
        return torch.cat([context, tokens.expand(len(context), -1, -1)], 1)

    def mask(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """(r,1,p,n+m), or (1,1,p,n) where all rows have the same: the bias of a level of size (h,w) for r rows like (r,…)."""
        key = (size, like.device, like.dtype)
        with_references = self._keep(key, lambda: self.regional.logits(size, self.grid).to(like.device, like.dtype))
        if self.tokens is None:
            return with_references[None, None]
        n = self.grid[0] * self.grid[1]
        without = self._keep(
            (*key, "without"), lambda: torch.cat([with_references[:, :n], torch.full_like(with_references[:, n:], -math.inf)], 1)
        )
        chunks = [self.conditional[k // self.pictures] for k in range(len(like))]
        return torch.stack([with_references if conditional else without for conditional in chunks])[:, None]

    def _keep(self, key: Any, make: Any) -> Tensor:
        if key not in self._kept:
            if len(self._kept) > 64:  # of sizes before
                self._kept.clear()
            self._kept[key] = make()
        return self._kept[key]


def level(latent: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Height and width of the UNet's level that has so many pixels: each is half the one before, rounded up."""
    height, width = latent
    while height * width > pixels:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != pixels:
        raise ValueError(
            f"{WHERE}: the UNet has a level of {pixels} pixels, which is none of a {latent[1]}x{latent[0]} latent. Another patch resizes it."
        )
    return height, width


class BiasedProcessor:
    """A diffusers attention processor around another: longer context, and the bias as its mask."""

    def __init__(self, inner: Any, bias: AttentionBias):
        self.inner, self.bias = inner, bias

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask=None, temb=None) -> Tensor:
        context = self.bias.lengthen(encoder_hidden_states)
        mask = self.bias.mask(level(self.bias.latent, hidden_states.shape[1]), hidden_states)[:, 0]
        return self.inner(attn, hidden_states, context, mask.expand(len(hidden_states), -1, -1), temb)


@contextmanager
def biased(unet: Any, bias: AttentionBias | None) -> Iterator[None]:
    """A diffusers UNet whose cross-attention is biased for the duration; as it is where there is no bias."""
    if bias is None:
        yield
        return
    before = unet.attn_processors
    unet.set_attn_processor({name: BiasedProcessor(p, bias) if ".attn2." in name else p for name, p in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def _overlap(a: float, b: float, c: float, d: float) -> float:
    return max(0.0, min(b, d) - max(a, c))
