"""Inference presets of decoders: guidance, steps, size numbers, and the unconditional input that guidance pushes away from.

The presets of the public inference codes stand with their checkpoints (checkpoint/formats). WeGen's SDXLAdapter guides against zeros;
Emu2's EmuVisualGeneration, and BLIP3-o's copy of it, against the features of a picture that is all zero once normalised. Both of the
latter, when their own language model generates, use what it writes to an empty prompt instead: that can be supplied as features.

Neither torch nor diffusers is imported here at first: the loader's choices come from presets, and ComfyUI reads them when it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..config import NEGATIVES, TIME_IDS, ModelConfig

if TYPE_CHECKING:
    from ..features import Features
    from ..runtime import Runtime


@dataclass(frozen=True)
class InferencePreset:
    """The settings of a public decoder's own inference code. The scheduler is the checkpoint's."""

    name: str
    negative: str  # of config.NEGATIVES
    guidance_scale: float
    steps: int
    time_ids: str  # of config.TIME_IDS

    def __post_init__(self) -> None:
        if self.negative not in NEGATIVES or self.time_ids not in TIME_IDS:
            raise ValueError(f"decoder preset {self.name!r}: negative {self.negative!r} or time_ids {self.time_ids!r} is not known.")

    def settings(self) -> dict[str, Any]:
        """The fields of a DecoderConfig that it sets."""
        return dict(preset=self.name, negative=self.negative, guidance_scale=self.guidance_scale, steps=self.steps, time_ids=self.time_ids)

    def text(self) -> str:
        """The settings in words, for tooltips."""
        return f"guidance {self.guidance_scale:g} against {NEGATIVES[self.negative].short}, {self.steps} steps"


def apply(config: ModelConfig, preset: InferencePreset | None) -> ModelConfig:
    """The configuration with the preset's settings for its decoder; None leaves it."""
    return config if preset is None else replace(config, decoder=replace(config.decoder, **preset.settings()))


def describe(config: ModelConfig) -> str:
    """The decoder's inference settings in words, its preset first."""
    c = config.decoder
    return (
        f"{c.preset}: guidance {c.guidance_scale:g} against {NEGATIVES[c.negative].text if c.negative in NEGATIVES else c.negative}, {c.steps} steps of "
        f"{config.scheduler.get('_class_name', 'the scheduler')}, size numbers «{c.time_ids}»"
    )


def unconditional(
    config: ModelConfig, given: str | Features | None, blank: Callable[[], Features] | None, runtime: Runtime
) -> Features | None:
    """The unconditional input of a decoder.

    Args:
        given: one of config.NEGATIVES, or features; None as the decoder was made for.
        blank: a callable that gives the features of a blank picture, or None where no tower is at hand.
    Returns:
        one row of features; None is zeros.
    """
    from ..features import Features, check_space

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
