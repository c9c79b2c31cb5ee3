"""Converts tensors of public files to this project's, and back: one case for each value of `KeyRule.how`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..config import ModelConfig
from ..models.eva_clip import resize_positions
from ..models.quantization import KINDS, is_quantized, quantize
from .gguf import to_rotary_pairs
from .key_map import HALVES, KeyRule
from .model_paths import CheckpointError
from .scan import Piece
from .tensor_file import Spec

LazyTensor = tuple[Spec, Callable[[], Tensor]]  # shape and precision, and the function that makes it


def assemble(pieces: list[Piece], config: ModelConfig) -> LazyTensor:
    """Shape and precision of one of our tensors, and the function that makes it from its pieces."""
    hows = {piece.rule.how: piece for piece in pieces}
    if len(hows) != len(pieces) or (len(hows) > 1 and set(hows) != set(HALVES)):
        raise CheckpointError(
            f"{pieces[0].file.path}: {' and '.join(p.key for p in pieces)} are two sources of one tensor. "
            "Is the file a mixture of two layouts?"
        )
    first = pieces[0]
    shape, dtype = first.spec.shape, first.spec.dtype  # without the quantization kind: what is made is unquantized

    def read() -> Tensor:
        return first.file.read(first.key)

    how = first.rule.how
    if how in HALVES:
        if len(hows) != 2:
            have, lack = ("q_bias", "v_bias") if how == "q" else ("v_bias", "q_bias")
            raise CheckpointError(
                f"{first.file.path}: {first.key} is there, its {lack} is not. EVA-CLIP stores both or a fused "
                f"qkv.bias; with {have} alone the file is incomplete."
            )
        q, v = hows["q"], hows["v"]

        def fuse() -> Tensor:
            bias = q.file.read(q.key)
            return torch.cat([bias, torch.zeros_like(bias), v.file.read(v.key)])

        return Spec((2 * q.spec.shape[0] + v.spec.shape[0],), q.spec.dtype), fuse
    if how == "positions":
        side, count = config.vision.side, shape[1]
        if math.isqrt(count - 1) ** 2 != count - 1:
            raise CheckpointError(f"{first.file.path}: {first.key} has {count} positions, which are not one class token and a square grid.")
        if count != 1 + side * side:
            return Spec((1, 1 + side * side, shape[2]), dtype), lambda: resize_positions(read(), side)
    if how == "pointwise" and len(shape) == 4 and shape[2:] == (1, 1):  # a 1x1 convolution where we have a linear layer
        return Spec(shape[:2], dtype), lambda: read()[:, :, 0, 0]
    return Spec(shape, dtype), read  # "rotary": gguf.py gives the rows in our order


def lay_in_blocks(
    part: str, tensors: dict[str, LazyTensor], pieces: dict[str, list[Piece]], kind: str, keep: bool
) -> tuple[dict[str, LazyTensor], int]:
    """A component's tensors with its matrices quantized, and how many stay unquantized because their rows do not divide into blocks.

    Args:
        kind: to quantize to (one of quantization.MADE), or empty.
        keep: quantized tensors of the source are copied as they are, unless `kind` says otherwise; else they are dequantized.
    """
    out, left = dict(tensors), 0
    for key, (spec, make) in tensors.items():
        if not is_quantized(part, key, spec.shape):
            continue
        piece = pieces[key][0]
        there = piece.spec.kind if len(pieces[key]) == 1 and piece.file.blocks else ""
        wanted = kind or (there if keep and there in KINDS else "")
        if not wanted:
            continue
        if not KINDS[wanted].fits(spec.shape[1]):
            left += 1
            continue
        stored = Spec((spec.shape[0], KINDS[wanted].row(spec.shape[1])), torch.uint8, wanted)
        if there == wanted and piece.file.blocks:
            out[key] = stored, partial(piece.file.blocks, piece.key)
        else:
            out[key] = stored, partial(_quantized, make, wanted)
    return out, left


def _quantized(make: Callable[[], Tensor], kind: str) -> Tensor:
    return quantize(make(), kind)


def disassemble(key: str, target: str, rule: KeyRule, source: LazyTensor, config: ModelConfig) -> LazyTensor:
    """The public tensor `key` made from ours.

    Raises:
        CheckpointError: (when it is made) the layout cannot hold what is there: a key bias that is not zero.
    """
    spec, make = source
    if rule.how in HALVES:
        width = spec.shape[0] // 3

        def third() -> Tensor:
            q, k, v = make().chunk(3)
            if k.count_nonzero():
                raise CheckpointError(
                    f"{target} holds a key bias that is not zero; this layout stores {key} and no key bias, so the "
                    "tower cannot be written in it. Choose the layout «eva-tower»."
                )
            return q if rule.how == "q" else v

        return Spec((width,), spec.dtype), third
    if rule.how == "pointwise":
        return Spec((*spec.shape, 1, 1), spec.dtype), lambda: make()[:, :, None, None]
    if rule.how == "rotary":
        return Spec(spec.shape, spec.dtype), lambda: to_rotary_pairs(make(), config.language.heads)
    return source
