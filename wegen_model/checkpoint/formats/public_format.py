"""`PublicFormat`: all that is known of one public checkpoint. What inspects, scans, converts, offers and explains reads it from here.

Plain data: neither torch nor diffusers is imported, since ComfyUI reads the names and numbers when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...generation.decoder_presets import InferencePreset
from ..key_map import KeyMap

# What a scan looks for in a folder, in the order of precedence: the first file that offers a part gives the whole part.
WEIGHTS = ("tower", "agent", "language", "unet", "vae", "encoder", "single")
CONFIGS = ("unet", "vae", "scheduler")
EVERYTHING = ("vision", "language", "projectors", "unet", "vae", "tokenizer")
RELEASED, GENERAL = 10, 100  # values of `order`

DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.*.safetensors",
    "diffusion_pytorch_model.safetensors.index.*.json",
    "diffusion_pytorch_model*.bin",
)  # the bf16 and fp16 variants behind the plain file
TRANSFORMERS_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.*.safetensors",
    "model.safetensors.index.*.json",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class FileLayout:
    """Where a public folder keeps something: the first glob that finds a file counts."""

    role: str  # of WEIGHTS or CONFIGS, or "tokenizer"
    globs: tuple[str, ...]


def within(folders: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Every name in every folder, as globs."""
    return tuple(f"{folder}/{name}" for folder in folders for name in names)


def decoder_files(*folders: str) -> tuple[FileLayout, ...]:
    """Weights of a diffusers decoder whose unet/ and vae/ are in any of these folders ("" is the folder that is given)."""
    return tuple(FileLayout(part, within(_below(folders, part), DIFFUSERS_FILES)) for part in ("unet", "vae"))


def decoder_configs(*folders: str) -> tuple[FileLayout, ...]:
    """Its configurations: of unet/, vae/ and scheduler/."""
    names = {"unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
    return tuple(FileLayout(part, within(_below(folders, part), (name,))) for part, name in names.items())


def _below(folders: tuple[str, ...], part: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{part}" if folder else part for folder in folders)


@dataclass(frozen=True)
class PublicFormat:
    """One public checkpoint: its name, how its folder is recognised, where its files are, how its keys are mapped."""

    name: str  # in reports
    # a row of docs/real-weights.md; a format without `title` has none, since it is a form of another's files
    title: str = ""
    origin: str = ""  # where people get it
    size: str = ""  # on disk, in the precision it is published in
    licence: str = ""
    gives: str = ""  # in words
    # files
    files: tuple[FileLayout, ...] = ()
    configs: tuple[FileLayout, ...] = ()
    roots: tuple[str, ...] = ()  # folders that may contain all of it
    # how a folder is recognised, from the surest sign to the weakest: by its own name; by what a JSON file in it says; by groups of globs, of
    # each of which one must find something
    folder_names: tuple[str, ...] = ()
    told_by: tuple[str, Callable[[dict[str, Any]], bool]] | None = None
    marks: tuple[tuple[str, ...], ...] = ()
    key_maps: tuple[KeyMap, ...] = ()  # of its files; the first that fits is taken, so the ones that hold more come first
    preset: InferencePreset | None = None  # settings of its own inference code
    holds: Mapping[str, str] = field(default_factory=dict)  # part -> its place in words, for messages that say where to get it
    needs: tuple[str, ...] = ()  # parts that a folder of this kind should hold; what lacks is reported
    order: int = 50  # RELEASED ones are asked and offered first, GENERAL ones (any diffusers UNet, any LLaMA) asked last
