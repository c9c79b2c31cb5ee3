"""How much arithmetic a sample takes, counted on the meta device; for MFU and for estimates before a run.

A multiply and an add are two FLOP. Backward passes count twice the forward; recomputation by checkpointing does not count (that is what
makes it model FLOP, the M of MFU).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ..config import ModelConfig, VisionConfig


def tower_flops(v: VisionConfig) -> float:
    """Forward pass of the tower over one picture: projections, attention, MLP."""
    p = v.side**2 + 1
    per_layer = 2 * p * (4 * v.width**2 + 2 * v.width * v.mlp_width) + 4 * p * p * v.width
    return float(v.layers * per_layer + 2 * p * 3 * v.patch_size**2 * v.width)


def writer_flops(config: ModelConfig, b: int, t: int) -> float:
    """Forward pass of the language model over b sequences of t tokens, with its output layer; projectors are left out (0.1 %)."""
    c = config.language
    matrices = c.layers * (4 * c.width**2 + 3 * c.width * c.mlp_width) + c.width * c.vocab_size
    return float(2 * b * t * matrices + c.layers * 2 * b * t * t * c.width)  # causal: half of the attention's square


def decoder_flops(config: ModelConfig, size: int) -> tuple[float, float]:
    """Forward passes of UNet and VAE encoder over one picture of `size` pixels a side."""
    return _decoder_flops(_key(config.unet), _key(config.vae), _key(config.scheduler), config.decoder, size)


def _key(values: dict[str, Any]) -> tuple:
    return tuple(sorted((k, _frozen(v)) for k, v in values.items()))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=8)
def _decoder_flops(unet: tuple, vae: tuple, scheduler: tuple, decoder, size: int) -> tuple[float, float]:
    from torch.utils.flop_counter import FlopCounterMode

    from ..models.decoder import Decoder

    with torch.device("meta"), torch.no_grad():
        model = Decoder(decoder, dict(unet), dict(vae), dict(scheduler))
        side, k = size // model.factor, model.vae.config.latent_channels
        tokens = torch.empty(1, decoder.grid[0] * decoder.grid[1], decoder.width)
        with FlopCounterMode(display=False) as painting:
            model.denoise(torch.empty(1, k, side, side), torch.empty(1), tokens, tokens.mean(1), torch.empty(1, 6))
        with FlopCounterMode(display=False) as encoding:
            model.vae.encode(torch.empty(1, 3, size, size))
    return float(painting.get_total_flops()), float(encoding.get_total_flops())


def estimate(
    config: ModelConfig,
    stage: str,
    s,
    devices: int,
    peak: float,
    mfu: float,
    tokens: int = 320,
    written: float = 0.9,
    pictures: float = 1.5,
) -> str:
    """A run's arithmetic, line by line.

    Args:
        peak: FLOP/s of one device. mfu: the share of it that a run reaches (an assumption: measure yours).
        tokens: mean length of a sample. written, pictures: drawn, and drawn or shown, pictures of a sample, on the mean.
    """
    if stage in ("vae", "vae-decoder"):
        raise ValueError(f"estimate: the work of {stage} is not counted. Choose tower, visual-decoding, stage-1 or stage-2.")
    size = s.size or config.decoder.size
    unet, vae = decoder_flops(config, size)
    tower = tower_flops(config.vision)
    if stage == "tower":
        lines = [("tower, forward and backward", tower, 3.0)]
    elif stage == "visual-decoding":
        lines = [
            ("tower, forward", tower, 1.0),
            ("VAE encoder, forward", vae, 1.0),
            (f"UNet at {size} px, forward and backward", unet, 2.0 if s.lora else 3.0),
        ]
    else:
        lines = [
            (f"language model, {tokens} tokens, forward and backward", writer_flops(config, 1, tokens), 2.0 if s.lora else 3.0),
            (f"tower, {pictures:g} pictures, forward", tower, pictures),
        ]
        if s.diffusion_weight:
            lines += [
                (f"VAE encoder, {written:g} pictures", vae, written),
                (f"frozen UNet at {size} px, {written:g} pictures, forward and backward to its input", unet, 2 * written),
            ]
    each = sum(flops * times for _, flops, times in lines)
    total = each * s.batch * s.steps
    hours = total / (devices * peak * mfu) / 3600
    text = [f"{name}: {flops / 1e12:.2f} TFLOP x {times:g} = {flops * times / 1e12:.2f} TFLOP" for name, flops, times in lines]
    text += [
        f"one sample: {each / 1e12:.2f} TFLOP",
        f"{s.steps:,} steps x {s.batch:,} samples = {s.steps * s.batch / 1e6:.1f} million samples = {total:.2e} FLOP",
        f"{devices} devices x {peak / 1e12:.0f} TFLOP/s x {mfu:.0%} = {devices * peak * mfu / 1e15:.1f} PFLOP/s: {hours:.1f} hours, "
        f"{hours * devices:,.0f} device hours",
    ]
    return "\n".join(text)
