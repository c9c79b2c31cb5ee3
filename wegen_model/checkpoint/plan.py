"""Before a conversion: which configuration, which tensors, do they fit. Weights stay unread."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..bounds import check_diffusers
from ..config import PRESETS, ModelConfig
from ..models.quantization import INSIDE
from . import initialise as start
from . import shapes
from .model_paths import CheckpointError, read_json
from .scan import EXTRA, PARTS, Scan
from .tensor_file import Spec
from .tensors import LazyTensor, assemble, lay_in_blocks
from .unsupported import known_size

RESIZED = "official-224-resized"  # name of a tower whose positions were interpolated here
SECTIONS = {"vision": ("patch_size", "width", "layers", "mlp_width"), "language": ("vocab_size", "width", "layers", "mlp_width")}


@dataclass
class Plan:
    """A checked conversion: the configuration, and each part's tensors as (shape and precision, function that makes it)."""

    config: ModelConfig
    parts: dict[str, dict[str, LazyTensor]]
    notes: list[str]


def plan(
    found: Scan,
    config: str | Path | dict | None = None,
    wanted: set[str] | None = None,
    dtype: torch.dtype | None = None,
    initialise: bool = False,
    quick: bool = False,
    blocks: str | None = "",
) -> Plan:
    """Decide the configuration, assemble each part and check it against its module.

    Args:
        quick: a decoder that is as its configuration says is not checked against diffusers' own module, whose import takes seconds.
        blocks: kind that the matrices of tower and language model are quantized to; empty keeps blocks of the source, unless `dtype`
            asks for values; None always gives values.
    """
    notes = list(found.notes)
    names = [p for p in (*PARTS, *EXTRA) if p in found.parts and (wanted is None or p in wanted)]
    adapted = _adaptable(found, names) if initialise else {}
    full = configure(found, names, config, adapted)
    made: dict[str, dict[str, LazyTensor]] = {}
    for part in names:
        tensors = {target: assemble(pieces, full) for target, pieces in found.parts[part].items()}
        if part in adapted:
            notes.append(_adapt(part, tensors, full))
        if dtype is not None:
            tensors = {k: (Spec(s.shape, dtype), make) if s.dtype.is_floating_point else (s, make) for k, (s, make) in tensors.items()}
        if not (quick and _as_configured(part, tensors, full)):
            _check(part, tensors, full, found)
        made[part], left = lay_in_blocks(part, tensors, found.parts[part], blocks or "", keep=blocks is not None and dtype is None)
        if left:
            notes.append(f"{left} matrices of the {part} stay as they were: their rows are no whole {blocks} blocks")
    if blocks and not set(INSIDE) & set(made):
        raise CheckpointError(f"{found.path}: nothing to quantize: only {' and '.join(INSIDE)} are, and here is {', '.join(made)}.")
    if "vision" in made and found.model is None:
        positions = found.parts["vision"]["pos_embed"][0].spec.shape[1]
        if positions != 1 + full.vision.side**2:
            notes.append(f"{positions} positions were interpolated to {1 + full.vision.side**2}; the tower is «{RESIZED}».")
            full = dataclasses.replace(full, features=dataclasses.replace(full.features, tower=RESIZED))
    if found.model is None:
        notes += _defaults(found, made, full)
    empty: dict[str, Any] = {name: {} for name in ("unet", "vae") if name not in made} | ({} if "unet" in made else {"scheduler": {}})
    return Plan(dataclasses.replace(full, **empty), made, notes)


