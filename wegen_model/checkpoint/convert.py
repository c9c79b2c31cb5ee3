"""Public checkpoints into a model folder: `convert`. The tables are in layouts.py; here they are applied and checked.

Tensors pass one by one from mapped files into new safetensors; the folder is written beside the target and renamed when it is
whole. The source is never touched. Each part is checked, names and shapes, against the module that will hold it before anything
is written.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import PRESETS, ModelConfig
from ..runtime import Runtime
from ..tokenizer import special_tokens
from ..vision import resize_positions
from .folder import PLACES, CheckpointError, check_target, read_json, replacing, write_config
from .inspect import EXTRA, ORIGINS, PARTS, Piece, Report, Survey, summarise, survey
from .storage import Spec, write_file

RESIZED = "official-224-resized"  # name of a tower whose positions were interpolated here
SECTIONS = {"vision": ("patch_size", "width", "layers", "mlp_width"), "language": ("vocab_size", "width", "layers", "mlp_width")}


@dataclass
class Plan:
    """A checked conversion: the configuration, and each part's tensors as (shape and precision, function that makes it)."""

    config: ModelConfig
    parts: dict[str, dict[str, tuple[Spec, Callable[[], Tensor]]]]
    notes: list[str]


def convert(source: str | Path, target: str | Path, parts: Sequence[str] | None = None, dtype: torch.dtype | None = None,
            config: str | Path | dict | None = None, runtime: Runtime | None = None) -> Report:
    """Write a model folder from a public release (any subset of it), one of its files, or another model folder.

    Args:
        parts: which of vision, language, projectors, unet, vae, tokenizer; None takes all that are there.
        dtype: precision of the floating-point weights; None keeps the source's.
        config: a config.json, whole or in part, or its content: for sizes that no preset has. Heads and eps cannot be read from weights.
    Returns:
        what was written, what is missing and what was dropped and why.
    Raises:
        CheckpointError: with the file, the tensor and what to do; the target is then as it was.
    """
    runtime = runtime or Runtime()
    found, target = survey(source), Path(target).expanduser()
    wanted = _choose(found, parts)
    planned = plan(found, config, wanted, dtype)
    words = found.tokenizer if "tokenizer" in wanted else None
    check_target(target, {*planned.parts, "tokenizer"} if words else set(planned.parts), Path(source).expanduser())
    report = Report(target, "WeGen model folder", preset=planned.config.name, space=planned.config.features.space,
                    tower=planned.config.features.tower, dropped=dict(found.dropped), notes=planned.notes,
                    scheduler=planned.config.scheduler.get("_class_name", "") if "unet" in planned.parts else "")
    total, done = sum(len(tensors) for tensors in planned.parts.values()), itertools.count(1)
    try:
        with replacing(target) as new:
            write_config(new, planned.config)
            for part, tensors in planned.parts.items():
                path = new / (PLACES[part] + ".safetensors")
                path.parent.mkdir(exist_ok=True)
                write_file(path, tensors, lambda key: runtime.tick(next(done), total, "Converting", text=key))
                report.parts.append(summarise(part, [path.relative_to(new).as_posix()], [spec for spec, _ in tensors.values()]))
            if words is not None:
                report.tokenizer = _copy_tokenizer(words, new, planned.config)
    except OSError as error:
        raise CheckpointError(f"{target}: could not be written ({error.strerror or error}). What was there before is unchanged.") from error
    report.missing = [p for p in (*PARTS, "tokenizer") if p not in planned.parts and not (p == "tokenizer" and report.tokenizer)]
    return report


def _choose(found: Survey, parts: Sequence[str] | None) -> set[str]:
    known = (*PARTS, *EXTRA, "tokenizer")
    there = set(found.parts) | ({"tokenizer"} if found.tokenizer else set())
    if parts is None:
        return there
    for part in parts:
        if part not in known:
            raise CheckpointError(f"part {part!r} is not one of {', '.join(known)}.")
        if part not in there:
            raise CheckpointError(f"{found.path}: no {part} there; it holds {', '.join(p for p in known if p in there)}. "
                                  f"Its usual source: {ORIGINS.get(part, 'a model folder')}.")
    return set(parts) | ({"layout"} & there if "unet" in parts else set())


