"""Tensor files: what is in them without reading it, one tensor at a time, and writing one without holding it.

Read: safetensors, and PyTorch's zip format (`.bin`, `.pt`, `.pth`) mapped into memory with weights_only, so that no code in it
runs. Not read: PyTorch's older pickles, which cannot be mapped, and anything that wants to import code. Written: safetensors.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .folder import CheckpointError

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
         torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
WRAPPERS = ("state_dict", "module", "model")  # a state dict may sit one level down, under one of these


@dataclass(frozen=True)
class Spec:
    """Shape and precision of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass
class TensorFile:
    """A readable file: `specs` of all its tensors, `read(key)` for one of them."""

    path: Path
    specs: dict[str, Spec]
    read: Callable[[str], Tensor] = field(repr=False)


def open_file(path: str | Path) -> TensorFile:
    """Open a tensor file without reading its weights.

    Raises:
        CheckpointError: damaged, incomplete, an older pickle, code inside, or no tensor file at all.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    with path.open("rb") as f:
        head = f.read(10)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _open_safetensors(path)
    if head[:2] == b"PK":
        return _open_zip(path)
    if head[:1] == b"\x80":
        raise CheckpointError(f"{path}: an older PyTorch pickle, which cannot be mapped into memory and may hold code, so it is not "
                              "read. Re-save it where you trust it, with PyTorch 1.6 or later: "
                              "torch.save(torch.load(old, weights_only=True), new).")
    raise CheckpointError(f"{path}: neither safetensors nor a PyTorch zip file. Those two kinds of weights can be read.")


def _open_safetensors(path: Path) -> TensorFile:
    from safetensors import safe_open

    size = path.stat().st_size
    try:
        with path.open("rb") as f:
            length = struct.unpack("<Q", f.read(8))[0]
            if length > size - 8:
                raise ValueError("the header is cut off")
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
        if end != size:
            raise ValueError(f"{end:,} bytes were announced")
        specs = {key: Spec(tuple(v["shape"]), DTYPES[v["dtype"]]) for key, v in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged or incomplete safetensors ({size:,} bytes; {error}). Copy or download it "
                              "again.") from error

    def read(key: str) -> Tensor:
        with safe_open(path, "pt") as f:
            return f.get_tensor(key)

    return TensorFile(path, specs, read)


def _open_zip(path: Path) -> TensorFile:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: a PyTorch zip file that is damaged or incomplete ({path.stat().st_size:,} bytes). Copy or "
                              "download it again.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: it holds more than tensors and may run code, so it was not opened "
                              f"({_first_line(error)}). Ask its author for safetensors.") from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged, or no PyTorch file ({_first_line(error)}). Copy or download it again.") from error
    if isinstance(state, dict):
        state = next((state[w] for w in WRAPPERS if isinstance(state.get(w), dict)), state)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it, so it is not a checkpoint.")
    specs = {key: Spec(tuple(v.shape), v.dtype) for key, v in tensors.items()}
    return TensorFile(path, specs, tensors.__getitem__)


def _first_line(error: Exception) -> str:
    text = str(error)
    start = text.find("Unsupported")  # torch explains at length first; the offending name is what helps
    return (text[start:] if start >= 0 else text).strip().splitlines()[0][:200] if text.strip() else type(error).__name__


def write_file(path: Path, tensors: dict[str, tuple[Spec, Callable[[], Tensor]]],
               after: Callable[[str], None] | None = None) -> None:
    """Write safetensors, holding one tensor at a time.

    Args:
        tensors: key -> (shape and precision to write, a function that gives the tensor; it is cast to that precision).
        after: called with each key when it is written.
    """
    order = sorted(tensors, key=lambda k: (-tensors[k][0].dtype.itemsize, k))  # aligned without gaps, as the library writes
    header: dict = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in order:
        spec = tensors[key][0]
        header[key] = {"dtype": NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, offset + spec.bytes]}
        offset += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            spec, make = tensors[key]
            tensor = make().detach().to(spec.dtype)
            if tuple(tensor.shape) != spec.shape:
                raise CheckpointError(f"{path.name}: {key} is {tuple(tensor.shape)}, {spec.shape} was announced.")
            f.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            if after:
                after(key)
        f.flush()
        os.fsync(f.fileno())
