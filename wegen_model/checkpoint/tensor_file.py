"""Tensor files: what is in them without reading it, one tensor at a time, and writing one without holding it.

Read: safetensors; PyTorch's zip format (`.bin`, `.pt`, `.pth`) mapped into memory with weights_only, so that no code in it runs;
GGUF (gguf.py). PyTorch's older pickles cannot be mapped: they are read whole, when asked for. Anything that wants to import
code is refused. Written: safetensors. Of what is read only the tensor at hand stays in memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..fileio import parse_json
from ..models.quantization import KINDS, dequantize
from ..runtime import is_finite
from .model_folder import BLOCKS, block_kinds
from .model_paths import CheckpointError

MAX_HEADER = 100 << 20  # bytes: the bound of the safetensors library
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
AGAIN = "Copy or download it again."
WRAPPERS = ("state_dict", "module", "model")  # a state dict may sit one level down, under one of these


@dataclass(frozen=True)
class Spec:
    """Shape and precision of a tensor: of the values that are read, or (dtype uint8 with a kind) of quantized blocks as stored."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str = ""  # name of the blocks it is stored in (quantization.KINDS, or GGML's other ones), else empty

    @property
    def count(self) -> int:
        """Values."""
        if self.kind and self.dtype == torch.uint8:
            return self.shape[0] * KINDS[self.kind].columns(self.shape[1])
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def name(self) -> str:
        """BF16, Q8_0, …"""
        return self.kind or NAMES.get(self.dtype, str(self.dtype))


@dataclass
class TensorFile:
    """A readable file: `specs` of all its tensors, `read(key)` for the values of one, `blocks(key)` for its quantized blocks as stored."""

    path: Path
    specs: dict[str, Spec]
    read: Callable[[str], Tensor] = field(repr=False)
    blocks: Callable[[str], Tensor] | None = field(default=None, repr=False)
    language: dict[str, Any] = field(default_factory=dict)  # fields of a LanguageConfig that the file states (GGUF)


