"""How a decoder is driven: presets of the public inference codes, and the unconditional input that guidance pushes away from.

Sources: WeGen's SDXLAdapter (zeros, guidance 6), Emu2's EmuVisualGeneration and BLIP3-o's copy of it (the features of a picture that is
all zero once normalised, guidance 3, 50 steps). Both of the latter, when their own language model generates, use what it writes to an
empty prompt instead: that can be supplied as features.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import DECODERS, NEGATIVES, ModelConfig
from ..features import Features, check_space
from ..runtime import Runtime


def preset(config: ModelConfig, name: str | None) -> ModelConfig:
    """The configuration with its decoder driven like a public one (a key of config.DECODERS); None leaves it."""
    if name is None:
        return config
    if name not in DECODERS:
        raise ValueError(f"decoder preset {name!r} is not one of {', '.join(DECODERS)}.")
    return replace(config, decoder=replace(config.decoder, preset=name, **DECODERS[name]))


def describe(config: ModelConfig) -> str:
    """How the decoder of a configuration is driven, in words."""
    c = config.decoder
    return (
        f"like {c.preset}: guidance {c.guidance_scale:g} against {NEGATIVES.get(c.negative, c.negative)}, {c.steps} steps of "
        f"{config.scheduler.get('_class_name', 'the scheduler')}, size numbers «{c.time_ids}»"
    )


def unconditional(config: ModelConfig, given: str | Features | None, blank, runtime: Runtime) -> Features | None:
    """The unconditional input of a decoder.

    Args:
        given: one of config.NEGATIVES, or features; None as the decoder was made for.
        blank: a callable that gives the features of a blank picture, or None where no tower is at hand.
    Returns:
        one row of features; None is zeros.
    """
    c = config.decoder
    if isinstance(given, Features):
        where = "SDXL Feature Decoder, negative_features"
        given.check_finite(where)
        note = check_space(given, c.space, c.tower, f"the decoder '{config.name}'", where, width=c.width)
        if note:
            runtime.warn(note)
        return given[:1]
    kind = given or c.negative
    if kind not in NEGATIVES:
        raise ValueError(f"decoder '{config.name}': its unconditional input is {kind!r}; known are {', '.join(NEGATIVES)}.")
    if kind == "zeros":
        return None
    if blank is None:
        raise ValueError(
            f"SDXL Feature Decoder: the decoder '{config.name}' is guided against the features of a blank picture, and its "
            "folder has no tower to make them. Connect the model to negative_features, or set negative to «zeros»."
        )
    return blank()
