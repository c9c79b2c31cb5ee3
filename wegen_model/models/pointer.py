"""A pointer over pictures: each written feature is a mixture of the model's own prediction and the features in the same slot of pictures
shown before.

b rows · r pictures, latest first · t slots · c feature width · d model width · k width of the keys

    x_i = p_0 g_i + sum_r p_r (s_ri + change(s_ri, h_i))        p = softmax(own(h_i), query(h_i) · key(s_ri))

`change` is a layer of hidden units, with as many residual blocks in it as `FeatureConfig.pointer_blocks` says: to see a thing on another
colour than it is shown on is no linear matter.

Source: pointer-generator networks (See et al. 2017, arXiv 1704.04368), with features for words. An option of small models, whose few
layers learn late to carry a picture through (the miniature); the public checkpoints do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST = 8  # pictures that can be pointed at; of more, the latest
KEYS = 64
HIDDEN = 256


@dataclass
class Shown:
    """Pictures before the one that is written, latest first: normalised features (b,r,n,c), and a mask (b,r) of those present."""

    tokens: Tensor
    there: Tensor

    @classmethod
    def of(cls, pictures: list[list[Tensor]], like: Tensor) -> Shown | None:
        """From each row's pictures (n,c) in the order of the conversation; None when no row has any."""
        latest = [row[::-1][:MOST] for row in pictures]
        most = max(map(len, latest), default=0)
        if not most:
            return None
        n, c = next(p for row in latest for p in row).shape
        tokens = torch.zeros(len(latest), most, n, c, device=like.device, dtype=like.dtype)
        there = torch.zeros(len(latest), most, device=like.device, dtype=torch.bool)
        for b, row in enumerate(latest):
            for r, picture in enumerate(row):
                tokens[b, r], there[b, r] = picture.to(like), True
        return cls(tokens, there)

    def slots(self, first: int, count: int) -> Shown:
        return Shown(self.tokens[:, :, first : first + count], self.there)


class Block(nn.Module):
    """A residual block of the hidden units (…,HIDDEN)."""

    def __init__(self, ops: Any = nn):
        super().__init__()
        self.norm = ops.LayerNorm(HIDDEN)
        self.up = ops.Linear(HIDDEN, 2 * HIDDEN)
        self.down = ops.Linear(2 * HIDDEN, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class Pointer(nn.Module):
    def __init__(self, features: int, width: int, ops: Any = nn, blocks: int = 0):
        super().__init__()
        self.query = ops.Linear(width, KEYS, bias=False)
        self.key = ops.Linear(features, KEYS, bias=False)
        self.recency = ops.Embedding(MOST, KEYS)  # added to the keys: the latest picture, the one before, …
        self.own = ops.Linear(width, 1, bias=True)
        self.seen = ops.Linear(features, HIDDEN, bias=False)
        self.asked = ops.Linear(width, HIDDEN, bias=False)
        self.blocks = nn.Sequential(*(Block(ops) for _ in range(blocks)))
        self.change = ops.Linear(HIDDEN, features, bias=False)

    def forward(self, hidden: Tensor, guess: Tensor, shown: Shown) -> Tensor:
        """(b,t,c) mixed features, from hidden states (b,t,d), the model's own prediction (b,t,c), and the pictures shown at those t slots."""
        tokens = shown.tokens.to(hidden.dtype)
        order = self.recency(torch.arange(tokens.shape[1], device=tokens.device))
        keys = self.key(tokens) + order[None, :, None]
        match = (self.query(hidden)[:, None] * keys).sum(-1) / KEYS**0.5
        match = match.masked_fill(~shown.there[..., None], -torch.inf)
        p = torch.cat([self.own(hidden).movedim(-1, 1), match], 1).float().softmax(1).to(guess.dtype)[..., None]
        changed = tokens + self.change(F.silu(self.blocks(self.seen(tokens) + self.asked(hidden)[:, None])))
        return p[:, 0] * guess + (p[:, 1:] * changed).sum(1)
