"""`visual-decoding`: the UNet learns to paint pictures from their features. Trained: UNet (and layout map), or an adapter on it.
Frozen: the tower and the VAE.

b pictures · n features · c feature width · k latent channels · s the tower's side, h,w the painted picture's, in pixels

Source: the supplement (all of the UNet, 10 % of the conditions dropped) and the public `train_pipeline` (VAE sample, uniform timesteps,
min-SNR 5, mean of the tokens as the pooled condition).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.image_folder import tell
from ...features import pool
from ...models.decoder import Decoder
from ...models.eva_clip import prepare
from ...models.lora import Adapters
from ..flops import decoder_flops, tower_flops
from ..losses import alphas_cumprod, diffusion_loss, drop_conditions
from ..modules import Components, DecoderModule
from ..settings import Settings
from ..trainer import Recipe, Stage

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


@dataclass
class Pictures:
    """One piece: `seen` (b,3,s,s) as the tower takes it, `painted` (b,h,w,3) uint8."""

    seen: Tensor
    painted: Tensor
    skipped: dict[str, str] = field(default_factory=dict)  # what the source could not read so far, and why


@dataclass
class Encoded:
    """One piece of pictures that were encoded before: `tokens` (b,n,c) and `latents` (b,k,h/f,w/f), scaled."""

    tokens: Tensor
    latents: Tensor
    height: int  # of the pictures, in pixels
    width: int


def recipe_of(s: Settings, pieces: int) -> Recipe:
    """The loop's part of the settings."""
    names = {f.name for f in dataclasses.fields(Recipe)} & {f.name for f in dataclasses.fields(Settings)}
    return Recipe(**{name: getattr(s, name) for name in names}, pieces=pieces)


