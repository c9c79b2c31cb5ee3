"""`tower`: a small tower learns to see, in place of EVA-CLIP's pre-training. For models made from nothing.

b pictures · n tokens · c width · s side in pixels

A caption contrast (CLIP, Radford et al. 2021, arXiv 2103.00020), and a linear head that must give the pixels back from the features, so
that they keep detail. Noise on the features before that head keeps their information in few, smooth directions.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoint import model_folder
from ...config import ModelConfig
from ...data.model_inputs import ShownPicture, look, target
from ...models.eva_clip import VisionTower
from ..encoders import KeptPictures, tower_features
from ..flops import tower_flops
from ..modules import Components, export
from ..settings import Settings
from ..trainer import TrainingTask
from .decoder import warn_once

NOISE = 0.25  # on the features before the pixel head, of their standard deviation
CONTRAST = 0.1  # weight of the caption contrast
PIXELS = 10.0  # weight of the pixel error
MEASURED = 600  # pictures whose features give the mean and scale of the space


class TowerModule(nn.Module):
    """The tower, its pixel head, and a bag-of-words text side for the contrast. The heads are not exported."""

    def __init__(self, config: ModelConfig, tower: VisionTower):
        super().__init__()
        v = config.vision
        self.tower = tower
        self.pixels = nn.Linear(v.width, 3 * v.patch_size**2)
        self.words = nn.Embedding(config.language.vocab_size, 128)
        self.text = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 128))
        self.picture = nn.Sequential(nn.Linear(v.width, 256), nn.GELU(), nn.Linear(256, 128))
        self.scale = nn.Parameter(torch.tensor(2.0))


@dataclass
class CaptionedBatch:
    """`tower_pixels` (b,3,s,s), normalised; `captions`: the ids of the first pictures' words, as many as have any."""

    tower_pixels: Tensor
    captions: list[list[int]]
    skipped: dict[str, str] = field(default_factory=dict)


def patches(images: Tensor, patch: int) -> Tensor:
    """(b,3,s,s) -> (b, n, patch*patch*3), row-major like the tower's tokens."""
    b, _, s, _ = images.shape
    g = s // patch
    return images.view(b, 3, g, patch, g, patch).permute(0, 2, 4, 3, 5, 1).reshape(b, g * g, -1)