def _defaults(found: Scan, made: dict, full: ModelConfig) -> list[str]:
    """Notes on what the source does not say and was taken from the preset."""
    notes = []
    if "unet" in made:
        notes += [
            f"no {name} configuration beside the weights: the one of {full.name} was taken"
            for name in ("unet", "scheduler")
            if name not in found.configs
        ]
    if "vae" in made:
        scale, usual = full.vae.get("scaling_factor"), PRESETS["wegen-7b"].vae["scaling_factor"]
        if "vae" in found.configs and full.vae.get("latent_channels") == 4 and scale != usual:
            notes.append(f"the VAE's scaling factor is {scale}; SDXL's is {usual}, with which WeGen's decoders were trained")
        name = f"{found.path.name} {' '.join(found.files['vae'])}".lower()
        if "vae" not in found.configs and "fp16" in name and "fix" in name:
            full.vae["force_upcast"] = False
            notes.append("the file's name says that this VAE was made for 16 bits (fp16-fix): it is not widened to 32 when it decodes")
    return notes


# --- configuration ------------------------------------------------------------------------------------------------


def configure(
    found: Scan, parts: list[str], config: str | Path | dict | None = None, adapted: dict[str, ModelConfig] | None = None
) -> ModelConfig:
    """The configuration of the parts: sizes from the weights, the rest from `config`, a folder of ours, or the preset that fits.

    Args:
        adapted: part -> preset whose sizes a stock model's part will be given (initialise.py).
    Raises:
        CheckpointError: no preset fits and `config` does not say; or the parts are of different models.
    """
    given = _read_config(config)
    sizes = {part: _expected((adapted or {})[part], part) if part in (adapted or {}) else found.dimensions(part) for part in parts}
    base = found.model or _preset(sizes, found, given)
    values = base.to_dict()
    if "unet" in sizes and found.model is None and found.format and found.format.preset:
        values["decoder"] |= found.format.preset.settings()
    if "language" in sizes:
        values["language"] |= found.configs.get("language", {})
    for section, content in given.items():
        values[section] = {**values[section], **content} if isinstance(values.get(section), dict) else content
    for name in ("unet", "vae", "scheduler"):
        if name in found.configs and name not in (adapted or {}):
            values[name] = {**found.configs[name], **given.get(name, {})}
    for part, fields in SECTIONS.items():
        if part not in sizes:
            continue
        for name in fields:
            if name in given.get(part, {}) and given[part][name] != sizes[part][name]:
                raise CheckpointError(
                    f"the configuration says {part}.{name} = {given[part][name]}, the weights in "
                    f"{', '.join(found.files[part])} have {sizes[part][name]}."
                )
            values[part][name] = sizes[part][name]
    try:
        full = ModelConfig.from_dict(values)
        for name in ("unet", "vae", "scheduler"):
            check_diffusers(getattr(full, name), name)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the configuration given with config is not valid: {error}") from error
    _check_widths(full, sizes, found)
    return full


def _read_config(config: str | Path | dict | None) -> dict[str, Any]:
    if config is None or isinstance(config, dict):
        return dict(config or {})
    try:
        values = read_json(Path(config))
    except OSError as error:
        raise CheckpointError(f"{config}: cannot be read as a configuration ({error}).") from error
    values.pop("format_version", None)
    return values


def _preset(sizes: dict[str, dict[str, int]], found: Scan, given: dict[str, Any]) -> ModelConfig:
    """The preset whose sizes the weights have; without one, `given` must say what weights cannot."""
    chosen: dict[str, set[str]] = {}
    for part in sizes:
        fits = {name for name, preset in PRESETS.items() if _fits(preset, part, sizes[part])}
        if part in SECTIONS:
            told = part in given and "heads" in {**found.configs.get(part, {}), **given[part]}
        else:
            told = part == "vae" and "vae" in found.configs and not known_size(part, sizes[part]) or bool(given)
        if not fits and not told:
            raise CheckpointError(_misfit(part, sizes[part], found))
        if fits:
            chosen[part] = fits
    if not chosen:
        base, name = PRESETS["wegen-7b"], str(given.get("name", "custom"))
        width = next(iter(_feature_widths(sizes).values()), base.features.width)
        shared: dict[str, Any] = dict(space=f"{name}/8x8x{width}", tower=name, width=width)
        return dataclasses.replace(
            base, name=name, features=dataclasses.replace(base.features, **shared), decoder=dataclasses.replace(base.decoder, **shared)
        )
    common = set.intersection(*chosen.values())
    if not common:
        raise CheckpointError(
            f"{found.path}: parts of different models: "
            + "; ".join(f"{part} ({', '.join(found.files[part])}) is {' or '.join(sorted(names))}" for part, names in chosen.items())
            + "."
        )
    return next(preset for name, preset in PRESETS.items() if name in common)


