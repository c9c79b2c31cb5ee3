"""The two projectors between features and the language model, and the options that small models add to them.

b rows · t positions · n features · c feature width · d language-model width

Source: the public WeGen code (`LinearProjector`): 1792 -> 4096 and 4096 -> 1792 without bias. Its scalar `scale` is never used and is
dropped on conversion.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import FeatureConfig
from .box_embedding import Regions
from .pointer import Pointer, Shown


class Projector(nn.Module):
    def __init__(self, width_in: int, width_out: int, ops: Any):
        super().__init__()
        self.proj = ops.Linear(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Projectors(nn.Module):
    """Features (…,c) into the language model's width (…,d) and back; z-scored on the way when the model says so."""

    def __init__(self, config: FeatureConfig, width: int, operations: Any = nn):
        super().__init__()
        self.config = config
        self.input_resampler = Projector(config.width, width, operations)
        self.output_resampler = Projector(width, config.width, operations)
        if config.pointer:
            self.pointer = Pointer(config.width, width, operations, config.pointer_blocks)
        self.regions = Regions(width, config.grid, operations) if config.regions else None
        if config.normalised:
            self.mean = nn.Parameter(torch.zeros(config.width), requires_grad=False)
            self.std = nn.Parameter(torch.ones(config.width), requires_grad=False)

    def normalise(self, tokens: Tensor) -> Tensor:
        """Raw features to the space in which they are predicted and compared."""
        return (tokens - self.mean.to(tokens)) / self.std.to(tokens) if self.config.normalised else tokens

    def denormalise(self, tokens: Tensor) -> Tensor:
        return tokens * self.std.to(tokens) + self.mean.to(tokens) if self.config.normalised else tokens

    def read(self, tokens: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Raw features -> input embeddings, computed in `dtype`."""
        return self.input_resampler(self.normalise(tokens).to(dtype or tokens.dtype))

    def predict(self, hidden: Tensor, shown: Shown | None = None) -> Tensor:
        """Hidden states (b,t,d) -> features, normalised as `normalise` does (raw when the model does not z-score).

        `shown`: what earlier pictures hold in these t slots; read by models that point.
        """
        guess = self.output_resampler(hidden)
        return guess if shown is None or not self.config.pointer else self.pointer(hidden, guess, shown)

    def write(self, hidden: Tensor, shown: Shown | None = None) -> Tensor:
        """Hidden states -> raw features, float32."""
        return self.denormalise(self.predict(hidden, shown).float())