class TowerTask(TrainingTask):
    """See above. `source` gives samples; those of text-to-picture have captions, others are pictures alone."""

    def __init__(self, components: Components, source: Any, settings: Settings):
        super().__init__("tower", TowerModule(components.config, components.need_tower()), settings)
        self.components, self.source, self.tokenizer = components, source, components.need_tokenizer()
        self._warned: set[str] = set()
        self.kept = KeptPictures(settings.cache_gb) if settings.cache else None
        self.encodes = self.kept is not None  # worker processes would keep the pictures each
        v = components.config.vision
        self._mean, self._std = (torch.tensor(x)[:, None, None] for x in (v.mean, v.std))

    def micro_batch(self, step: int, index: int, count: int) -> CaptionedBatch:
        samples = self.source.samples(step, index, count, self.settings.batch // count)
        shown = [(s.turns[0].text if s.task == "text-to-picture" else "", ShownPicture(p)) for s in samples if (p := target(s)) is not None]
        if not shown:
            raise ValueError("tower: the stage learns from pictures, and none of a batch has one. Name sources with pictures as --data.")
        shown.sort(key=lambda one: not one[0])  # captioned ones first; the order stays otherwise
        captions = [self.tokenizer.encode(text) for text, _ in shown if text]
        pictures = [p for _, p in shown] if self.kept is None else self.kept([p for _, p in shown])
        return CaptionedBatch(look(pictures, self.components.config), captions, dict(getattr(self.source, "skipped", {})))

    def loss(self, batch: CaptionedBatch, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        model, config = self.model, self.components.config
        assert isinstance(model, TowerModule)
        device = model.scale.device
        pixels = batch.tower_pixels.to(device)
        tokens = model.tower(pixels)
        scale = tokens.detach().std((0, 1)).norm() / tokens.shape[-1] ** 0.5
        noisy = tokens + NOISE * scale * torch.randn(tokens.shape, generator=generator).to(device)
        wanted = patches(pixels * self._std.to(device) + self._mean.to(device), config.vision.patch_size)
        mse = F.mse_loss(model.pixels(noisy), wanted)
        contrast = self._contrast(model, tokens, batch.captions)
        total = PIXELS * mse + CONTRAST * contrast
        return {
            "loss": total * share["pictures"],
            "mse": mse.detach(),
            "psnr": -10 * mse.detach().log10(),
            "contrast": contrast.detach(),
            "scale": scale,
        }

    def _contrast(self, model: TowerModule, tokens: Tensor, captions: list[list[int]]) -> Tensor:
        """Cross-entropy of pictures against captions and back; equal captions share their target."""
        if not captions:
            heads = (model.words, model.text, model.picture)  # every process has every gradient
            return 0 * torch.stack([model.scale.sum(), *(p.sum() for head in heads for p in head.parameters())]).sum()
        seen = F.normalize(model.picture(tokens[: len(captions)].mean(1)), dim=-1)
        flat = torch.tensor([i for ids in captions for i in ids], device=tokens.device)
        offsets = torch.tensor([0] + [len(ids) for ids in captions][:-1], device=tokens.device).cumsum(0)
        said = F.normalize(model.text(F.embedding_bag(flat, model.words.weight, offsets, mode="mean")), dim=-1)
        logits = seen @ said.T * model.scale.exp().clamp(max=50)
        same = torch.tensor([[a == b for b in captions] for a in captions], device=tokens.device).float()
        goal = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, goal) + F.cross_entropy(logits.T, goal)) / 2

    def items(self, batch: CaptionedBatch) -> dict[str, float]:
        return {"pictures": float(len(batch.tower_pixels))}

    def work(self, batch: CaptionedBatch) -> dict[str, float]:
        warn_once(self._warned, batch.skipped)
        b = len(batch.tower_pixels)
        return {"samples": b, "flops": 3 * b * tower_flops(self.components.config.vision)}

    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        """The tower, a name of its own for its space, and the mean and scale of its features where the model normalises them."""
        own = {k.removeprefix("tower."): v for k, v in weights.items() if k.startswith("tower.")}
        with torch.device("meta"):
            self.components.tower = VisionTower(self.components.config.vision)  # the trained one may be in shards
        self.components.tower.load_state_dict(own, assign=True)
        states = {"vision": own}
        config = renamed(self.components.config, own)
        if config.features.normalised:
            mean, std = self._measure()
            projectors = {
                key: value for path in model_folder.files(source, "projectors") for key, value in model_folder.read_tensors(path).items()
            }
            states["projectors"] = projectors | {"mean": mean, "std": std}
        return str(export(source, target, states, config))

    def _measure(self) -> tuple[Tensor, Tensor]:
        """(c,) mean, and one scale for all directions (strong ones count more), of features of captioned pictures."""
        pixels: list[Tensor] = []
        for step in range(MEASURED):
            batch = self.micro_batch(step, 0, 1)
            pixels += batch.tower_pixels[: len(batch.captions) or None].unbind()
            if len(pixels) >= MEASURED:
                break
        features = tower_features(self.components, torch.stack(pixels[:MEASURED])).cpu()
        mean = features.mean((0, 1))
        return mean, (features - mean).square().mean().sqrt().expand_as(mean).clone()


def renamed(config: ModelConfig, tower: dict[str, Tensor]) -> ModelConfig:
    """The configuration with the space that this tower makes: its name and the first letters of its weights' hash."""
    digest = hashlib.sha256(b"".join(tower[k].float().cpu().numpy().tobytes() for k in tower)).hexdigest()[:8]
    space = f"{config.features.space.partition('@')[0]}@{digest}"
    return dataclasses.replace(
        config,
        features=dataclasses.replace(config.features, space=space, tower=space),
        decoder=dataclasses.replace(config.decoder, space=space, tower=space),
    )
