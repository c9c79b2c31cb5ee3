"""The model folder: one safetensors a part, beside a config.json and the tokenizer.

    config.json              ModelConfig with `format_version`, without the diffusers configurations
    vision.safetensors       tower                       language/model.safetensors   LLaMA, Hugging Face's keys (may be sharded)
    projectors.safetensors   both projectors             unet/ vae/ scheduler/        diffusers folders; unet/layout.safetensors
    tokenizer.json | tokenizer.model, added_tokens.json

Any part may be absent. A folder of unet/, vae/, scheduler/ and config.json alone is a decoder. Nothing here unpickles.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import PRESETS, ModelConfig

FORMAT_VERSION = 1
UNET_FILE, VAE_FILE = "diffusion_pytorch_model", "diffusion_pytorch_model"
# part -> where its weights are: a file, or a folder of (sharded) safetensors
PLACES = {"vision": "vision", "language": "language/model", "projectors": "projectors", "unet": f"unet/{UNET_FILE}",
          "layout": "unet/layout", "vae": f"vae/{VAE_FILE}"}


class CheckpointError(ValueError):
    """A model file is missing, damaged or of the wrong kind; the text names it and says what to do."""


def read_config(folder: str | Path) -> ModelConfig:
    """config.json with the diffusers configurations of the subfolders filled in."""
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no config.json, so this is not a WeGen model folder. `wegen inspect {folder}` says what "
                              "it is; `wegen convert` makes a model folder from public files.")
    try:
        values = json.loads(path.read_text())
        if values.get("format_version", 0) > FORMAT_VERSION:
            raise CheckpointError(f"{path}: format version {values['format_version']} is newer than this program's "
                                  f"({FORMAT_VERSION}). Update WeGen.")
        config = ModelConfig.from_dict(values)
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a valid configuration ({error}).") from error
    extra = {}
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        if (folder / file).is_file():
            extra[name] = json.loads((folder / file).read_text())
    return dataclasses.replace(config, **extra)


def write_config(folder: Path, config: ModelConfig) -> None:
    values = config.to_dict()
    for name, file in (("unet", "unet/config.json"), ("vae", "vae/config.json"), ("scheduler", "scheduler/scheduler_config.json")):
        part = values.pop(name)
        if part:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps(part, indent=1) + "\n")
    write_text(folder / "config.json", json.dumps({"format_version": FORMAT_VERSION} | values, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Written beside and renamed, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def files(folder: str | Path, part: str) -> list[Path]:
    """The safetensors that hold a part, in order; empty when it is absent."""
    base = Path(folder) / PLACES[part]
    for stem in (base.name, base.name + ".fp16", base.name + ".bf16"):
        single = base.with_name(stem + ".safetensors")
        if single.is_file():
            return [single]
    index = base.with_name(base.name + ".safetensors.index.json")
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [n for n in names if not (base.parent / n).is_file()]
        if missing:
            raise CheckpointError(f"{base.parent}: {index.name} lists {', '.join(missing)}, which is not there. Copy it again.")
        return [base.parent / n for n in names]
    return []


def parts(folder: str | Path) -> list[str]:
    return [part for part in PLACES if files(folder, part)]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, memory-mapped; a damaged one is an error that names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            return {key: f.get_tensor(key) for key in f.keys()}
    except SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(f"{path}: damaged or incomplete safetensors ({size:,} bytes; {error}). Copy or convert it "
                              "again.") from error


def load_into(module: nn.Module, folder: str | Path, part: str, dtype: torch.dtype | None = None) -> nn.Module:
    """Give a module built on the meta device the tensors of a part (assigned, not copied), strictly.

    Raises:
        CheckpointError: the part is absent, a file is damaged, a tensor is missing, unexpected or of the wrong shape.
    """
    paths = files(folder, part)
    if not paths:
        raise CheckpointError(f"{Path(folder).name}: the model folder has no {part} ({PLACES[part]}.safetensors in {folder}). "
                              f"It has: {', '.join(parts(folder)) or 'nothing'}. Convert a checkpoint that holds it, or choose "
                              "another model.")
    state: dict[str, Tensor] = {}
    for path in paths:
        state |= read_tensors(path)
    assign(module, state, f"{Path(folder).name}/{PLACES[part]}.safetensors", dtype)
    return module


def assign(module: nn.Module, state: dict[str, Tensor], where: str, dtype: torch.dtype | None = None) -> None:
    own = module.state_dict()
    problems = [f"{k} is {tuple(state[k].shape)}, expected {tuple(v.shape)}" for k, v in own.items()
                if k in state and state[k].shape != v.shape]
    problems += [f"{k} is missing" for k in own if k not in state]
    problems += [f"{k} is not part of this model" for k in state if k not in own]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{where} does not fit its config.json: {'; '.join(problems[:3])}{more}. "
                              "Are the files of one model? Convert it again.")
    if dtype is not None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(state, assign=True)
    module.eval().requires_grad_(False)


def save(folder: str | Path, config: ModelConfig, states: dict[str, dict[str, Tensor]], tokenizer: str | Path | None = None,
         dtype: torch.dtype | None = None) -> Path:
    """Write a model folder: beside, then renamed; an existing folder is replaced only when all is written.

    Args:
        states: part (a key of PLACES) -> tensors. tokenizer: a folder whose tokenizer files are copied.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    new = folder.with_name(folder.name + ".part")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        write_config(new, config)
        for part, state in states.items():
            path = new / (PLACES[part] + ".safetensors")
            path.parent.mkdir(exist_ok=True)
            tensors = {k: (v.to(dtype) if dtype and v.is_floating_point() else v).detach().clone().contiguous() for k, v in state.items()}
            save_file(tensors, path, {"format": "pt"})
        if tokenizer is not None:
            for name in ("tokenizer.json", "tokenizer.model", "added_tokens.json"):
                if (Path(tokenizer) / name).is_file():
                    shutil.copy(Path(tokenizer) / name, new / name)
        replace_folder(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, which stays until the new one is there."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():  # an interruption between the two renames below: the old one is all there is
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def resolve(name_or_path: str | Path, roots: tuple[str | Path, ...] = ()) -> Path:
    """A model's folder: the bundled `wegen-mini`, a path, or a name below one of `roots`.

    Raises:
        CheckpointError: naming the folders that were searched and what they hold.
    """
    name = str(name_or_path)
    if name == "wegen-mini":
        return Path(__file__).parent.parent / "mini" / "weights"
    for place in (Path(name), *(Path(root) / name for root in roots)):
        if (place / "config.json").is_file():
            return place
    searched = ", ".join(str(r) for r in roots) or "the current folder"
    presets = f" ('{name}' is a preset of sizes; its weights are not bundled.)" if name in PRESETS else ""
    raise CheckpointError(f"no model folder '{name}' (searched {searched}).{presets} Use wegen-mini, which is bundled, or a folder "
                          "with a config.json as `wegen convert` writes it.")