def _misfit(part: str, sizes: dict[str, int], found: Scan) -> str:
    """The message for a component whose sizes no preset has."""
    files = ", ".join(found.files[part])
    known = known_size(part, sizes)
    if known:
        return f"{found.path}: the {part} in {files} is {known}"
    for preset in PRESETS.values() if part in SECTIONS else ():
        expected = _expected(preset, part)
        if sizes["layers"] < expected["layers"] and {**sizes, "layers": 0} == {**expected, "layers": 0}:
            return (
                f"{found.path}: the {part} in {files} has {sizes['layers']} blocks, {preset.name}'s has {expected['layers']}: from "
                f"block {sizes['layers']} on they are missing. Copy or download it again."
            )
    shown = ", ".join(f"{k} {v}" for k, v in sizes.items())
    hint = f'{{"{part}": {{"heads": …, "eps": …}}}}' if part in SECTIONS else '{"features": {"width": …, "space": …}}'
    return (
        f"{found.path}: the {part} ({shown}) has the sizes of no known model ({'; '.join(_sizes(p, part) for p in PRESETS.values())}). "
        f"Is it complete? If it is a model of another size, pass a --config file that says what weights do not: {hint}."
    )


def _expected(preset: ModelConfig, part: str) -> dict[str, int]:
    """The sizes that distinguish this preset's component from others'."""
    if part in SECTIONS:
        section = getattr(preset, part)
        return {name: getattr(section, name) for name in SECTIONS[part]}
    return {
        "projectors": {"width": preset.features.width, "language_width": preset.language.width},
        "unet": {k: preset.unet[k] for k in ("cross_attention_dim", "projection_class_embeddings_input_dim")},
        "vae": {"latent_channels": preset.vae["latent_channels"], "first_width": preset.vae.get("block_out_channels", (0,))[0]},
        "layout": {"width": preset.decoder.width},
    }[part]


def _fits(preset: ModelConfig, part: str, sizes: dict[str, int]) -> bool:
    expected = _expected(preset, part)
    return all(sizes[k] == v for k, v in expected.items() if v or k == "first_width")  # 0: open, as the miniature's vocabulary


def _sizes(preset: ModelConfig, part: str) -> str:
    return f"{preset.name}: " + ", ".join(f"{k} {v}" for k, v in _expected(preset, part).items() if v)


def _feature_widths(sizes: dict[str, dict[str, int]]) -> dict[str, int]:
    return {
        part: sizes[part][name]
        for part, name in (("vision", "width"), ("projectors", "width"), ("unet", "cross_attention_dim"), ("layout", "width"))
        if part in sizes
    }


def _check_widths(config: ModelConfig, sizes: dict[str, dict[str, int]], found: Scan) -> None:
    """Tower, projectors and decoder must have the same feature space."""
    widths = _feature_widths(sizes)
    if any(width != config.features.width for width in widths.values()):
        shown = ", ".join(f"{part} {width}" for part, width in widths.items())
        raise CheckpointError(
            f"{found.path}: the parts' features differ in width ({shown}; {config.name} has "
            f"{config.features.width}). They are not of one model."
        )
    if "projectors" in sizes and "language" in sizes and sizes["projectors"]["language_width"] != sizes["language"]["width"]:
        raise CheckpointError(
            f"{found.path}: the projectors fit a language model of width {sizes['projectors']['language_width']}, "
            f"this one has {sizes['language']['width']}."
        )


# --- stock models -------------------------------------------------------------------------------------------------


