"""Quantized linear weights, in blocks of 8 or 4 bits: the formats, and the layer that computes with them.

o rows (outputs) · i columns (inputs) · a row is a chain of blocks; a block holds n values and their scale

    Q8_0   n 32    2 bytes of scale (float16), 32 of int8                                    8.5  bits a value
    Q4_0   n 32    2 bytes of scale, 16 of two values each                                   4.5
    Q4_K   n 256   scale and minimum of 8 groups of 32 (read from GGUF, not made here)       4.5
    Q6_K   n 256   as it stands beside Q4_K in public files (read only)                      6.56
    FP8    n i     the whole row: 4 bytes of scale (float32), then float8 e4m3               8 and a little

Only the matrices between the embeddings are kept so (`is_quantized`): projectors, norms, embeddings and the output head stay in 16
bits, since an error in them affects every feature. Weights are dequantized layer by layer when they are used, to the precision of the
input: memory of 8 or 4 bits, arithmetic of 16. That costs time (docs/real-weights.md), and works on every device.

Source: GGML's block formats; tests hold them against the `gguf` package bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Linear
from torch.nn import functional as F

from ..config import QUANTIZATIONS

CHUNK = 256  # rows quantized at once: nothing is held twice in 32 bits
INSIDE = {"vision": "blocks.", "language": "model.layers."}  # where a part's quantized matrices are


def is_quantized(part: str, key: str, shape: tuple[int, ...]) -> bool:
    """Is this tensor one of the matrices that may be quantized?"""
    return part in INSIDE and key.startswith(INSIDE[part]) and key.endswith(".weight") and len(shape) == 2


# --- formats: float32 (k,n) values of k blocks <-> uint8 (k,bytes) ---------------------------------------------------


def _halves(scale: Tensor) -> Tensor:
    return scale.to(torch.float16).view(torch.uint8)


def _float(blocks: Tensor, start: int, dtype: torch.dtype = torch.float16) -> Tensor:
    """(…,1) float32 of the scale that begins at byte `start`."""
    return blocks[..., start : start + dtype.itemsize].contiguous().view(dtype).float()


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _make_q8_0(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 127
    q = x * _inverse(scale)
    q = q.sign() * (q.abs() + 0.5).floor()  # half away from zero, as GGML rounds
    return torch.cat([_halves(scale), q.to(torch.int8).view(torch.uint8)], -1)


def _read_q8_0(blocks: Tensor) -> Tensor:
    return blocks[..., 2:].view(torch.int8) * _float(blocks, 0)


def _make_q4_0(x: Tensor) -> Tensor:
    largest = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    scale = largest / -8  # the largest value takes the end that reaches farther
    q = (x * _inverse(scale) + 8.5).to(torch.uint8).clamp_(max=15)
    return torch.cat([_halves(scale), q[..., :16] | q[..., 16:] << 4], -1)


def _nibbles(q: Tensor) -> Tensor:
    """(…,m) bytes to (…,2m) numbers of 4 bits, the low ones first."""
    return torch.cat([q & 15, q >> 4], -1)


def _read_q4_0(blocks: Tensor) -> Tensor:
    return (_nibbles(blocks[..., 2:]).view(torch.int8) - 8) * _float(blocks, 0)


def _read_q4_k(blocks: Tensor) -> Tensor:
    packed = blocks[..., 4:16]
    a, b, c = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = torch.cat([a & 63, c & 15 | a >> 2 & 48], -1)
    minima = torch.cat([b & 63, c >> 4 | b >> 2 & 48], -1)
    q = _nibbles(blocks[..., 16:].unflatten(-1, (4, 32))).unflatten(-1, (2, 32)).flatten(-3, -2)
    values = q * (scales * _float(blocks, 0))[..., None] - (minima * _float(blocks, 2))[..., None]
    return values.flatten(-2)


def _read_q6_k(blocks: Tensor) -> Tensor:
    low, high, scales = blocks[..., :128], blocks[..., 128:192], blocks[..., 192:208].view(torch.int8)
    low = _nibbles(low.unflatten(-1, (2, 64))).unflatten(-1, (4, 32))  # (…,2,4,32)
    high = torch.stack([high.unflatten(-1, (2, 32)) >> s & 3 for s in (0, 2, 4, 6)], -2)
    q = (low | high << 4).view(torch.int8) - 32
    values = q.flatten(-3).unflatten(-1, (16, 16)) * (scales * _float(blocks, 208))[..., None]
    return values.flatten(-2)


def _make_fp8(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 448  # float8 e4m3 reaches 448
    q = (x * _inverse(scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return torch.cat([scale.view(torch.uint8), q.view(torch.uint8)], -1)


def _read_fp8(blocks: Tensor) -> Tensor:
    return blocks[..., 4:].contiguous().view(torch.float8_e4m3fn).float() * _float(blocks, 0, torch.float32)


@dataclass(frozen=True)
class Kind:
    """A format. `values` and `bytes` of a block; values 0: the whole row, with `bytes` more than its values."""

    values: int
    bytes: int
    read: Callable[[Tensor], Tensor]
    make: Callable[[Tensor], Tensor] | None = None

    def row(self, columns: int) -> int:
        """Bytes of a row of so many columns."""
        return columns // self.values * self.bytes if self.values else columns + self.bytes

    def columns(self, row: int) -> int:
        """Columns of a row of so many bytes."""
        return row // self.bytes * self.values if self.values else row - self.bytes

    def fits(self, columns: int) -> bool:
        """Do rows of so many columns divide into whole blocks?"""
        return not self.values or columns % self.values == 0


KINDS = {
    "Q8_0": Kind(32, 34, _read_q8_0, _make_q8_0),
    "Q4_0": Kind(32, 18, _read_q4_0, _make_q4_0),
    "FP8": Kind(0, 4, _read_fp8, _make_fp8),
    "Q4_K": Kind(256, 144, _read_q4_k),
    "Q6_K": Kind(256, 210, _read_q6_k),
}
MADE = tuple(name.upper() for name in QUANTIZATIONS)  # what `quantize` offers; each has a `make`


def quantize(values: Tensor, kind: str) -> Tensor:
    """Quantizes (o,i) of any float precision to uint8 (o,bytes of a row)."""
    k = KINDS[kind]
    if not k.fits(values.shape[1]):
        raise ValueError(f"rows of {values.shape[1]} values are no whole {kind} blocks of {k.values}.")
    if k.make is None:
        raise ValueError(f"{kind} is only read; what can be made is {', '.join(QUANTIZATIONS)}.")
    out = torch.empty(len(values), k.row(values.shape[1]), dtype=torch.uint8)
    for start in range(0, len(values), CHUNK):
        x = values[start : start + CHUNK].float()
        x = x.unflatten(-1, (-1, k.values)) if k.values else x[:, None]
        out[start : start + CHUNK] = k.make(x).flatten(1)
    return out


def dequantize(blocks: Tensor, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Dequantizes (o,bytes of a row) to (o,i), multiplied in float32 and rounded once."""
    k = KINDS[kind]
    blocks = blocks.unflatten(-1, (-1, k.bytes)) if k.values else blocks[:, None]
    return k.read(blocks).flatten(1).to(dtype)