def resize(picture: np.ndarray, size: int, crop: bool = False) -> Tensor:
    """(size,size,3) uint8: squashed to the square as in the public stages 2 and 3, or its middle cut out (stage 1). Bicubic."""
    x = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float()
    if crop:
        h, w = x.shape[-2:]
        side = min(h, w)
        x = x[..., (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return x[0].movedim(0, -1).round().clamp(0, 255).byte()


def see(parts: Components, pictures: list[np.ndarray], crop: bool = False) -> Tensor:
    """(b,3,s,s) normalised pixels for the tower, made exactly as in inference."""
    fit = "crop" if crop else "squash"
    size = parts.config.vision.image_size
    made = [prepare(torch.from_numpy(np.array(p)).float()[None] / 255, parts.config.vision, fit) for p in pictures]
    return torch.cat(made) if made else torch.zeros(0, 3, size, size)


@torch.no_grad()
def tower_tokens(parts: Components, seen: Tensor, at_once: int = 32) -> Tensor:
    """(b,n,c) float32 raw features of pixels (b,3,s,s)."""
    first = next(parts.tower.parameters())
    out = [pool(parts.tower(some.to(first.device, first.dtype)), tuple(parts.config.features.grid)).float() for some in seen.split(at_once)]
    return torch.cat(out) if len(seen) else torch.zeros(0, parts.config.features.count, parts.config.features.width, device=first.device)


@torch.no_grad()
def latents_of(decoder: Decoder, painted: Tensor, generator: torch.Generator | None, at_once: int = 4) -> Tensor:
    """(b,k,h,w) scaled latents of uint8 pictures (b,H,W,3), sampled; float32."""
    first = next(decoder.vae.parameters())
    out = []
    for some in painted.split(at_once):
        pixels = (some.to(first.device).to(first.dtype) / 127.5 - 1).movedim(-1, 1)
        out.append(decoder.to_latents(pixels, generator).float())
    return torch.cat(out)


def denoising(
    decoder: Decoder, alphas: Tensor, latents: Tensor, tokens: Tensor, size: tuple[int, int], s: Settings, generator: torch.Generator
) -> Tensor:
    """Mean denoising loss of latents (b,k,h,w) under tokens (b,n,c); noise and timesteps are drawn on the CPU. `size`: pixels."""
    device, b = latents.device, len(latents)
    steps = torch.randint(0, len(alphas), (b,), generator=generator).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    ids = torch.tensor([[*size, 0, 0, *size] if s.time_ids == "size" else [0] * 6], device=device).expand(b, -1)
    return diffusion_loss(decoder, alphas, latents, tokens, tokens.mean(1), steps, noise, ids, s.gamma or None)[0]


def decoding_stage(
    parts: Components, source: Any, s: Settings, parts_per_step: int, pieces: int = 1, groups: Callable | None = None
) -> Stage:
    """The stage over a source of samples (order.py).

    Args:
        parts_per_step: pieces of one step over all processes; `s.batch` is divided among them. pieces: those of one process.
    """
    decoder, count = parts.decoder, s.batch // parts_per_step
    size = s.size or parts.config.decoder.size
    alphas, told = alphas_cumprod(decoder), set()
    dtype = DTYPES[s.precision]
    trained = Adapters("unet", decoder.unet, s.lora) if s.lora else DecoderModule(decoder)
    _recompute(decoder.unet, s.checkpointing)

    def piece(step: int, part: int, of: int) -> Pictures | Encoded:
        if hasattr(source, "encoded"):
            return source.encoded(step, part, of, count)
        samples = source.samples(step, part, of, count)
        pictures = [p for sample in samples if (p := target(sample)) is not None]
        skipped = {f"sample {sample.key}": "it has no picture to paint" for sample in samples if target(sample) is None}
        if not pictures:
            raise ValueError(
                f"visual-decoding learns from pictures, and none of a batch of {samples[0].source or 'the data'} has one "
                f"({', '.join(sample.key for sample in samples[:3])}). Name sources with pictures as --data."
            )
        return Pictures(
            see(parts, pictures, s.crop), torch.stack([resize(p, size, s.crop) for p in pictures]), skipped | getattr(source, "skipped", {})
        )

    def loss(data: Pictures | Encoded, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        if isinstance(data, Encoded):
            tokens, latents, sides = data.tokens, data.latents, (data.height, data.width)
        else:
            tokens, latents = tower_tokens(parts, data.seen), latents_of(decoder, data.painted, generator)
            sides = tuple(data.painted.shape[1:3])
        device = next(decoder.unet.parameters()).device
        tokens = drop_conditions(tokens.to(device, torch.float32), s.drop, generator)
        value = denoising(decoder, alphas.to(device), latents.to(device, torch.float32), tokens, sides, s, generator)
        return {"loss": value * share["pictures"]}

    def place(device: torch.device) -> None:
        parts.frozen(parts.tower, decoder.vae, device=device, dtype=dtype)
        if s.lora:
            parts.frozen(decoder.unet, decoder.layout, device=device, dtype=dtype)
            _recompute(decoder.unet, s.checkpointing)

    unet, vae = decoder_flops(parts.config, size)
    painting, seeing = (2 if s.lora else 3) * unet, tower_flops(parts.config.vision) + vae

    def work(data: Pictures | Encoded) -> dict[str, float]:
        tell(told, getattr(data, "skipped", {}))
        return {"samples": _length(data), "flops": _length(data) * (painting + (seeing if isinstance(data, Pictures) else 0))}

    return Stage(
        "visual-decoding",
        trained,
        None,
        loss,
        recipe_of(s, pieces),
        groups=groups,
        piece=piece,
        place=place,
        counts=lambda data: {"pictures": float(_length(data))},
        work=work,
    )


def _length(data: Pictures | Encoded) -> int:
    return len(data.painted if isinstance(data, Pictures) else data.latents)


def _recompute(unet, on: bool) -> None:
    """Gradient checkpointing of a diffusers UNet, which only does it in training mode."""
    if on:
        unet.enable_gradient_checkpointing()
        unet.train()


def drawn(sample) -> np.ndarray | None:
    """The last picture that a sample draws."""
    return next((turn.drawn for turn in reversed(sample.turns) if turn.drawn is not None), None)


def target(sample) -> np.ndarray | None:
    """The picture of a sample that is painted: what was drawn last, else the first that was shown; None without pictures."""
    made = drawn(sample)
    return made if made is not None else next(iter(sample.pictures()), None)
