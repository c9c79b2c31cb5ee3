"""`vae` and `vae-decoder`: an autoencoder learns to make latents and pictures; its decoder alone goes on under latents that stay.

b pictures · k latent channels · h,w latent cells · H,W pixels

For models made from nothing: public ones bring SDXL's. `vae-decoder` mends what the UNet leaves soft (`own_latents`), and leaves the
latents as they are, and with them a UNet that was trained on them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.model_inputs import ShownPicture, target, target_pixels
from ...data.sample import Picture
from ...runtime import Runtime
from ..encoders import EncodedPictures, KeptPictures
from ..modules import Components, export
from ..own_pictures import OwnPictures, own_latents
from ..settings import Settings
from ..trainer import TrainingTask
from .decoder import warn_once

CELLS = 8  # latent cells along a side of the crops of `vae`
DECODER_CELLS = 10  # and of `vae-decoder`, whose outer cells have no context and do not count
NOISE, DECODER_NOISE = 0.05, 0.03  # on latents, of their standard deviation
MEASURED = 2000  # pictures whose latents give their scale
FITTED = 4000  # pictures that the feature-to-latent map is fitted to
SHOWN = 500  # pictures that the preview's colours are fitted to


@dataclass
class CropBatch:
    """`pixels` (b,3,H,W) in -1..1; for `vae-decoder` also `latents` (b,k,h,w), unscaled, and `inside` (b,1,H,W), where the error counts."""

    pixels: Tensor
    latents: Tensor | None = None
    inside: Tensor | None = None
    skipped: dict[str, str] = field(default_factory=dict)


class _PictureTask(TrainingTask):
    """Pictures of a source at the size of the decoder."""

    def __init__(self, name: str, model: nn.Module, components: Components, source: Any, settings: Settings):
        super().__init__(name, model, settings)
        self.components, self.source, self.decoder = components, source, components.need_decoder()
        self.size = settings.size or components.config.decoder.size
        self.kept = KeptPictures(settings.cache_gb) if settings.cache else None
        self.encodes = self.kept is not None  # worker processes would keep the pictures each
        self._warned: set[str] = set()

    def _target(self, picture: Picture) -> Tensor:
        """(H,W,3) uint8, as it is painted."""
        return target_pixels(picture, self.size, self.settings.crop)

    def _pictures(self, step: int, index: int, count: int) -> list[ShownPicture]:
        samples = self.source.samples(step, index, count, self.settings.batch // count)
        found = [ShownPicture(p) for s in samples if (p := target(s)) is not None]
        if not found:
            raise ValueError(f"{self.name}: the stage learns from pictures, and none of a batch has one. Name sources with pictures.")
        return found if self.kept is None else self.kept(found)

    def items(self, batch: CropBatch) -> dict[str, float]:
        return {"pictures": float(len(batch.pixels))}

    def work(self, batch: CropBatch) -> dict[str, float]:
        warn_once(self._warned, batch.skipped)
        return {"samples": len(batch.pixels)}

    def _errors(self, error: Tensor, count: Tensor | int, share: float) -> dict[str, Tensor]:
        """L1, squared and gradient error over `count` values."""
        edges = sum((error.diff(dim=d).abs().sum() for d in (-1, -2)), torch.zeros((), device=error.device)) / count
        mse = error.square().sum() / count
        loss = error.abs().sum() / count + 2 * mse + 0.5 * edges
        return {"loss": loss * share, "mse": mse.detach(), "psnr": -10 * (mse.detach() / 4).log10()}


class VaeTask(_PictureTask):
    """The whole autoencoder on crops. A little noise and a pull to zero keep the latents smooth."""

    def __init__(self, components: Components, source: Any, settings: Settings):
        super().__init__("vae", components.need_decoder().vae, components, source, settings)
        self.vae: Any = self.model  # diffusers'

    def micro_batch(self, step: int, index: int, count: int) -> CropBatch:
        factor = self.decoder.factor
        side = min(CELLS * factor, self.size)
        rng = np.random.default_rng((4, self.settings.seed, step, index))
        crops = []
        for picture in self._pictures(step, index, count):
            whole = self._target(picture.picture)
            y, x = (int(v) * factor for v in rng.integers(0, (self.size - side) // factor + 1, 2))
            crops.append(whole[y : y + side, x : x + side])
        return CropBatch(_pixels(torch.stack(crops)), skipped=dict(getattr(self.source, "skipped", {})))

    def loss(self, batch: CropBatch, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device
        pixels = batch.pixels.to(device)
        latents = self.decoder.to_latents(pixels, generator if self._spreads else None) / self.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator).to(device)
        error = self.vae.decode(latents + NOISE * latents.detach().std() * noise).sample - pixels
        out = self._errors(error, error.numel(), share["pictures"])
        pull = 1e-3 * latents.square().mean() * share["pictures"]
        return out | {"loss": out["loss"] + pull, "std": latents.detach().std()}

    @property
    def _spreads(self) -> bool:
        """Does the VAE give a distribution (AutoencoderKL)? Its samples are what is decoded then."""
        return hasattr(self.model, "quant_conv")

    @torch.no_grad()
    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        """The VAE with the scale of its latents, the colours of its previews, and, where the decoder has a feature-to-latent map, that map
        fitted to it: the start of `visual-decoding`."""
        parts, config, decoder = self.components, self.components.config, self.decoder
        decoder.vae = type(self.vae).from_config(self.vae.config)  # the trained one may be in shards
        decoder.vae.load_state_dict(weights)
        decoder.vae.to(next(iter(weights.values())).device).eval()
        decoder.vae.register_to_config(scaling_factor=1.0)
        encoded = EncodedPictures(parts, self.size, crop=self.settings.crop)
        pictures = self._some(max(MEASURED, FITTED if decoder.layout is not None else 0))
        latents = torch.cat([encoded.latents(pictures[i : i + 32]) for i in range(0, len(pictures), 32)])
        scale = round(1 / latents[:MEASURED].std().item(), 5)
        decoder.vae.register_to_config(scaling_factor=scale)
        shown = torch.stack([self._target(p.picture) for p in pictures[:SHOWN]])
        states = {"vae": weights}
        if decoder.layout is not None:
            tokens = torch.cat([encoded.features(pictures[i : i + 64]) for i in range(0, min(FITTED, len(pictures)), 64)])
            states["layout"] = {"proj.weight": fit_layout(tokens, scale * latents[: len(tokens)], decoder.layout.factor)}
        colours = preview_colours(scale * latents[:SHOWN], shown)
        config = dataclasses.replace(
            config, vae=config.vae | {"scaling_factor": scale}, decoder=dataclasses.replace(config.decoder, latent_rgb=colours)
        )
        return str(export(source, target, states, config))

    def _small(self, shown: ShownPicture) -> ShownPicture:
        """The picture at the size that is painted, where it is held in memory."""
        return shown if shown.key is not None else ShownPicture(self._target(shown.picture).numpy())

    def _some(self, count: int) -> list[ShownPicture]:
        out: list[ShownPicture] = []
        for step in range(count):
            out += [self._small(p) for p in self._pictures(step, 0, 1)]
            if len(out) >= count:
                break
        return out[:count]


class VaeDecoderTask(_PictureTask):
    """The decoder alone, on the most varied of three random crops; a share of the latents (`own_latents`) are painted by the UNet."""

    def __init__(self, components: Components, source: Any, settings: Settings, folder: Path | None = None):
        vae = components.need_decoder().vae
        super().__init__("vae-decoder", vae, components, source, settings)
        self.vae: Any = vae  # diffusers'
        vae.requires_grad_(False)
        vae.decoder.to(memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format).requires_grad_(True)
        self.folder = folder
        self.encodes = True
        self.own: OwnPictures | None = None
        self.encoded = EncodedPictures(components, self.size, crop=settings.crop, limit_gb=settings.cache_gb)
        self._spread: float | None = None

    def micro_batch(self, step: int, index: int, count: int) -> CropBatch:
        factor, scale = self.decoder.factor, self.decoder.vae.config.scaling_factor
        rng = np.random.default_rng((10, self.settings.seed, step, index))
        shown = self._pictures(step, index, count)
        pixels = torch.stack([self._target(p.picture) for p in shown])
        latents = self.encoded.latents(shown) / scale
        if self.own is not None:
            picked = rng.random(len(shown)) < self.settings.own_latents
            rows = rng.integers(0, len(self.own.latents), len(shown))
            for k in np.flatnonzero(picked).tolist():
                pixels[k], latents[k] = self.own.wanted[rows[k]], self.own.latents[rows[k]].float()
        side = latents.shape[-1]
        cells = min(DECODER_CELLS, side)
        tries = rng.integers(0, side - cells + 1, (len(shown), 3, 2))
        crops, codes, inside = [], [], torch.zeros(len(shown), 1, cells * factor, cells * factor)
        for i, places in enumerate(tries):
            some = [pixels[i, y * factor : (y + cells) * factor, x * factor : (x + cells) * factor] for y, x in places]
            most = max(range(3), key=lambda j: float(some[j].float().std((0, 1)).sum()))
            y, x = places[most]
            crops.append(some[most])
            codes.append(latents[i, :, y : y + cells, x : x + cells])
            end = cells * factor
            inside[i, :, factor * (y > 0) : end - factor * (y + cells < side), factor * (x > 0) : end - factor * (x + cells < side)] = 1
        return CropBatch(_pixels(torch.stack(crops)), torch.stack(codes), inside, dict(getattr(self.source, "skipped", {})))

    def loss(self, batch: CropBatch, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        assert batch.latents is not None and batch.inside is not None
        device = next(self.model.parameters()).device
        latents, inside = batch.latents.to(device), batch.inside.to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        spread = latents.std() if self._spread is None else self._spread
        error = (self.vae.decode(latents + DECODER_NOISE * spread * noise).sample - batch.pixels.to(device)) * inside
        return self._errors(error, inside.sum() * 3, share["pictures"])

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        s, parts = self.settings, self.components
        self._spread = 1 / float(self.decoder.vae.config.scaling_factor)  # the scale is one over the spread
        if s.own_latents and self.own is None:
            self.own = own_latents(parts, self.source, s, device, self.folder, runtime)
            self.vae.decoder.requires_grad_(True)  # the VAE was frozen while it encoded

    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        return str(export(source, target, {"vae": weights}, self.components.config))


def _pixels(pictures: Tensor) -> Tensor:
    """(b,H,W,3) uint8 to (b,3,H,W) in -1..1."""
    return (pictures.float() / 255 * 2 - 1).movedim(-1, 1)


def preview_colours(latents: Tensor, pictures: Tensor) -> tuple[tuple[float, ...], ...]:
    """(k+1,3): least-squares map from scaled latents (m,k,h,w) to the mean colour of their cell in pictures (m,H,W,3) uint8, last row the
    bias: ComfyUI's Latent2RGB factors."""
    k, h = latents.shape[1], latents.shape[2]
    colour = F.adaptive_avg_pool2d((pictures.float() / 255).movedim(-1, 1), h).movedim(1, -1).reshape(-1, 3)
    x = latents.float().movedim(1, -1).reshape(-1, k)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    return tuple(tuple(round(v, 5) for v in row) for row in torch.linalg.lstsq(x, colour).solution.tolist())


def fit_layout(tokens: Tensor, latents: Tensor, factor: int, ridge: float = 1e-2) -> Tensor:
    """(k*factor*factor, c): the ridge regression from tokens (m,n,c) to the latents (m,k,h,w) of their place."""
    y = F.pixel_unshuffle(latents.float(), factor).flatten(2).transpose(1, 2).flatten(0, 1)
    x = tokens.float().flatten(0, 1)
    return torch.linalg.solve(x.T @ x + ridge * len(x) * torch.eye(x.shape[1]), x.T @ y).T.contiguous()