def plan(found: Survey, config: str | Path | dict | None = None, wanted: set[str] | None = None,
         dtype: torch.dtype | None = None) -> Plan:
    """Decide the configuration, assemble each part and check it against its module; weights stay unread."""
    notes = list(found.notes)
    names = [p for p in (*PARTS, *EXTRA) if p in found.parts and (wanted is None or p in wanted)]
    full = configure(found, names, config)
    made: dict[str, dict[str, tuple[Spec, Callable[[], Tensor]]]] = {}
    for part in names:
        tensors = {}
        for target, pieces in found.parts[part].items():
            spec, make = _assemble(part, target, pieces, full)
            if dtype is not None and spec.dtype.is_floating_point:
                spec = Spec(spec.shape, dtype)
            tensors[target] = spec, make
        _check(part, tensors, full, found)
        made[part] = tensors
    if "vision" in made and found.model is None:
        positions = found.parts["vision"]["pos_embed"][0].spec.shape[1]
        if positions != 1 + full.vision.side**2:
            notes.append(f"{positions} positions were interpolated to {1 + full.vision.side ** 2}; the tower is «{RESIZED}».")
            full = dataclasses.replace(full, features=dataclasses.replace(full.features, tower=RESIZED))
    if found.model is None and "unet" in made:
        notes += [f"no {name} configuration beside the weights: the one of {full.name} was taken"
                  for name in ("unet", "scheduler") if name not in found.configs]
    empty = {name: {} for name in ("unet", "vae") if name not in made} | ({} if "unet" in made else {"scheduler": {}})
    return Plan(dataclasses.replace(full, **empty), made, notes)


