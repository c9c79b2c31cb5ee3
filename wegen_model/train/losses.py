"""The losses of WeGen.

b rows · n features · c feature width · k latent channels

Source: the public code (`train_pipeline`, `ContinuousLVLMJointLLMSDVAR`): total = LM + MSE + cosine + diffusion through the
frozen UNet, min-SNR with gamma 5. The supplement's 10 % of dropped conditions, which that code lacks, are here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.decoder import Decoder


def feature_losses(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """MSE over all elements, and mean of 1 - cosine over features; both (…,c)."""
    return F.mse_loss(predicted, target), (1 - F.cosine_similarity(predicted, target, dim=-1)).mean()


def snr(alphas: Tensor, timesteps: Tensor) -> Tensor:
    """Signal-to-noise ratio of timesteps (b,) for cumulative alphas (T,)."""
    a = alphas[timesteps]
    return a / (1 - a).clamp(min=1e-8)


def diffusion_loss(
    decoder: Decoder,
    alphas: Tensor,
    latents: Tensor,
    tokens: Tensor,
    pooled: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    time_ids: Tensor,
    gamma: float | None = 5.0,
) -> tuple[Tensor, Tensor]:
    """Denoising loss of latents (b,k,h,w) under tokens (b,n,c); gradients reach the tokens.

    Weights: min(SNR, gamma) / SNR for noise prediction (the public code's), min(SNR + 1, gamma) / (SNR + 1) for v-prediction,
    which keeps the steps of (almost) no signal that a schedule of zero terminal SNR starts from; 1 without gamma.

    Returns:
        the mean loss, and the UNet's prediction (b,k,h,w).
    """
    a = alphas[timesteps][:, None, None, None]
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    predicted = decoder.denoise(noisy, timesteps, tokens, pooled, time_ids)
    ratio = snr(alphas, timesteps)
    velocity = decoder.scheduler_config.get("prediction_type") == "v_prediction"
    target = a.sqrt() * noise - (1 - a).sqrt() * latents if velocity else noise
    loss = (predicted.float() - target.float()).square().mean((1, 2, 3))
    if gamma is not None:
        ratio = ratio + 1 if velocity else ratio
        loss = loss * ratio.clamp(max=gamma) / ratio
    return loss.mean(), predicted


def alphas_cumprod(decoder: Decoder) -> Tensor:
    """(T,) of the decoder's own noise schedule, terminal SNR included."""
    return decoder.scheduler("DDPMScheduler").alphas_cumprod


def drop_conditions(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Zero the tokens (and so the pooled mean) of a share of rows: the unconditional input is learned."""
    keep = torch.rand(len(tokens), generator=generator) >= share
    return tokens * keep.to(tokens)[:, None, None]