# --- the layer ----------------------------------------------------------------------------------------------------


class QuantizedLinear(nn.Module):
    """y = x W^T + b with W quantized: `weight` uint8 (o,bytes of a row), `bias` (o,) in 16 bits or None."""

    def __init__(self, in_features: int, out_features: int, kind: str, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features, self.kind = in_features, out_features, kind
        shape = (out_features, KINDS[kind].row(in_features))
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features, device="meta"), requires_grad=False) if bias else None

    def compute(self, x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, dequantize(blocks, self.kind, x.dtype), bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias is None else self.bias.to(x)
        return self.compute(x, self.weight.to(x.device), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kind}, bias={self.bias is not None}"


def replace_linears(module: nn.Module, kinds: Mapping[str, str], layer: type[QuantizedLinear] = QuantizedLinear) -> None:
    """Put a QuantizedLinear in place of each linear layer whose weight, by its key, is quantized. Other keys are left to the loader."""
    modules = dict(module.named_modules())
    for key, kind in kinds.items():
        name = key.removesuffix(".weight")
        linear = modules.get(name)
        if isinstance(linear, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            setattr(modules[parent], leaf, layer(linear.in_features, linear.out_features, kind, linear.bias is not None))


def dequantize_linear(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace each QuantizedLinear by a plain linear layer of the same values, one after another."""
    for owner in list(module.modules()):
        for leaf, old in list(owner.named_children()):
            if isinstance(old, QuantizedLinear):
                with torch.device("meta"):
                    new = Linear(old.in_features, old.out_features, old.bias is not None)
                new.weight = nn.Parameter(dequantize(old.weight, old.kind, dtype), requires_grad=False)
                if old.bias is not None:
                    new.bias = nn.Parameter(old.bias.detach().to(dtype), requires_grad=False)
                setattr(owner, leaf, new)
    return module


def scratch_bytes(module: nn.Module) -> int:
    """Bytes that dequantizing the largest layer takes: float32 beside the wanted precision, at most 8 bytes a value."""
    return max((8 * m.in_features * m.out_features for m in module.modules() if isinstance(m, QuantizedLinear)), default=0)
