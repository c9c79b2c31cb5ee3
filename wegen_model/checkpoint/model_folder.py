"""The model folder: one safetensors a part, beside a config.json and the tokenizer.

    config.json              ModelConfig with `format_version`, without the diffusers configurations
    vision.safetensors       tower                       language/model.safetensors   LLaMA, Hugging Face's keys (may be sharded)
    projectors.safetensors   both projectors             unet/ vae/ scheduler/        diffusers folders; unet/layout.safetensors
    tokenizer.json | tokenizer.model, added_tokens.json

Tower and language model may be quantized to 8 or 4 bits (models/quantization.py): uint8 tensors, whose kinds the file's metadata names under
BLOCKS. Any part may be absent. A folder of unet/, vae/, scheduler/ and config.json alone is a decoder. Nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import fileio
from ..config import PRESETS, ModelConfig
from ..fileio import JSONError, parse_json, write_text
from ..models.quantization import KINDS, QuantizedLinear, dequantize, is_quantized, quantize, replace_linears

FORMAT_VERSION = 1
UNET_FILE, VAE_FILE = "diffusion_pytorch_model", "diffusion_pytorch_model"
# part -> where its weights are: a file, or a folder of (sharded) safetensors
PLACES = {
    "vision": "vision",
    "language": "language/model",
    "projectors": "projectors",
    "unet": f"unet/{UNET_FILE}",
    "layout": "unet/layout",
    "vae": f"vae/{VAE_FILE}",
}
BLOCKS = "wegen_blocks"  # in a safetensors' metadata: JSON of key -> kind
TOKENIZER = ("tokenizer.json", "tokenizer.model", "added_tokens.json")
FOLDERS = ("language", "unet", "vae", "scheduler")


class CheckpointError(ValueError):
    """A model file is missing, damaged or of the wrong kind; the text names it and says what to do."""


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
    extra = {}
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        if (folder / file).is_file():
            extra[name] = read_json(folder / file)
    return dataclasses.replace(config, **extra)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; anything else is an error that names the file."""
    try:
        values = fileio.read_json(path)
    except JSONError as error:
        raise CheckpointError(f"{error.where}: not a valid configuration (it {error.reason}). Copy or convert it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a valid configuration (a JSON object was expected).")
    return values


def write_config(folder: Path, config: ModelConfig) -> None:
    values = config.to_dict()
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        part = values.pop(name)
        if part:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps(part, indent=1) + "\n")
    write_text(folder / "config.json", json.dumps({"format_version": FORMAT_VERSION} | values, indent=1) + "\n")


def files(folder: str | Path, part: str) -> list[Path]:
    """The safetensors that hold a part, in order; empty when it is absent."""
    base = Path(folder) / PLACES[part]
    for stem in (base.name, base.name + ".fp16", base.name + ".bf16"):
        single = base.with_name(stem + ".safetensors")
        if single.is_file():
            return [single]
    index = base.with_name(base.name + ".safetensors.index.json")
    if index.is_file():
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise CheckpointError(f"{index}: not an index of safetensors (no «weight_map» of file names). Copy it again.")
        names = sorted(set(listed.values()))
        missing = [n for n in names if not (base.parent / n).is_file()]
        if missing:
            raise CheckpointError(f"{base.parent}: {index.name} lists {', '.join(missing)}, which is not there. Copy it again.")
        return [base.parent / n for n in names]
    return []


def parts(folder: str | Path) -> list[str]:
    return [part for part in PLACES if files(folder, part)]


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


