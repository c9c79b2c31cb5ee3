"""What frozen towers and VAEs make of pictures, in batches; and that, or the pictures, kept in memory for runs that see a picture often.

b, m pictures · n features · c feature width · k latent channels · s the tower's side, H,W the painted picture's, in pixels
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.model_inputs import KeyedPicture, ShownPicture, look, target_pixels
from ..features import pool
from ..models.decoder import Decoder
from .modules import Components


@torch.no_grad()
def tower_features(components: Components, pixels: Tensor, at_once: int = 32) -> Tensor:
    """(b,n,c) float32 raw features of normalised pixels (b,3,s,s)."""
    tower, f = components.need_tower(), components.config.features
    first = next(tower.parameters())
    out = [pool(tower(some.to(first.device, first.dtype)), f.grid).float() for some in pixels.split(at_once)]
    return torch.cat(out) if len(pixels) else torch.zeros(0, f.count, f.width, device=first.device)


@torch.no_grad()
def vae_latents(decoder: Decoder, painted: Tensor, generator: torch.Generator | None, at_once: int = 4) -> Tensor:
    """(b,k,h,w) scaled latents, float32, of uint8 pictures (b,H,W,3): sampled with a generator, else the mode."""
    first = next(decoder.vae.parameters())
    out = []
    for some in painted.split(at_once):
        pixels = (some.to(first.device).to(first.dtype) / 127.5 - 1).movedim(-1, 1)
        out.append(decoder.to_latents(pixels, generator).float())
    return torch.cat(out)


class EncodedPictures:
    """Features and latents by a picture's key, each encoded when it is first asked for, on the CPU.

    Pictures without a key are encoded every time, and so are those that come when `limit_gb` is full. `dtype`: of what is kept.
    """

    def __init__(
        self, components: Components, size: int, dtype: torch.dtype = torch.float16, crop: bool = False, limit_gb: float = float("inf")
    ):
        self.components, self.size, self.dtype, self.crop = components, size, dtype, crop
        self.room = Room(limit_gb)
        self.known_features: dict[Any, Tensor] = {}
        self.known_latents: dict[Any, Tensor] = {}

    def features(self, pictures: Sequence[ShownPicture]) -> Tensor:
        """(m,n,c) float32 raw."""
        f = self.components.config.features
        fit = "crop" if self.crop else "squash"
        return self._get(
            self.known_features,
            pictures,
            lambda some: tower_features(self.components, look(some, self.components.config, fit)),
            (f.count, f.width),
        )

    def latents(self, pictures: Sequence[ShownPicture]) -> Tensor:
        """(m,k,h,w) float32 scaled, the modes."""
        decoder = self.components.decoder
        if decoder is None:
            raise ValueError("latents are made by a VAE, and this model folder has none.")

        def encode(some: list[ShownPicture]) -> Tensor:
            return vae_latents(decoder, torch.stack([target_pixels(p.picture, self.size, self.crop) for p in some]), None)

        return self._get(self.known_latents, pictures, encode, (0,))

    def _get(self, known: dict, pictures: Sequence[ShownPicture], encode: Any, empty: tuple[int, ...]) -> Tensor:
        if not pictures:
            return torch.zeros(0, *empty)
        names = [(at,) if p.key is None else p.key for at, p in enumerate(pictures)]
        new = {name: p for name, p in zip(names, pictures) if name not in known}
        found = {}
        if new:
            made = encode(list(new.values())).to("cpu", self.dtype)
            found = dict(zip(new, made.unbind()))
            for name, p in new.items():
                if p.key is not None and self.room.take(found[name].numel() * found[name].element_size()):
                    known[p.key] = found[name].clone()
        return torch.stack([found[name] if name in found else known[name] for name in names]).float()


class KeptPictures:
    """Pictures of up to LARGEST bytes as they are, by key, so that they are drawn or read once."""

    LARGEST = 1 << 20

    def __init__(self, limit_gb: float):
        self.room = Room(limit_gb)
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, pictures: Sequence[ShownPicture]) -> list[ShownPicture]:
        """The same pictures, known ones from memory; keys stay."""
        return [self._kept(p) for p in pictures]

    def _kept(self, shown: ShownPicture) -> ShownPicture:
        key = getattr(shown.picture, "key", None)
        if key is None:
            return shown
        pixels = self.known.get(key)
        if pixels is None:
            pixels = np.asarray(shown.picture)
            if pixels.nbytes <= self.LARGEST and self.room.take(pixels.nbytes):
                self.known[key] = pixels
        return ShownPicture(KeyedPicture(key, lambda: pixels), shown.box)


class Room:
    """How much of a bound is left; says once when it is full."""

    def __init__(self, limit_gb: float):
        self.limit, self.taken, self.full = limit_gb * 1e9, 0, False

    def take(self, size: int) -> bool:
        """Is there room for so many bytes? Then they are taken."""
        if self.taken + size > self.limit:
            if not self.full:
                logging.getLogger("wegen").warning(
                    "The cache is full (cache_gb is %g): what comes from now on is made anew each time.", self.limit / 1e9
                )
            self.full = True
            return False
        self.taken += size
        return True
