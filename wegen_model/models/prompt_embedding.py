"""Prompts as input embeddings of the language model: words, features at their places, and box embeddings. Training and generation
use this one function.

b prompts · t tokens (padded on the right) · m pictures of all prompts · n features · c feature width · d model width
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..box import BOX_IDS
from .box_embedding import Regions
from .llama import Language
from .projectors import Projectors

if TYPE_CHECKING:
    from ..box import Box


def embed_prompts(
    language: Language,
    projectors: Projectors,
    ids: Tensor,
    place: Tensor,
    fed: Tensor,
    *,
    boxes: Sequence[tuple[int, int, int]] = (),
    regions: Sequence[Sequence[Box]] = (),
    blank: Tensor | None = None,
) -> Tensor:
    """(b,t,d) input embeddings.

    Args:
        ids: (b,t) token ids. place: (m,2) prompt and position of the first feature of each picture.
        fed: (m,n,c) the pictures' features, normalised as `Projectors.normalise` does, in the precision to compute in.
        boxes: of users' turns: prompt, where a box's ids begin, its number in its turn. Used by models with box embeddings.
        regions: (m) the boxes that each written picture was asked to keep to; empty for those that are read.
        blank: (m,) True where a picture's places keep the placeholders' own embeddings (parallel writing).
    """
    x = language.embed(ids)
    if len(place):
        n = fed.shape[1]
        at = place[:, 1:] + torch.arange(n, device=x.device)
        prompt = place[:, :1].expand(-1, n)
        features = projectors.input_resampler(fed)
        own = x[prompt, at]
        if projectors.config.slot_embedding:
            features = features + own
        if blank is not None:
            features = torch.where(blank[:, None, None], own, features)
        x = x.index_put((prompt, at), features.to(x.dtype))
    return x if projectors.regions is None else _tell_boxes(x, projectors.regions, place, boxes, regions)


def _tell_boxes(
    x: Tensor, codes_of: Regions, place: Tensor, boxes: Sequence[tuple[int, int, int]], regions: Sequence[Sequence[Box]]
) -> Tensor:
    """Embeddings (b,t,d) with the embeddings of box numbers added at the boxes' ids, and each slot's box embedding where the slot is predicted."""
    if boxes:
        prompt, at, number = (torch.tensor(v, device=x.device) for v in zip(*boxes))
        at = at[:, None] + torch.arange(BOX_IDS, device=x.device)
        codes = codes_of.numbers(number.tolist(), x.device)[:, None].expand(-1, BOX_IDS, -1)
        x = x.index_put((prompt[:, None].expand(-1, BOX_IDS), at), codes.to(x.dtype), accumulate=True)
    told = [m for m, asked in enumerate(regions) if asked]
    if told:
        codes = codes_of([regions[m] for m in told], x.device)
        n = codes.shape[1]
        at = place[told, 1:] - 1 + torch.arange(n, device=x.device)
        x = x.index_put((place[told, :1].expand(-1, n), at), codes.to(x.dtype), accumulate=True)
    return x