def missing(folder: str | Path, part: str) -> None:
    """Raise the error of a part that the folder lacks."""
    raise CheckpointError(
        f"{Path(folder).name}: the model folder has no {part} ({PLACES[part]}.safetensors in {folder}). "
        f"It has: {', '.join(parts(folder)) or 'nothing'}. Convert a checkpoint that holds it, or choose "
        "another model."
    )


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
    assign(module, state, f"{Path(folder).name}/{PLACES[part]}.safetensors")
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
        states: part (a key of PLACES) -> tensors. tokenizer: a folder whose tokenizer files are copied.
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
            path = new / (PLACES[part] + ".safetensors")
            path.parent.mkdir(exist_ok=True)
            tensors = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().clone().contiguous() for k, v in state.items()}
            save_file(tensors, path, {"format": "pt"})
        for file in words:
            shutil.copy(file, new / file.name)
    return folder


def check_target(target: Path, written: Collection[str], source: Path | None = None) -> None:
    """Refuse a folder whose replacement would lose something.

    Args:
        written: what the new folder will hold: keys of PLACES, and "tokenizer".
        source: what is read; the target must be neither inside it nor around it.
    Raises:
        CheckpointError: a file; no model folder; a model with parts, a tokenizer or folders that `written` lacks.
    """
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; name a folder to write.")
    if source is not None:
        here, there = target.resolve(), source.resolve()
        if here == there or there in here.parents or here in there.parents:
            raise CheckpointError(f"{target}: choose a folder outside the source {source}, which is never touched.")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / "config.json").is_file() or b"format_version" not in (target / "config.json").read_bytes():
        raise CheckpointError(f"{target} exists and is not a WeGen model folder: nothing there is overwritten. Name another folder.")
    lost = [part for part in PLACES if part not in written and list(target.glob(PLACES[part] + "*.safetensors"))]
    lost += ["tokenizer"] if "tokenizer" not in written and any((target / name).is_file() for name in TOKENIZER[:2]) else []
    if lost:
        hint = " (the tokenizer's files are taken from beside the source's weights)" if "tokenizer" in lost else ""
        raise CheckpointError(
            f"{target} holds a model whose {', '.join(lost)} would be lost, since they are not written anew. "
            f"Name another folder, or write all of it{hint}."
        )
    others = sorted(p.name for p in target.iterdir() if p.is_dir() and p.name not in FOLDERS)
    if others:
        raise CheckpointError(
            f"{target} holds folders that are no part of a model and would be lost: {', '.join(others)}. "
            "Name another folder, or move them away."
        )


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when the block ends well and is removed when it does not.

    It is made in a hidden folder beside `folder`, which also keeps the old one until the new one is in place: after a crash between
    the two renames the old one is `.<name>.<letters>/old`.
    """
    folder = Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except BaseException:
        placed = not new.exists()
        try:
            if old.exists() and not placed:
                os.replace(old, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if placed or not old.exists():
                shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside, ignore_errors=True)


def resolve(name_or_path: str | Path, roots: tuple[str | Path, ...] = ()) -> Path:
    """A model's folder: the bundled `wegen-mini`, a name below one of `roots`, or a path.

    Raises:
        CheckpointError: naming the folders that were searched and what they hold.
    """
    name = str(name_or_path)
    if name == "wegen-mini":
        return Path(__file__).parent.parent / "mini" / "weights"
    places = [*(Path(root) / name for root in roots), Path(name)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    for place in places:  # killed while it was replaced
        for left in sorted(place.parent.glob(f".{glob.escape(place.name)}.*/old/config.json")) if place.name else ():
            raise CheckpointError(
                f"no model folder '{name}': writing it was interrupted. What was there before is {left.parent}; rename it to {place}."
            )
        if place.name and (place.parent / f".{place.name}.converting").is_dir():
            raise CheckpointError(
                f"no model folder '{name}': its conversion was interrupted. The same `wegen convert` command goes on where it stopped."
            )
    searched = ", ".join(str(r) for r in roots) or "the current folder"
    presets = f" ('{name}' is a preset of sizes; its weights are not bundled.)" if name in PRESETS else ""
    raise CheckpointError(
        f"no model folder '{name}' (searched {searched}).{presets} Use wegen-mini, which is bundled, or a folder "
        "with a config.json as `wegen convert` writes it."
    )
