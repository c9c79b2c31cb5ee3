"""The start of training from stock models (`wegen convert --initialise`): what fits is copied, the rest is initialised at random.

- LLaMA-2 with 32000 tokens: 330 rows behind the others, in the input and the output embedding, normal with deviation 0.02, as the
  public code's `resize_token_embeddings` leaves them.
- A stock SDXL UNet: the 140 `attn2.to_k` and `attn2.to_v` and the feature columns of `add_embedding.linear_1` are drawn as a new
  linear layer's; the columns of the six size embeddings, which follow, are copied.

Drawn numbers depend on the tensor's name alone, so that an interrupted conversion goes on as it began.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ..chat.tokenizer import special_tokens
from .tensor_file import Spec
from .tensors import LazyTensor

PLAIN_VOCABULARY = 32000
ADDED = len(special_tokens(0))
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
CROSS = (".attn2.to_k.weight", ".attn2.to_v.weight")
ADDITION = "add_embedding.linear_1.weight"


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))


def linear(shape: tuple[int, ...], key: str) -> Tensor:
    """A new linear layer's weight: uniform within 1/sqrt(columns), torch's default."""
    return (torch.rand(shape, generator=_generator(key)) * 2 - 1) / shape[1] ** 0.5


def adapts(part: str, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Would this part of a stock model become the expected one by `adapt`?"""
    if part not in ("language", "unet") or set(shapes) != set(expected):
        return False
    different = {key for key in expected if shapes[key] != expected[key]}
    if part == "language":
        return different == set(EMBEDDINGS) and all(
            shapes[k] == (PLAIN_VOCABULARY, expected[k][1]) and expected[k][0] == PLAIN_VOCABULARY + ADDED for k in EMBEDDINGS
        )
    return (
        any(key.endswith(CROSS) for key in different)
        and all(key == ADDITION or key.endswith(CROSS) for key in different)
        and all(shapes[k][0] == expected[k][0] for k in different)
    )


def adapt(key: str, source: LazyTensor, shape: tuple[int, ...], time_columns: int) -> LazyTensor:
    """A tensor changed to the shape that is expected.

    Args:
        shape: what it should have. time_columns: how many of `add_embedding.linear_1`'s last columns are copied.
    """
    spec, make = source
    if spec.shape == shape:
        return source

    def rows() -> Tensor:
        old = make()
        new = torch.randn(shape[0] - len(old), shape[1], generator=_generator(key)) * 0.02
        return torch.cat([old, new.to(old.dtype)])

    def columns() -> Tensor:
        new = linear(shape, key).to(spec.dtype)
        if key == ADDITION:
            new[:, shape[1] - time_columns :] = make()[:, spec.shape[1] - time_columns :]
        return new

    return Spec(shape, spec.dtype), rows if key in EMBEDDINGS else columns
