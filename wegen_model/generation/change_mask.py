"""The mask of an edit, found by comparing what a decoder paints of the features before and after: "make the hat red" opens the hat.

b pictures · n features · c feature width · k latent channels · h,w latent cells · H,W pixels

Features themselves are no measure: the tower spreads a change over all cells, and a change of colour alone hardly shows in them.
Both are painted from the *same* noise, so that what differs comes from the features. The probe is the cheap way: what the UNet
takes for the clean picture under both, from the original noised to one time (as DiffEdit, Couairon et al. 2022, does with texts).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.decoder import Decoder, noise
from ..progress import ProgressEvent
from ..runtime import Runtime
from .keep import fit, side_pixels, widen
from .paint import conditions

THRESHOLD = 16.0  # of 255: a pixel that differs by more has changed
OPENING = 0.8  # percent of the shorter side: specks narrower than twice this are noise (1 pixel at 128)
GROW = 3.0  # percent of the shorter side around what changed (4 pixels at 128)
PROBE_TIME = 800  # of 1000: noise enough that the features decide, original enough that both paint the same
PROBE_DRAWS = 3  # noises over which a probe is averaged
PROBE_SCALE = THRESHOLD / 0.3  # a probe's distances, in the unit of pixels: .3 of a latent's spread counts as THRESHOLD
WHOLE = 0.9  # share of the picture's rim that changed, from which on it is the background that was asked for


def compare(before: Tensor, after: Tensor) -> Tensor:
    """(b,H,W) how much two paintings (b,H,W,3) in 0..1 differ at each pixel: the largest of the three colours, 0..255."""
    return (before - after).abs().amax(-1) * 255


@torch.no_grad()
def probe(
    decoder: Decoder,
    before: Tensor,
    after: Tensor,
    original: Tensor,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """(b,h,w) how much the UNet's clean latents differ under the two, in the unit of `compare`.

    Args:
        before, after: (b,n,c) raw features. original: (1 or b,k,h,w) scaled latents of the picture before.
    """
    first = next(decoder.unet.parameters())
    device, dtype = first.device if device is None else device, first.dtype if dtype is None else dtype
    solver = decoder.scheduler("DDIMScheduler")
    share = float(solver.alphas_cumprod[min(PROBE_TIME, len(solver.alphas_cumprod) - 1)])
    time = torch.tensor(PROBE_TIME, device=device)
    b, _, h, w = original.shape
    rows = len(before)
    generator = torch.Generator().manual_seed(seed)
    given = [conditions(tokens, device, dtype) for tokens in (before, after)]
    tokens, pooled = (torch.cat(both) for both in zip(*given))
    sizes = decoder.time_ids(h * decoder.factor, w * decoder.factor, 2 * rows, device)
    seen = torch.zeros(rows, h, w)
    for draw in range(PROBE_DRAWS):
        e = noise(1, original.shape[1], h, w, generator)
        x = (share**0.5 * original + (1 - share) ** 0.5 * e.to(original)).expand(rows, -1, -1, -1).repeat(2, 1, 1, 1).to(device)
        out = decoder.denoise(x.to(dtype), time, tokens, pooled, sizes).float()
        if solver.config.prediction_type == "v_prediction":
            clean = share**0.5 * x - (1 - share) ** 0.5 * out
        else:
            clean = (x - (1 - share) ** 0.5 * out) / share**0.5
        one, other = clean.chunk(2)
        seen += (one - other).square().mean(1).sqrt().cpu()
        (runtime or Runtime()).tick(ProgressEvent("denoise", draw + 1, PROBE_DRAWS))
    return seen / PROBE_DRAWS * PROBE_SCALE


def mask_of(change: Tensor, size: tuple[int, int], threshold: float = THRESHOLD, grow: float = GROW) -> Tensor:
    """A MASK (b,*size), 1 where (b,h,w) changes are above `threshold`: specks taken out, then grown by `grow` percent of the shorter side.

    Changes of latent cells are opened as cells: none of them is a speck.
    """
    changed = (change > threshold).float()
    if tuple(change.shape[-2:]) == tuple(size):
        speck = side_pixels(OPENING, size)
        changed = widen(widen(changed, -speck), speck)
    else:
        changed = F.interpolate(changed[:, None], size, mode="nearest")[:, 0]
    return widen(changed, side_pixels(grow, size)) if grow else changed


def is_whole(mask: Tensor) -> bool:
    """Does a mask (b,H,W) take nearly all of the picture's rim: a new background, or a new picture?"""
    rim = torch.cat([mask[:, 0].flatten(), mask[:, -1].flatten(), mask[:, :, 0].flatten(), mask[:, :, -1].flatten()])
    return float((rim > 0).float().mean()) > WHOLE


def overlay(mask: Tensor, picture: Tensor | None) -> Tensor:
    """(b,H,W,3): a mask (b,h,w) shown on a picture (1 or b,H,W,3) in 0..1, all that stays darkened; without a picture, white on black."""
    if picture is None:
        return mask[..., None].expand(-1, -1, -1, 3).clone()
    return picture * (0.25 + 0.75 * fit(mask, (picture.shape[1], picture.shape[2]))[..., None])
