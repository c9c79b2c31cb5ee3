"""What a configuration may ask for: bounds far past any model, checked before anything is built or allocated.

Functions raise ValueError that names section and field; the readers of files (checkpoint/model_folder.py) add the file. Types are checked
before, by fileio.from_dict.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

LAYERS = 1024
WIDTH = 1 << 20
PIXELS = 1 << 16  # along one side
TOKENS = 1 << 24  # of a vocabulary, or positions
STEPS = 10_000  # of denoising
TIMES = 100_000  # of a noise schedule in training


def _check(section: Any, name: str, **limits: tuple[int, int]) -> None:
    """ValueError for a field that is not within its limits (low, high)."""
    for key, (low, high) in limits.items():
        value = getattr(section, key)
        if not all(low <= one <= high for one in (value if isinstance(value, (tuple, list)) else (value,))):
            raise ValueError(f"{name}.{key} is {value}: it must be {low} to {high}")


def check_vision(c: Any) -> None:
    """A VisionConfig."""
    _check(c, "vision", image_size=(1, PIXELS), patch_size=(1, c.image_size), width=(1, WIDTH), layers=(1, LAYERS))
    _check(c, "vision", heads=(1, c.width), mlp_width=(1, WIDTH), eps=(0, 1))
    if c.width % c.heads:
        raise ValueError(f"vision.heads is {c.heads}, which does not divide the width of {c.width}")
    if len(c.mean) != 3 or len(c.std) != 3 or 0 in c.std:
        raise ValueError("vision.mean and vision.std must be three numbers each, and none of std 0")


def check_language(c: Any) -> None:
    """A LanguageConfig. A vocabulary of 0 is open, as in the miniature's preset."""
    _check(c, "language", vocab_size=(0, TOKENS), width=(1, WIDTH), layers=(1, LAYERS), heads=(1, c.width))
    _check(c, "language", mlp_width=(1, WIDTH), positions=(1, TOKENS), eps=(0, 1))
    if c.width % c.heads or c.width // c.heads % 2:
        raise ValueError(f"language.heads is {c.heads}, which does not divide the width of {c.width} into even numbers")
    if c.rope_theta <= 0:
        raise ValueError(f"language.rope_theta is {c.rope_theta}: it must be more than 0")


def check_features(c: Any) -> None:
    """A FeatureConfig."""
    _check(c, "features", grid=(1, 1024), width=(1, WIDTH), pointer_blocks=(0, LAYERS))


def check_decoder(c: Any, time_ids: Collection[str], negatives: Collection[str]) -> None:
    """A DecoderConfig."""
    _check(c, "decoder", width=(1, WIDTH), grid=(1, 1024), steps=(1, STEPS), size=(8, PIXELS), layout_channels=(0, 4096))
    _check(c, "decoder", layout_factor=(1, 256))
    if any(len(row) != 3 for row in c.latent_rgb):
        raise ValueError("decoder.latent_rgb must be rows of three numbers")
    for name, value, known in (("time_ids", c.time_ids, time_ids), ("negative", c.negative, negatives)):
        if value not in known:
            raise ValueError(f"decoder.{name} is {value!r}: choose {', '.join(known)}")


def check_diffusers(values: dict[str, Any], where: str) -> None:
    """Sizes in a diffusers configuration, before anything is built of it. ValueError names the field."""
    for key, value in values.items():
        ones = list(value) if isinstance(value, (list, tuple)) else [value]
        ones = [one for two in ones for one in (two if isinstance(two, (list, tuple)) else [two])]
        if key == "num_train_timesteps" and not (type(value) is int and 1 <= value <= TIMES):
            raise ValueError(f"{where}: {key} is {str(value)[:40]}: it must be a whole number, 1 to {TIMES}")
        if "layers_per_block" in key and not all(one is None or type(one) is int and 0 <= one <= LAYERS // 4 for one in ones):
            raise ValueError(f"{where}: {key} is {str(value)[:40]}: it must be whole numbers, 0 to {LAYERS // 4}")
        if key.endswith("block_out_channels") and not (ones and all(type(one) is int and 1 <= one <= 1 << 16 for one in ones)):
            raise ValueError(f"{where}: {key} is {str(value)[:40]}: it must be a list of whole numbers, 1 to {1 << 16}")
        if key in ("in_channels", "out_channels", "latent_channels", "cross_attention_dim") and not (
            value is None or all(type(one) is int and 1 <= one <= WIDTH for one in ones)
        ):
            raise ValueError(f"{where}: {key} is {str(value)[:40]}: it must be a whole number from 1 on")
        if key == "scaling_factor" and not (type(value) in (int, float) and value > 0):
            raise ValueError(f"{where}: {key} is {str(value)[:40]}: it must be a number above 0")
        if len(ones) > TIMES or any(type(one) is int and abs(one) > 1 << 32 for one in ones):
            raise ValueError(f"{where}: {key} is longer or larger than any model's")