def _adaptable(found: Scan, parts: list[str]) -> dict[str, ModelConfig]:
    """part -> the preset that a stock LLaMA-2 or SDXL UNet can be made to fit."""
    chosen = {}
    for part in set(parts) & {"language", "unet"}:
        there = {target: pieces[0].spec.shape for target, pieces in found.parts[part].items()}
        for preset in PRESETS.values():
            if part == "language" and not preset.language.vocab_size:
                continue
            expected = {key: tuple(value.shape) for key, value in skeleton(part, preset).state_dict().items()}
            if start.adapts(part, there, expected):
                chosen[part] = preset
                break
    if not chosen:
        raise CheckpointError(
            f"{found.path}: nothing to initialise. --initialise begins training from a stock SDXL UNet or from LLaMA-2 "
            f"with its {start.PLAIN_VOCABULARY} tokens; here is {', '.join(parts) or 'nothing'} of other shapes."
        )
    return chosen


def _adapt(part: str, tensors: dict[str, LazyTensor], config: ModelConfig) -> str:
    """Replace what does not fit; returns the note."""
    expected = {key: tuple(value.shape) for key, value in skeleton(part, config).state_dict().items()}
    time = config.unet.get("projection_class_embeddings_input_dim", 0) - config.decoder.width
    changed = [key for key, (spec, _) in tensors.items() if spec.shape != expected[key]]
    for key in changed:
        tensors[key] = start.adapt(key, tensors[key], expected[key], time)
    what = (
        f"{start.ADDED} tokens were added with random embeddings"
        if part == "language"
        else f"{len(changed)} of {len(tensors)} tensors were initialised anew; the {time} time columns of add_embedding were copied"
    )
    return f"the {part} is the start of a training, not a trained WeGen: {what}"


# --- checks -------------------------------------------------------------------------------------------------------


def skeleton(part: str, config: ModelConfig) -> nn.Module:
    """The module of a part on the meta device: names and shapes without memory."""
    from ..models.decoder import Decoder
    from ..models.eva_clip import VisionTower
    from ..models.llama import Language
    from ..models.projectors import Projectors

    with torch.device("meta"):
        if part == "vision":
            return VisionTower(config.vision, shapes.Blank)
        if part == "language":
            return Language(config.language, shapes.Blank)
        if part == "projectors":
            return Projectors(config.features, config.language.width, shapes.Blank)
        return getattr(Decoder(config.decoder, config.unet if part != "vae" else {}, config.vae if part == "vae" else {}, {}), part)


def _as_configured(part: str, tensors: dict[str, LazyTensor], config: ModelConfig) -> bool:
    """Are these the tensors of an SDXL-shaped UNet or an AutoencoderKL of this configuration?"""
    values = {"unet": config.unet, "vae": config.vae}.get(part)
    if values is None or values.get("_class_name", "") not in ("", "UNet2DConditionModel", "AutoencoderKL"):
        return False
    try:
        return {key: spec.shape for key, (spec, _) in tensors.items()} == getattr(shapes, part)(values)
    except (KeyError, TypeError):  # a configuration that says less, or otherwise
        return False


def _check(part: str, tensors: dict[str, LazyTensor], config: ModelConfig, found: Scan) -> None:
    """Names and shapes against the module's, in words of the source's keys."""
    expected = {key: tuple(value.shape) for key, value in skeleton(part, config).state_dict().items()}
    source = {target: pieces[0].key for target, pieces in found.parts[part].items()}
    problems = [
        f"{source[k]} is {spec.shape}, expected {expected[k]}"
        for k, (spec, _) in tensors.items()
        if k in expected and spec.shape != expected[k]
    ]
    problems += [f"{k} is missing" for k in expected if k not in tensors]
    problems += [f"{source[k]} is not part of the model" for k in tensors if k not in expected]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(
            f"{found.path}: the {part} in {', '.join(found.files[part])} is not a {config.name} {part}: {'; '.join(problems[:4])}{more}."
        )