def open_file(path: str | Path, whole: bool = False) -> TensorFile:
    """Open a tensor file without reading its weights.

    Args:
        whole: read older PyTorch pickles into memory; other kinds do not need it.
    Raises:
        CheckpointError: damaged, incomplete, an older pickle without `whole`, code inside, or no tensor file at all.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    with path.open("rb") as f:
        head = f.read(10)
    if head[:4] == b"GGUF" or path.suffix == ".gguf":
        return _open_gguf(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _open_safetensors(path)
    if head[:2] == b"PK":
        return _open_torch(path, mapped=True)
    if head[:1] == b"\x80":
        if whole:
            return _open_torch(path, mapped=False)
        raise CheckpointError(
            f"{path}: an older PyTorch pickle (before 1.6), which cannot be mapped into memory. Add --whole to read "
            f"it at once: it takes as much memory as the file ({path.stat().st_size / 2**30:.1f} GiB). Code in it is "
            "refused all the same."
        )
    raise CheckpointError(f"{path}: neither safetensors nor a PyTorch zip file nor GGUF. Those kinds of weights can be read.")


def _open_safetensors(path: Path) -> TensorFile:
    size = path.stat().st_size
    try:
        with path.open("rb") as f:
            length = struct.unpack("<Q", f.read(8))[0]
            if length > size - 8:
                raise ValueError("the header is cut off")
            header = parse_json(f.read(length), "its header", MAX_HEADER)
        kinds = block_kinds(path, header.pop("__metadata__", None))
        for key, value in header.items():
            if not all(type(n) is int and n >= 0 for n in (*value["shape"], *value["data_offsets"])) or len(value["shape"]) > 8:
                raise ValueError(f"{key[:80]} has no proper shape and place")
        places = {key: value["data_offsets"] for key, value in header.items()}
        end = 8 + length + max((stop for _, stop in places.values()), default=0)
        if end != size:
            raise ValueError(f"{end:,} bytes were announced")
        at = 0
        for start, stop in sorted(places.values()):
            if start != at:
                raise ValueError("its tensors overlap, or leave gaps")
            at = stop
        specs = {key: Spec(tuple(value["shape"]), DTYPES[value["dtype"]]) for key, value in header.items()}
        wrong = [key for key, spec in specs.items() if places[key][1] - places[key][0] != spec.bytes]
        if wrong:
            raise ValueError(f"{wrong[0]} is not as long as its shape says")
        lying = dict(specs)  # as stored
        specs |= {
            key: Spec((specs[key].shape[0], KINDS[kind].columns(specs[key].shape[1])), torch.float16, kind) for key, kind in kinds.items()
        }
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged or incomplete safetensors ({size:,} bytes; {error}). Copy or download it again.") from error

    def lie(key: str) -> Tensor:
        spec = lying[key]
        data = torch.empty(spec.bytes, dtype=torch.uint8)
        if spec.bytes:
            with path.open("rb") as f:  # read, not mapped: pages of a mapping would count as memory in use
                f.seek(8 + length + places[key][0])
                if f.readinto(data.numpy().data) != spec.bytes:
                    raise CheckpointError(f"{path}: ends inside {key}. Copy or download it again.")
        return data.view(spec.dtype).reshape(spec.shape)

    def read(key: str) -> Tensor:
        return dequantize(lie(key), specs[key].kind, specs[key].dtype) if specs[key].kind else lie(key)

    return TensorFile(path, specs, read, lie)


def _open_torch(path: Path, mapped: bool) -> TensorFile:
    if mapped and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: a PyTorch zip file that is damaged or incomplete ({path.stat().st_size:,} bytes). Copy or download it again."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: it holds more than tensors and may run code, so it was not opened "
            f"({_first_line(error)}). Ask its author for safetensors."
        ) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged, or no PyTorch file ({_first_line(error)}). Copy or download it again.") from error
    if isinstance(state, dict):
        state = next((state[w] for w in WRAPPERS if isinstance(state.get(w), dict)), state)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it, so it is not a checkpoint.")
    for key, tensor in tensors.items():
        if not isinstance(key, str) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{path}: {str(key)[:80]} is no plain tensor. Ask its author for safetensors.")
    specs = {key: Spec(tuple(v.shape), v.dtype) for key, v in tensors.items()}

    def read(key: str) -> Tensor:
        tensor = tensors[key].detach()
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():  # one value, repeated without end
            raise CheckpointError(f"{path}: {key} says that it is {tuple(tensor.shape)}, for which the file holds too little. {AGAIN}")
        if not mapped:
            return tensor
        out = tensor.clone(memory_format=torch.contiguous_format)
        _forget(tensor)
        return out

    return TensorFile(path, specs, read)


def _forget(tensor: Tensor) -> None:
    """Give the pages of a mapped tensor back; they are read again from the file if they are ever touched. Linux and macOS only."""
    if not tensor.numel() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    span = (sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride())) + 1) * tensor.element_size()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(tensor.data_ptr() + span - start), mmap.MADV_DONTNEED)


def _open_gguf(path: Path) -> TensorFile:
    from . import gguf

    metadata, entries = gguf.read_header(path)
    language = gguf.language_config(path, metadata)
    places = {entry.key: entry for entry in entries}
    specs = {e.key: Spec(e.shape, gguf.PLAIN.get(e.kind, torch.float16), "" if e.kind in gguf.PLAIN else e.kind) for e in entries}

    def tensor(key: str) -> gguf.GGUFTensor:
        with path.open("rb") as f:
            return gguf.read_tensor(f, places[key], language["heads"])

    return TensorFile(path, specs, lambda key: tensor(key).dequantize(specs[key].dtype), lambda key: tensor(key).blocks, language)


def _first_line(error: Exception) -> str:
    text = str(error)
    start = text.find("Unsupported")  # torch explains at length first; the offending name is what helps
    return (text[start:] if start >= 0 else text).strip().splitlines()[0][:200] if text.strip() else type(error).__name__


def write_file(path: Path, tensors: dict[str, tuple[Spec, Callable[[], Tensor]]], after: Callable[[str], None] | None = None) -> str:
    """Write safetensors, holding one tensor at a time.

    Args:
        tensors: key -> (shape and precision to write, a function that gives the tensor; it is cast to that precision).
        after: called with each key when it is written.
    Returns:
        the SHA-256 of the file.
    """
    order = sorted(tensors, key=lambda k: (-tensors[k][0].dtype.itemsize, k))  # aligned without gaps, as the library writes
    kinds = {key: spec.kind for key, (spec, _) in tensors.items() if spec.kind and spec.dtype == torch.uint8}
    header: dict = {"__metadata__": {"format": "pt"} | ({BLOCKS: json.dumps(kinds)} if kinds else {})}
    offset = 0
    for key in order:
        spec = tensors[key][0]
        header[key] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, offset + spec.bytes]}
        offset += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256(start := struct.pack("<Q", len(text)) + text)
    with path.open("wb") as f:
        f.write(start)
        for key in order:
            spec, make = tensors[key]
            tensor = make().detach().to(spec.dtype)
            if tuple(tensor.shape) != spec.shape:
                raise CheckpointError(f"{path.name}: {key} is {tuple(tensor.shape)}, {spec.shape} was announced.")
            if tensor.is_floating_point() and not is_finite(tensor):
                raise CheckpointError(
                    f"{key} holds NaN or infinity{'' if spec.dtype == torch.float32 else f' in {spec.name}'}: what is made with it would be no "
                    "picture. Copy or download the source again; where values are too large for 16 bits, choose --dtype float32."
                )
            data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
            f.write(data)
            digest.update(data)
            del tensor, data
            if after:
                after(key)
        f.flush()
        os.fsync(f.fileno())
    return digest.hexdigest()