def configure(found: Survey, parts: Sequence[str], config: str | Path | dict | None = None) -> ModelConfig:
    """The configuration of the parts: sizes from the weights, the rest from `config`, a folder of ours, or the preset that fits.

    Raises:
        CheckpointError: no preset fits and `config` does not say; or the parts are of different models.
    """
    given = _read_config(config)
    sizes = {part: found.dimensions(part) for part in parts}
    base = found.model or _preset(sizes, found, given)
    values = base.to_dict()
    for section, content in given.items():
        values[section] = {**values[section], **content} if isinstance(values.get(section), dict) else content
    values |= {name: {**found.configs[name], **given.get(name, {})} for name in found.configs}
    for part, fields in SECTIONS.items():
        if part not in sizes:
            continue
        for name in fields:
            if name in given.get(part, {}) and given[part][name] != sizes[part][name]:
                raise CheckpointError(f"the configuration says {part}.{name} = {given[part][name]}, the weights in "
                                      f"{', '.join(found.files[part])} have {sizes[part][name]}.")
            values[part][name] = sizes[part][name]
    try:
        full = ModelConfig.from_dict(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the configuration given with config is not valid: {error}") from error
    _check_widths(full, sizes, found)
    return full


def _read_config(config: str | Path | dict | None) -> dict[str, Any]:
    if config is None or isinstance(config, dict):
        return dict(config or {})
    try:
        values = json.loads(Path(config).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: cannot be read as a configuration ({error}).") from error
    values.pop("format_version", None)
    return values


def _preset(sizes: dict[str, dict[str, int]], found: Survey, given: dict[str, Any]) -> ModelConfig:
    """The preset whose sizes the weights have; without one, `given` must say what weights cannot."""
    chosen: dict[str, set[str]] = {}
    for part in sizes:
        fits = {name for name, preset in PRESETS.items() if _fits(preset, part, sizes[part])}
        told = "heads" in given.get(part, {}) if part in SECTIONS else part == "vae" and "vae" in found.configs or bool(given)
        if not fits and not told:
            shown = ", ".join(f"{k} {v}" for k, v in sizes[part].items())
            hint = f'{{"{part}": {{"heads": …, "eps": …}}}}' if part in SECTIONS else '{"features": {"width": …, "space": …}}'
            raise CheckpointError(f"{found.path}: the {part} ({shown}) has the sizes of no known model "
                                  f"({'; '.join(_sizes(p, part) for p in PRESETS.values())}). If it is one, pass a --config file that "
                                  f"says what weights do not: {hint}.")
        if fits:
            chosen[part] = fits
    if not chosen:
        base, name = PRESETS["wegen-7b"], str(given.get("name", "custom"))
        width = next(iter(_feature_widths(sizes).values()), base.features.width)
        shared = dict(space=f"{name}/8x8x{width}", tower=name, width=width)
        return dataclasses.replace(base, name=name, features=dataclasses.replace(base.features, **shared),
                                   decoder=dataclasses.replace(base.decoder, **shared))
    common = set.intersection(*chosen.values())
    if not common:
        raise CheckpointError(f"{found.path}: parts of different models: " + "; ".join(
            f"{part} ({', '.join(found.files[part])}) is {' or '.join(sorted(names))}" for part, names in chosen.items()) + ".")
    return next(preset for name, preset in PRESETS.items() if name in common)


def _expected(preset: ModelConfig, part: str) -> dict[str, int]:
    """The sizes that tell this preset's part from others'."""
    if part in SECTIONS:
        section = getattr(preset, part)
        return {name: getattr(section, name) for name in SECTIONS[part]}
    return {"projectors": {"width": preset.features.width, "language_width": preset.language.width},
            "unet": {k: preset.unet[k] for k in ("cross_attention_dim", "projection_class_embeddings_input_dim")},
            "vae": {"latent_channels": preset.vae["latent_channels"], "first_width": preset.vae.get("block_out_channels", (0,))[0]},
            "layout": {"width": preset.decoder.width}}[part]


def _fits(preset: ModelConfig, part: str, sizes: dict[str, int]) -> bool:
    expected = _expected(preset, part)
    return all(sizes[k] == v for k, v in expected.items() if v or k == "first_width")  # 0: open, as the miniature's vocabulary


def _sizes(preset: ModelConfig, part: str) -> str:
    return f"{preset.name}: " + ", ".join(f"{k} {v}" for k, v in _expected(preset, part).items() if v)


def _feature_widths(sizes: dict[str, dict[str, int]]) -> dict[str, int]:
    return {part: sizes[part][name] for part, name in (("vision", "width"), ("projectors", "width"), ("unet", "cross_attention_dim"),
                                                       ("layout", "width")) if part in sizes}


def _check_widths(config: ModelConfig, sizes: dict[str, dict[str, int]], found: Survey) -> None:
    """Tower, projectors and decoder must speak of the same features."""
    widths = _feature_widths(sizes)
    if any(width != config.features.width for width in widths.values()):
        shown = ", ".join(f"{part} {width}" for part, width in widths.items())
        raise CheckpointError(f"{found.path}: the parts' features differ in width ({shown}; {config.name} has "
                              f"{config.features.width}). They are not of one model.")
    if "projectors" in sizes and "language" in sizes and sizes["projectors"]["language_width"] != sizes["language"]["width"]:
        raise CheckpointError(f"{found.path}: the projectors fit a language model of width {sizes['projectors']['language_width']}, "
                              f"this one has {sizes['language']['width']}.")


# --- tensors ------------------------------------------------------------------------------------------------------

def _assemble(part: str, target: str, pieces: list[Piece], config: ModelConfig) -> tuple[Spec, Callable[[], Tensor]]:
    """Shape and precision of one target tensor, and the function that makes it from its pieces."""
    hows = {piece.row.how: piece for piece in pieces}
    if len(hows) != len(pieces) or ("copy" in hows and len(hows) > 1):
        raise CheckpointError(f"{pieces[0].file.path}: {' and '.join(p.key for p in pieces)} are two sources of one tensor. "
                              "Is the file a mixture of two layouts?")
    first = pieces[0]
    if "q" in hows or "v" in hows:
        if len(hows) != 2:
            have, lack = ("q_bias", "v_bias") if "q" in hows else ("v_bias", "q_bias")
            raise CheckpointError(f"{first.file.path}: {first.key} is there, its {lack} is not. EVA-CLIP stores both or a fused "
                                  f"qkv.bias; with {have} alone the file is incomplete.")
        q, v = hows["q"], hows["v"]

        def fuse() -> Tensor:
            bias = q.file.read(q.key)
            return torch.cat([bias, torch.zeros_like(bias), v.file.read(v.key)])

        return Spec((2 * q.spec.shape[0] + v.spec.shape[0],), q.spec.dtype), fuse
    if first.row.how == "positions":
        side, count = config.vision.side, first.spec.shape[1]
        if math.isqrt(count - 1) ** 2 != count - 1:
            raise CheckpointError(f"{first.file.path}: {first.key} has {count} positions, which are not one class token and a square grid.")
        if count != 1 + side * side:
            return (Spec((1, 1 + side * side, first.spec.shape[2]), first.spec.dtype),
                    lambda: resize_positions(first.file.read(first.key), side))
    return first.spec, lambda: first.file.read(first.key)


def skeleton(part: str, config: ModelConfig) -> nn.Module:
    """The module of a part on the meta device: names and shapes without memory."""
    from ..decoder import Decoder
    from ..features import Projectors
    from ..language import Language
    from ..vision import VisionTower

    with torch.device("meta"):
        if part == "vision":
            return VisionTower(config.vision)
        if part == "language":
            return Language(config.language)
        if part == "projectors":
            return Projectors(config.features, config.language.width)
        return getattr(Decoder(config.decoder, config.unet if part != "vae" else {}, config.vae if part == "vae" else {}, {}), part)


def _check(part: str, tensors: dict[str, tuple[Spec, Any]], config: ModelConfig, found: Survey) -> None:
    """Names and shapes against the module's, in words of the source's keys."""
    expected = {key: tuple(value.shape) for key, value in skeleton(part, config).state_dict().items()}
    source = {target: pieces[0].key for target, pieces in found.parts[part].items()}
    problems = [f"{source[k]} is {spec.shape}, expected {expected[k]}" for k, (spec, _) in tensors.items()
                if k in expected and spec.shape != expected[k]]
    problems += [f"{k} is missing" for k in expected if k not in tensors]
    problems += [f"{source[k]} is not part of the model" for k in tensors if k not in expected]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(f"{found.path}: the {part} in {', '.join(found.files[part])} is not a {config.name} {part}: "
                              f"{'; '.join(problems[:4])}{more}.")


def _copy_tokenizer(file: Path, folder: Path, config: ModelConfig) -> str:
    """Copy a tokenizer file and its table of WeGen's tokens; without one the public table is written."""
    shutil.copy(file, folder / file.name)
    added = file.with_name("added_tokens.json")
    if added.is_file():
        table = read_json(added)
    elif config.language.vocab_size == 32330:
        table = special_tokens(32000)
    else:
        raise CheckpointError(f"{file.parent}: no added_tokens.json beside {file.name}, and the vocabulary of {config.language.vocab_size} "
                              "is not the public 32330, so the special tokens' ids are not known.")
    if max(table.values()) >= config.language.vocab_size:
        raise CheckpointError(f"{added}: ids up to {max(table.values())}, but the language model has {config.language.vocab_size}.")
    (folder / "added_tokens.json").write_text(json.dumps(table, indent=1) + "\n")
    return file.name
