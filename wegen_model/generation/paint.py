"""Features become pictures: noise, denoising under the decoder's guidance, the VAE. Inference, training's sample sheets and the
miniature's recipe paint through these.

b pictures · n features · c feature width · k latent channels · h,w latent height and width · H,W pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.decoder import Decoder, noise
from ..runtime import Runtime, check_result


@torch.no_grad()
def latents(
    decoder: Decoder,
    tokens: Tensor,
    *,
    seed: int | Sequence[int] = 0,
    width: int | None = None,
    height: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    negative: Tensor | None = None,
    scheduler: str | None = None,
    time_ids: str | None = None,
    keep: tuple[Tensor, Tensor] | None = None,
    late: tuple[Tensor, float] | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """(b,k,h,w) latents, scaled as `Decoder.to_pixels` takes them.

    Args:
        tokens: (b,n,c) raw features.
        seed: of the noise, on the CPU: one generator a batch; of a sequence, one a row, whose noise is what it would be alone.
        width, height: in pixels. They, steps, guidance_scale, scheduler and time_ids: None takes what the decoder was made for.
        negative: (1,n,c) or (b,n,c) features that guidance pushes away from (decoder_presets.unconditional); None is zeros.
        keep: cells (1 or b,1,h,w) to be painted and latents (1 or b,k,h,w) of what stays: `Decoder.sample`.
        late: other features (b,n,c), and the share of the steps, counted from the end, that they condition.
        device, dtype: where and in which precision to compute; None as the UNet's weights are.
    Raises:
        NotANumber: NaN or infinity in them.
    """
    c, first = decoder.config, next(decoder.unet.parameters())
    device, dtype = first.device if device is None else device, first.dtype if dtype is None else dtype
    width, height = c.size if width is None else width, c.size if height is None else height
    generator: Any = torch.Generator().manual_seed(seed) if isinstance(seed, int) else [torch.Generator().manual_seed(s) for s in seed]
    start = noise(len(tokens), decoder.vae.config.latent_channels, height // decoder.factor, width // decoder.factor, generator)
    given, pooled = conditions(tokens, device, dtype)
    made = decoder.sample(
        given,
        pooled,
        start.to(device),
        steps=c.steps if steps is None else steps,
        guidance_scale=c.guidance_scale if guidance_scale is None else guidance_scale,
        negative=None if negative is None else conditions(negative, device, dtype),
        scheduler=scheduler,
        time_ids=time_ids,
        generator=generator,
        keep=None if keep is None else (keep[0].to(device), keep[1].to(device)),
        late=None if late is None else (*conditions(late[0], device, dtype), late[1]),
        runtime=runtime,
    )
    return check_result(made, "latents", unet=decoder.unet)


def pictures(decoder: Decoder, latents: Tensor, runtime: Runtime | None = None) -> Tensor:
    """(b,H,W,3) in 0..1, on the CPU, of scaled latents (b,k,h,w) on the VAE's device. NotANumber: as `latents`."""
    pixels = check_result(decoder.to_pixels(latents, runtime), "a picture", vae=decoder.vae)
    return ((pixels + 1) / 2).clamp(0, 1).movedim(1, -1)


def paint(decoder: Decoder, tokens: Tensor, *, runtime: Runtime | None = None, **options: Any) -> Tensor:
    """(b,H,W,3) pictures in 0..1 of features (b,n,c), on the CPU; options as `latents`."""
    return pictures(decoder, latents(decoder, tokens, runtime=runtime, **options), runtime)


def conditions(tokens: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Tokens and their mean, taken in float32."""
    tokens = tokens.to(device, torch.float32)
    return tokens.to(dtype), tokens.mean(1).to(dtype)
