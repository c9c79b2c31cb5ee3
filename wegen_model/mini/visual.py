"""`visual-decoding` of the miniature: the UNet learns to paint cached latents under cached features.

m pictures · n features · c feature width · k latent channels

The conditions are dropped for a tenth of the rows (the unconditional input is zeros), and blurred by noise for most, because
at work they are a language model's predictions rather than a tower's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from ..data.image_folder import rows
from ..models.decoder import Decoder
from ..models.decoder import noise as noise_of
from ..runtime import Runtime
from ..train.losses import alphas_cumprod, diffusion_loss, drop_conditions
from ..train.modules import DecoderModule
from ..train.trainer import Recipe, Stage
from .stages import to_float


def keep(value: Any, path: Path) -> Any:
    """Save a value where a later run of the recipe finds it, whole or not at all; returns it."""
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.replace(path)
    return value


def encode_latents(decoder: Decoder, pictures: np.ndarray, batch: int = 32, path: Path | None = None) -> Tensor:
    """(m,k,h,w) float16 latents of uint8 pictures, unscaled; kept at `path`."""
    if path and path.is_file():
        return torch.load(path, weights_only=True)
    with torch.no_grad():
        out = torch.cat(
            [decoder.to_latents((to_float(pictures[i : i + batch]) * 2 - 1).movedim(-1, 1)).half() for i in range(0, len(pictures), batch)]
        )
    return keep(out, path) if path else out


def preview_factors(latents: Tensor, pictures: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """(k+1,3): least-squares map from scaled latents (m,k,h,w) to the mean colour of their cell, last row the bias."""
    k, h = latents.shape[1], latents.shape[2]
    colour = torch.nn.functional.adaptive_avg_pool2d(to_float(pictures).movedim(-1, 1), h).movedim(1, -1).reshape(-1, 3)
    x = latents.float().movedim(1, -1).reshape(-1, k)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    return tuple(tuple(round(v, 5) for v in row) for row in torch.linalg.lstsq(x, colour).solution.tolist())


@torch.no_grad()
def paint_latents(decoder: Decoder, tokens: Tensor, seed: int, runtime: Runtime | None = None, batch: int = 32) -> Tensor:
    """(p,k,h,w) float16 latents, unscaled, as the UNet denoises them under raw features (p,n,c), in the steps and with the guidance
    of its configuration."""
    c, side = decoder.config, decoder.config.size // decoder.factor
    out = []
    for i, part in enumerate(tokens.split(batch)):
        start = noise_of(len(part), decoder.vae.config.latent_channels, side, side, seed + i)
        out.append(
            decoder.sample(part.float(), part.float().mean(1), start, steps=c.steps, guidance_scale=c.guidance_scale)
            / decoder.vae.config.scaling_factor
        )
        if runtime:
            runtime.tick((i + 1) * batch, len(tokens), "painting")
    return torch.cat(out).half()


def init_layout(decoder: Decoder, tokens: Tensor, latents: Tensor, ridge: float = 1e-2) -> float:
    """Start the layout as the ridge regression from tokens (m,n,c) to the latents (m,k,h,w) of their place; returns R2."""
    factor = decoder.layout.factor
    y = torch.nn.functional.pixel_unshuffle(latents.float(), factor).flatten(2).transpose(1, 2).flatten(0, 1)
    x = tokens.float().flatten(0, 1)
    w = torch.linalg.solve(x.T @ x + ridge * len(x) * torch.eye(x.shape[1]), x.T @ y)
    with torch.no_grad():
        decoder.layout.proj.weight.copy_(w.T)
    return 1 - ((x @ w - y).square().sum() / (y - y.mean(0)).square().sum()).item()


def visual_stage(
    config: ModelConfig,
    decoder: Decoder,
    tokens: Tensor,
    latents: Tensor,
    named: int,
    recipe: Recipe,
    batch: int = 12,
    drop: float = 0.1,
    noise: float = 0.5,
    folder_name: str = "visual-decoding",
    predicted: tuple[Tensor, list[int]] | None = None,
    sample=None,
    sample_every: int = 0,
) -> Stage:
    """Denoising under features (m,n,c) of latents (m,k,h,w); the first `named` rows are scenes.

    `predicted`: a writer's own features (p,n,c) and the rows they aim at: they replace a third of the conditions, so that
    the decoder learns to sharpen what regression blurs.
    """
    alphas = alphas_cumprod(decoder)
    total = len(latents)
    size = config.decoder.size
    scale = tokens[:named].float().std((0, 1)).norm() / tokens.shape[-1] ** 0.5

    def make(step: int):
        half = batch // 2
        return np.concatenate([rows(5, step, half, named), named + rows(6, step, batch - half, total - named)]), step

    def loss(data, generator):
        picked, step = data
        condition = tokens[picked].float()
        if predicted is not None:
            guesses, aims = predicted
            choice = torch.randint(len(aims), (batch // 3,), generator=generator).tolist()
            picked = np.concatenate([[aims[i] for i in choice], picked[batch // 3 :]])
            condition = torch.cat([guesses[choice].float(), tokens[picked[batch // 3 :]].float()])
        clean = latents[picked].float()
        level = noise * scale * torch.rand(len(picked), 1, 1, generator=generator) ** 2
        condition = condition + level * torch.randn(condition.shape, generator=generator)
        condition = drop_conditions(condition, drop, generator)
        steps = torch.randint(0, len(alphas), (len(picked),), generator=generator)
        ids = torch.tensor([[size, size, 0, 0, size, size]]).expand(len(picked), -1)
        value, _ = diffusion_loss(
            decoder, alphas, clean, condition, condition.mean(1), steps, torch.randn(clean.shape, generator=generator), ids
        )
        return {"loss": value}

    decoder.unet.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    return Stage(folder_name, DecoderModule(decoder), make, loss, recipe, sample, sample_every)
