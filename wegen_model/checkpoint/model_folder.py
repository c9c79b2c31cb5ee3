"""The model folder: one safetensors a part, beside a config.json and the tokenizer.

    config.json              ModelConfig with `format_version`, without the diffusers configurations
    vision.safetensors       tower                       language/model.safetensors   LLaMA, Hugging Face's keys (may be sharded)
    projectors.safetensors   both projectors             unet/ vae/ scheduler/        diffusers folders; unet/layout.safetensors
    tokenizer.json | tokenizer.model, added_tokens.json

Tower and language model may be quantized to 8 or 4 bits (models/quantization.py): uint8 tensors, whose kinds the file's metadata names under
BLOCKS. Any part may be absent. A folder of unet/, vae/, scheduler/ and config.json alone is a decoder. Nothing here unpickles.

Where folder and files lie, and how a new folder takes an old one's place: model_paths.py, whose functions callers reach through here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bounds import check_diffusers
from ..config import ModelConfig
from ..fileio import parse_json, write_text
from ..models.quantization import KINDS, QuantizedLinear, dequantize, is_quantized, quantize, replace_linears
from .model_paths import TOKENIZER, WEIGHT_FILES, CheckpointError, check_target, files, missing, read_json, replacing
from .model_paths import parts as parts
from .model_paths import resolve as resolve

FORMAT_VERSION = 1
BLOCKS = "wegen_blocks"  # in a safetensors' metadata: JSON of key -> kind


def read_config(folder: str | Path) -> ModelConfig:
    """config.json with the diffusers configurations of the subfolders filled in."""
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: no config.json, so this is not a WeGen model folder. `wegen inspect {folder}` says what "
            "it is; `wegen convert` makes a model folder from public files."
        )
    values = read_json(path)
    try:
        version = values.get("format_version", 0)
        if not isinstance(version, int):
            raise ValueError(f"format_version is {version!r}, not a whole number")
        if version > FORMAT_VERSION:
            raise CheckpointError(f"{path}: format version {version} is newer than this program's ({FORMAT_VERSION}). Update WeGen.")
        config = ModelConfig.from_dict(values)
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a valid configuration ({error}).") from error
    extra: dict[str, Any] = {}
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        if (folder / file).is_file():
            extra[name] = read_json(folder / file)
            try:
                check_diffusers(extra[name], str(folder / file))
            except ValueError as error:
                raise CheckpointError(f"{error}. Copy or convert the model again.") from error
    return dataclasses.replace(config, **extra)


def write_config(folder: Path, config: ModelConfig) -> None:
    values = config.to_dict()
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        part = values.pop(name)
        if part:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps(part, indent=1) + "\n")
    write_text(folder / "config.json", json.dumps({"format_version": FORMAT_VERSION} | values, indent=1) + "\n")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, memory-mapped; a damaged one is an error that names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            yield f
    except SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path}: damaged or incomplete safetensors ({size:,} bytes; {error}). Copy or convert it again.") from error


def stored_tensors(path: Path) -> Iterator[tuple[str, Tensor, str]]:
    """Each tensor of a safetensors file as stored, memory-mapped: key, tensor, quantization kind (empty: not quantized).

    Raises:
        CheckpointError: damaged, or blocks of a kind that is not known.
    """
    with _opened(path) as f:
        kinds = block_kinds(path, f.metadata())
        for key in f.keys():
            yield key, f.get_tensor(key), kinds.get(key, "")


def stored_kinds(path: Path) -> dict[str, str]:
    """Key -> kind of the quantized tensors of a safetensors file; from its header alone."""
    with _opened(path) as f:
        return block_kinds(path, f.metadata())


def block_kinds(path: Path, metadata: dict[str, str] | None) -> dict[str, str]:
    """Key -> kind of the quantized tensors, from a safetensors file's metadata."""
    try:
        kinds = dict(parse_json((metadata or {}).get(BLOCKS, "{}"), "its metadata"))
        unknown = sorted(set(kinds.values()) - set(KINDS))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged safetensors (what it says of its blocks is unreadable: {error}). Copy or convert it again."
        ) from error
    if unknown:
        raise CheckpointError(
            f"{path}: its weights are in blocks of the kind {', '.join(unknown)}; known are {', '.join(KINDS)}. Update WeGen."
        )
    return kinds


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file as values; a damaged one is an error that names it."""
    return {key: dequantize(tensor, kind) if kind else tensor for key, tensor, kind in stored_tensors(path)}


def load_into(
    module: nn.Module,
    folder: str | Path,
    part: str,
    dtype: torch.dtype | None = None,
    blocks: str = "",
    layer: type[QuantizedLinear] = QuantizedLinear,
) -> nn.Module:
    """Give a module built on the meta device the tensors of a part (assigned, not copied), strictly.

    Args:
        dtype: of the floating-point values; None keeps the file's.
        blocks: kind to quantize the part's matrices to, tensor by tensor; what is quantized already stays as it is.
        layer: what replaces a linear layer whose weight is quantized.
    Raises:
        CheckpointError: the part is absent, a file is damaged, a tensor is missing, unexpected or of the wrong shape.
    """
    paths = files(folder, part)
    if not paths:
        missing(folder, part)
    state: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    for path in paths:
        for key, tensor, kind in stored_tensors(path):
            if blocks and not kind and is_quantized(part, key, tensor.shape) and KINDS[blocks].fits(tensor.shape[1]):
                tensor, kind = quantize(tensor, blocks), blocks
            if kind:
                kinds[key] = kind
            elif dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            state[key] = tensor
    replace_linears(module, kinds, layer)
    assign(module, state, f"{Path(folder).name}/{WEIGHT_FILES[part]}.safetensors")
    return module


def assign(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Strictly, naming what is wrong."""
    own = module.state_dict()
    problems = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(v.shape)}" for k, v in own.items() if k in state and state[k].shape != v.shape
    ]
    problems += [f"{k} is missing" for k in own if k not in state]
    problems += [f"{k} is not part of this model" for k in state if k not in own]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{where} does not fit its config.json: {'; '.join(problems[:3])}{more}. Are the files of one model? Convert it again."
        )
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def save(
    folder: str | Path,
    config: ModelConfig,
    states: dict[str, dict[str, Tensor]],
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model folder: beside, then renamed; an existing folder is replaced only when all is written.

    Args:
        states: part (a key of WEIGHT_FILES) -> tensors. tokenizer: a folder whose tokenizer files are copied.
    Raises:
        CheckpointError: the folder holds something that would be lost (`check_target`).
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    words = [Path(tokenizer) / name for name in TOKENIZER if (Path(tokenizer) / name).is_file()] if tokenizer is not None else []
    check_target(folder, {*states, "tokenizer"} if words else set(states))
    with replacing(folder) as new:
        write_config(new, config)
        for part, state in states.items():
            path = new / (WEIGHT_FILES[part] + ".safetensors")
            path.parent.mkdir(exist_ok=True)
            tensors = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().clone().contiguous() for k, v in state.items()}
            save_file(tensors, path, {"format": "pt"})
        for file in words:
            shutil.copy(file, new / file.name)
    return folder
