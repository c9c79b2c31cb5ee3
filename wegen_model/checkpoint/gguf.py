"""GGUF files of the LLaMA architecture: header and raw blocks, in our names and our row order. Nothing is mapped or dequantised here
unless it is asked for.

o rows (outputs) · i columns (inputs) · blocks run along a row, so rows can be reordered without touching them

Source: the GGUF specification (versions 2 and 3, little endian) and llama.cpp's converter, which reorders the rows of the query and
key projections for its own rotary layout: per head (2, d/2) becomes (d/2, 2). That is undone here. Block formats are those of the
`gguf` package, which is imported late and needed only for sizes and dequantisation.

Why the header is read here and not by gguf.GGUFReader: that one maps the whole file, makes objects of every word of the vocabulary, and
trusts the lengths that it finds. Here tensors stream one at a time, long arrays are skipped, and a cut or damaged file is an error.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .formats.llama import GGUF
from .model_paths import CheckpointError

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # kinds that are no blocks
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
COUNTS = ("split.count", "llama.attention.head_count", "llama.attention.head_count_kv", "llama.context_length")
NUMBERS = ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base")
_KEPT = 64  # longer arrays (the vocabulary) are represented by their length
_ROWS = 1024  # dequantised at once


@dataclass
class GGUFTensor:
    """One tensor. `blocks`: uint8 (rows, bytes of a row), as stored, query and key rows in Hugging Face's order."""

    name: str  # ours: Hugging Face's, as model.layers.0.self_attn.q_proj.weight
    kind: str  # GGML's name: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K, …
    shape: tuple[int, ...]  # (o,i), or (i,) of a norm
    blocks: Tensor

    def dequantize(self, dtype: torch.dtype = torch.float16) -> Tensor:
        """The values, (o,i): a thousand rows at a time, so that nothing is held twice in 32 bits."""
        if self.kind in PLAIN:
            return self.blocks.reshape(-1).view(PLAIN[self.kind]).reshape(self.shape).to(dtype)
        out = torch.empty(len(self.blocks), self.shape[-1], dtype=dtype)
        kind, quants = _kind(self.kind), _gguf().quants
        for start in range(0, len(out), _ROWS):
            rows = quants.dequantize(self.blocks[start : start + _ROWS].numpy(), kind)
            out[start : start + _ROWS] = torch.from_numpy(rows).to(dtype)
        return out.reshape(self.shape)


@dataclass(frozen=True)
class Entry:
    """Where a tensor is in the file."""

    key: str  # in the file: blk.0.attn_q.weight
    name: str  # ours; empty: not part of our model
    how: str  # "copy", or "rotary" for reordered rows
    kind: str
    shape: tuple[int, ...]
    offset: int  # bytes from the file's beginning
    bytes: int


def read_tensor(f: BufferedReader, entry: Entry, heads: int) -> GGUFTensor:
    """Read one tensor of an open file."""
    buffer = bytearray(entry.bytes)
    f.seek(entry.offset)
    if f.readinto(buffer) != entry.bytes:
        raise CheckpointError(f"{f.name}: ends inside {entry.key}. Copy or download it again.")
    rows = math.prod(entry.shape[:-1])
    blocks = torch.frombuffer(buffer, dtype=torch.uint8).view(rows, -1)
    if entry.how == "rotary":
        blocks = from_rotary_pairs(blocks, heads)
    return GGUFTensor(entry.name, entry.kind, entry.shape, blocks)


