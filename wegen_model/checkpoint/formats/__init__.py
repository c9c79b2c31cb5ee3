"""Public checkpoints, one file a project: each lists its `PublicFormat`s under FORMATS. A file that is put here is found; nothing else
names it. docs/real-weights.md has a row for each (a test compares).
"""

from __future__ import annotations

import importlib
import pkgutil

from ...generation.decoder_presets import InferencePreset
from ..key_map import KeyMap
from .public_format import PublicFormat


def discover() -> tuple[PublicFormat, ...]:
    """The formats of every file in this folder, in the order in which they are asked and offered."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return tuple(sorted((f for module in modules for f in getattr(module, "FORMATS", ())), key=lambda f: f.order))


FORMATS = discover()


def inference_presets() -> dict[str, InferencePreset]:
    """Name -> inference preset of that public decoder."""
    return {f.preset.name: f.preset for f in FORMATS if f.preset}


def inference_preset(name: str | None) -> InferencePreset | None:
    """A preset by its name; None stays None.

    Raises:
        ValueError: no public decoder's name; the text lists them.
    """
    presets = inference_presets()
    if name is not None and name not in presets:
        raise ValueError(f"decoder preset {name!r} is not one of {', '.join(presets)}.")
    return presets[name] if name is not None else None


def presets_with(setting: str, value: object) -> str:
    """Names of the presets with that setting, for tooltips: "emu2, blip3o"."""
    return ", ".join(name for name, preset in inference_presets().items() if getattr(preset, setting) == value)


def format_of(key_map: KeyMap) -> PublicFormat | None:
    """The format whose files have these keys; None for those of our own folders."""
    return next((f for f in FORMATS if any(known is key_map for known in f.key_maps)), None)


def sources(part: str) -> tuple[str, ...]:
    """Where a part of a model is to be had, in words, the usual place first."""
    return tuple(f.holds[part] for f in FORMATS if part in f.holds)
