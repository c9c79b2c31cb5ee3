"""`visual-decoding`: the UNet learns to paint pictures from their features. Trained: UNet (and its feature-to-latent map), or an adapter.
Frozen: the tower and the VAE.

b pictures · n features · c feature width · k latent channels · s the tower's side, H,W the painted picture's, in pixels

Source: the supplement (all of the UNet, 10 % of the conditions dropped) and the public `train_pipeline` (VAE sample, uniform timesteps,
min-SNR 5, mean of the tokens as the pooled condition). Ours: `condition_noise` blurs conditions, and `own_features` puts the model's own
writing in their place, because at work they are a language model's predictions rather than a tower's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...data.model_inputs import ShownPicture, look, target, target_pixels
from ...models.decoder import Decoder, time_ids
from ...models.lora import Adapters
from ...runtime import Runtime
from ..encoders import EncodedPictures, tower_features, vae_latents
from ..flops import decoder_flops, tower_flops
from ..losses import alphas_cumprod, diffusion_loss, drop_conditions
from ..modules import PRECISIONS, Components, DecoderModule, export, export_adapter, trained_config
from ..own_pictures import OwnPictures, own_features
from ..settings import Settings
from ..trainer import TrainingTask


@dataclass
class PictureBatch:
    """Pictures as the tower is shown them, `tower_pixels` (b,3,s,s), and as they are painted, `target_pixels` (b,H,W,3) uint8; or, where
    those are known, their features (b,n,c) and scaled latents (b,k,h,w). `size_ids` (b,6)."""

    tower_pixels: Tensor | None
    target_pixels: Tensor | None
    size_ids: Tensor
    features: Tensor | None = None
    latents: Tensor | None = None
    skipped: dict[str, str] = field(default_factory=dict)  # what cannot be painted, or was not read, and why

    def __len__(self) -> int:
        return len(self.size_ids)


def warn_once(warned: set[str], skipped: dict[str, str]) -> None:
    """Warn of what was skipped, each once; `warned` remembers. Called where the run is, not in the processes that read."""
    for name in skipped.keys() - warned:
        warned.add(name)
        logging.getLogger("wegen").warning("%s was skipped (%s).", name, skipped[name])


def denoising_loss(
    decoder: Decoder, alphas: Tensor, latents: Tensor, tokens: Tensor, size_ids: Tensor, gamma: float, generator: torch.Generator
) -> Tensor:
    """Mean denoising loss of latents (b,k,h,w) under tokens (b,n,c); noise and timesteps are drawn on the CPU."""
    device, b = latents.device, len(latents)
    steps = torch.randint(0, len(alphas), (b,), generator=generator).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    return diffusion_loss(decoder, alphas, latents, tokens, tokens.mean(1), steps, noise, size_ids.to(device), gamma or None)[0]


class DecoderTask(TrainingTask):
    """See above. `source` gives samples (data/image_folder.py); each step's pictures are those that its samples draw, or show."""

    def __init__(
        self, components: Components, source: Any, settings: Settings, encoded: EncodedPictures | None = None, folder: Path | None = None
    ):
        """`encoded`: pictures whose features and latents are known; with `settings.cache` they are kept as they come. `folder`: the work
        folder, where the model's own features are kept."""
        decoder, s = components.need_decoder(), settings
        adapters = Adapters("unet", decoder.unet, s.lora, s.lora_alpha or None) if s.lora else None
        super().__init__("visual-decoding", adapters or DecoderModule(decoder), s)
        self.components, self.decoder, self.source, self.folder = components, decoder, source, folder
        self.size = s.size or components.config.decoder.size
        self.encoded = encoded or (EncodedPictures(components, self.size, crop=s.crop, limit_gb=s.cache_gb) if s.cache else None)
        self.encodes = self.encoded is not None
        self.own: OwnPictures | None = None
        self.alphas = alphas_cumprod(decoder)
        self._warned: set[str] = set()
        unet, vae = decoder_flops(components.config, self.size)
        self._painting, self._seeing = (2 if s.lora else 3) * unet, tower_flops(components.config.vision) + vae
        self._recompute()

    def micro_batch(self, step: int, index: int, count: int) -> PictureBatch:
        samples = self.source.samples(step, index, count, self.settings.batch // count)
        pictures = [ShownPicture(p) for sample in samples if (p := target(sample)) is not None]
        skipped = {f"sample {sample.key}": "it has no picture to paint" for sample in samples if target(sample) is None}
        if not pictures:
            raise ValueError(
                f"visual-decoding learns from pictures, and none of a batch of {samples[0].source if samples and samples[0].source else 'the data'} has one "
                f"({', '.join(sample.key for sample in samples[:3])}). Name sources with pictures as --data."
            )
        s, config = self.settings, self.components.config
        ids = time_ids(config.decoder, self.size, self.size, len(pictures), torch.device("cpu"), s.time_ids)
        if self.encoded is not None:
            features, latents = self.encoded.features(pictures), self.encoded.latents(pictures)
            return PictureBatch(None, None, ids, features, latents, skipped | getattr(self.source, "skipped", {}))
        painted = torch.stack([target_pixels(p.picture, self.size, s.crop) for p in pictures])
        shown = look(pictures, config, "crop" if s.crop else "squash")
        return PictureBatch(shown, painted, ids, skipped=skipped | getattr(self.source, "skipped", {}))

    def loss(self, batch: PictureBatch, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        s, device = self.settings, next(self.decoder.unet.parameters()).device
        if batch.features is not None and batch.latents is not None:
            tokens, latents = batch.features, batch.latents
        else:
            assert batch.tower_pixels is not None and batch.target_pixels is not None
            tokens = tower_features(self.components, batch.tower_pixels)
            latents = vae_latents(self.decoder, batch.target_pixels, generator)
        tokens, latents = tokens.to(device, torch.float32), latents.to(device, torch.float32)
        if self.own is not None:
            tokens, latents = self.own.mixed_in(tokens, latents, s.own_features, generator)
        if s.condition_noise:
            scale = tokens.std((0, 1)).norm() / tokens.shape[-1] ** 0.5
            level = s.condition_noise * scale * torch.rand(len(tokens), 1, 1, generator=generator).to(device) ** 2
            tokens = tokens + level * torch.randn(tokens.shape, generator=generator).to(device)
        tokens = drop_conditions(tokens, s.condition_dropout, generator)
        value = denoising_loss(self.decoder, self.alphas.to(device), latents, tokens, batch.size_ids, s.gamma, generator)
        return {"loss": value * share["pictures"]}

    def items(self, batch: PictureBatch) -> dict[str, float]:
        return {"pictures": float(len(batch))}

    def work(self, batch: PictureBatch) -> dict[str, float]:
        warn_once(self._warned, batch.skipped)
        seeing = self._seeing if batch.features is None else 0.0
        return {"samples": len(batch), "flops": len(batch) * (self._painting + seeing)}

    def frozen(self) -> list[nn.Module | None]:
        return [self.components.tower, self.decoder.unet, self.decoder.vae]

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        s, parts, decoder = self.settings, self.components, self.decoder
        dtype = PRECISIONS[s.precision]
        parts.freeze(parts.tower, decoder.vae, device=device, dtype=dtype)
        if s.lora:
            parts.freeze(decoder.unet, decoder.layout, device=device, dtype=dtype)
            self._recompute()
        if s.channels_last:
            decoder.unet.to(memory_format=torch.channels_last)
        if s.own_features and self.own is None:
            self.own = own_features(parts, self.source, s, device, self.folder, runtime)

    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        config = trained_config(self.components.config, time_ids=self.settings.time_ids)
        said, states = "", {n: {k[len(n) + 1 :]: v for k, v in weights.items() if k.startswith(n + ".")} for n in ("unet", "layout")}
        if isinstance(self.model, Adapters):
            path, base = export_adapter(self.model, self.decoder.unet, weights, folder, config.decoder.space)
            said, states = f"{path}\n", {"unet": base.state_dict()}
        return f"{said}{export(source, target, {n: state for n, state in states.items() if state}, config)}"

    def _recompute(self) -> None:
        """Gradient checkpointing of a diffusers UNet, which only does it in training mode."""
        if self.settings.checkpointing:
            self.decoder.unet.enable_gradient_checkpointing()
            self.decoder.unet.train()