def from_rotary_pairs(rows: Tensor, heads: int) -> Tensor:
    """Rows in llama.cpp's order (pairs beside each other) to Hugging Face's (halves). Any second dimension: blocks or values."""
    return rows.view(heads, len(rows) // heads // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def to_rotary_pairs(rows: Tensor, heads: int) -> Tensor:
    """The reverse: Hugging Face's halves to pairs."""
    return rows.view(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def language_config(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Fields of a LanguageConfig that cannot be read from weights."""
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise CheckpointError(f"{path}: a GGUF file of the architecture {kind!r}; WeGen's language model is a «llama».")
    for key in COUNTS + NUMBERS:
        value = metadata.get(key, 0)
        right = type(value) is int or type(value) is float and key in NUMBERS
        if not right or not 0 <= value < 2**40:  # NaN too
            raise CheckpointError(f"{path}: {key} is {str(value)[:40]}, not a number that a model has. Copy or download it again.")
    if metadata.get("split.count", 1) > 1:
        raise CheckpointError(
            f"{path}: one of {metadata['split.count']} pieces of a split GGUF. Join them with llama.cpp's gguf-split --merge."
        )
    heads = metadata.get("llama.attention.head_count", 0)
    shared = metadata.get("llama.attention.head_count_kv", heads)
    if not heads or heads != shared:
        raise CheckpointError(
            f"{path}: {heads} query heads and {shared} key heads. WeGen's language model (LLaMA-2-7B) has as many "
            "of both; this is another model."
        )
    return {
        "heads": heads,
        "eps": round(metadata.get("llama.attention.layer_norm_rms_epsilon", 1e-5), 9),
        "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
        "positions": metadata.get("llama.context_length", 4096),
    }


def read_header(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Metadata and the list of tensors; the blocks stay unread."""
    size = path.stat().st_size
    with path.open("rb") as f:
        try:
            return _header(f, path, size)
        except (struct.error, UnicodeDecodeError, MemoryError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path}: a damaged or incomplete GGUF header ({error}). Copy or download it again.") from error


def _header(f: BufferedReader, path: Path, size: int) -> tuple[dict[str, Any], list[Entry]]:
    magic, version, count, pairs = struct.unpack("<4sIQQ", f.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise CheckpointError(f"{path}: no GGUF of version 2 or 3 in little-endian order (it begins with {magic!r}, version {version}).")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = _string(f, size)
        metadata[key] = _value(f, _one(f, "I"), size)
    tensors = []
    for _ in range(count):
        key = _string(f, size)
        shape = tuple(reversed([_one(f, "Q") for _ in range(min(_one(f, "I"), 8))]))
        tensors.append((key, shape, _one(f, "I"), _one(f, "Q")))
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or not 1 <= align <= 1 << 20:
        raise struct.error(f"an alignment of {str(align)[:40]}")
    start = -(-f.tell() // align) * align
    routed, _ = GGUF.route([key for key, *_ in tensors])
    targets = {key: (target, rule.how) for key, target, rule in routed if rule.part}
    entries = []
    for key, shape, number, offset in tensors:
        kind, count_bytes = _size(path, key, shape, number)
        how = targets.get(key, ("", "copy"))[1]
        if start + offset + count_bytes > size:
            raise CheckpointError(
                f"{path}: incomplete: {key} would end at byte {start + offset + count_bytes:,} of {size:,}. Copy or download it again."
            )
        if how == "rotary" and (not shape or math.prod(shape[:-1]) % (2 * _heads(metadata))):
            raise struct.error(f"{key} of {shape}, which its heads do not divide")
        entries.append(Entry(key, *targets.get(key, ("", "copy")), kind, shape, start + offset, count_bytes))
    return metadata, entries


def _heads(metadata: dict[str, Any]) -> int:
    heads = metadata.get("llama.attention.head_count")
    return heads if isinstance(heads, int) and heads > 0 else 1


def _one(f: BufferedReader, code: str) -> Any:
    return struct.unpack("<" + code, f.read(struct.calcsize(code)))[0]


def _string(f: BufferedReader, limit: int) -> str:
    length = _one(f, "Q")
    if length > limit:
        raise struct.error(f"a text of {length:,} bytes")
    return f.read(length).decode()


def _value(f: BufferedReader, kind: int, limit: int) -> Any:
    if kind == _STRING:
        return _string(f, limit)
    if kind != _ARRAY:
        if kind not in _SCALARS:
            raise struct.error(f"an entry of the unknown kind {kind}")
        return _one(f, _SCALARS[kind])
    inner, length = _one(f, "I"), _one(f, "Q")
    if length > limit:
        raise struct.error(f"a list of {length:,} entries")
    if length > _KEPT and inner in _SCALARS:
        f.seek(length * struct.calcsize(_SCALARS[inner]), 1)
        return length
    values = [_value(f, inner, limit) for _ in range(length)]
    return values if length <= _KEPT else length


def _size(path: Path, key: str, shape: tuple[int, ...], number: int) -> tuple[str, int]:
    """Kind and bytes of a tensor. Blocks hold 32 or 256 values of one row."""
    gguf = _gguf()
    try:
        kind = gguf.GGMLQuantizationType(number)
        values, block = gguf.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: {key} is of GGML kind {number}, which the installed `gguf` package does not know: pip install --upgrade gguf."
        ) from error
    if not shape or shape[-1] % values:
        raise CheckpointError(f"{path}: {key} has rows of {shape[-1:]} values, which are no whole {kind.name} blocks of {values}.")
    return kind.name, math.prod(shape) // values * block


def _kind(name: str):
    return _gguf().GGMLQuantizationType[name]


def _gguf():
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise CheckpointError("reading GGUF needs the small package `gguf`: pip install gguf.") from error
    return gguf
