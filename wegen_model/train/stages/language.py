"""`stage-1` and `stage-2`: the language model learns to read pictures, to answer, and to write features.

Trained: the language model (all of it, or an adapter) and both projectors. Frozen: tower, VAE, and the UNet that the diffusion loss
goes through.

b samples · t tokens · m pictures, w of them written · n features · c feature width · s the tower's side in pixels

Source: the public `ContinuousLVLMJointLLMSDVAR`: total = LM + MSE + cosine + diffusion, each mean over its own items; features are
predicted one position ahead, targets are the tower's, without gradient. Ours: the unconditional stream, `parallel` writing, batches
without a drawn picture, or without any, which the public code cannot take; and against exposure error, since each feature is fed back to
the writer, what is fed back in training may be the true feature with noise (`feedback_noise`) or the model's own prediction from a pass
before (`feedback_own`), as in scheduled sampling (Bengio et al. 2015, arXiv 1506.03099).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...chat.tokenizer import Tokenizer
from ...config import ModelConfig
from ...data.collate import embed, language_loss, predictions
from ...data.model_inputs import ModelInputs, look, model_inputs
from ...data.sample import Sample
from ...models.llama import Language
from ...models.lora import Adapters
from ...models.pointer import Shown
from ...models.projectors import Projectors
from ...runtime import Runtime
from ..encoders import EncodedPictures, tower_features, vae_latents
from ..flops import decoder_flops, tower_flops, writer_flops
from ..losses import alphas_cumprod, feature_losses
from ..modules import PRECISIONS, Components, export, export_adapter, trained_config
from ..settings import Settings
from ..trainer import TrainingTask
from .decoder import denoising_loss, warn_once


@dataclass
class LanguageBatch:
    """What the model is shown, and the step that it is shown at."""

    inputs: ModelInputs
    step: int


class AdaptedLanguageModule(nn.Module):
    """An adapter on the language model, and the projectors, which are trained whole."""

    def __init__(self, adapters: Adapters, projectors: Projectors):
        super().__init__()
        self.adapters, self.projectors = adapters, projectors


def inputs_of(samples: list[Sample], config: ModelConfig, tokenizer: Tokenizer, s: Settings, step: int, index: int) -> ModelInputs:
    """A micro-batch of the stage from its samples: a pure function. What `wegen data inspect` draws."""
    return model_inputs(
        samples,
        config,
        tokenizer,
        np.random.default_rng((s.seed, 11, step, index)),
        keep_caption_prob=s.keep_caption_prob,
        unconditional_share=s.unconditional,
        parallel=s.parallel,
        size=(s.size or config.decoder.size) if s.diffusion_weight else None,
        time_ids_kind=s.time_ids,
    )


class LanguageTask(TrainingTask):
    """See above. `source` gives samples (data/image_folder.py)."""

    def __init__(
        self,
        name: str,
        components: Components,
        source: Any,
        settings: Settings,
        encoded: EncodedPictures | None = None,
        adapter_alone: bool = False,
    ):
        """`encoded`: pictures whose features are known; with `settings.cache` they are kept as they come. `adapter_alone`: the projectors
        are frozen, so that an adapter file holds all that was learned."""
        s, writer = settings, components.need_language()
        self.language, self.projectors = writer.language, writer.projectors
        trained: nn.Module = writer
        if s.lora:
            trained = Adapters("language", self.language, s.lora, s.lora_alpha or None)
            if adapter_alone:
                self.projectors.requires_grad_(False)
            else:
                trained = AdaptedLanguageModule(trained, self.projectors)
        super().__init__(name, trained, s)
        self.components, self.source = components, source
        self.tokenizer = components.need_tokenizer()
        self.through = components.decoder if s.diffusion_weight else None  # the frozen decoder that the diffusion loss goes through
        self.alphas = alphas_cumprod(self.through) if self.through is not None else None
        self.encoded = encoded or (EncodedPictures(components, 0, limit_gb=s.cache_gb) if s.cache else None)
        self.encodes = self.encoded is not None
        self._warned: set[str] = set()
        self._seeing = tower_flops(components.config.vision)
        size = s.size or components.config.decoder.size
        unet, vae = decoder_flops(components.config, size) if self.through is not None else (0.0, 0.0)
        self._painting = 2 * unet + vae  # frozen weights: backward passes go through them to their inputs alone

    def micro_batch(self, step: int, index: int, count: int) -> LanguageBatch:
        s, config = self.settings, self.components.config
        samples = self.source.samples(step, index, count, s.batch // count)
        inputs = inputs_of(samples, config, self.tokenizer, s, step, index)
        if self.encoded is not None:
            inputs.features = self.encoded.features(inputs.pictures)
        else:
            inputs.tower_pixels = look(inputs.pictures, config)
        inputs.skipped |= getattr(self.source, "skipped", {})
        inputs.pictures = []  # what is sent between processes, and kept in memory, is small
        return LanguageBatch(inputs, step)

    def loss(self, batch: LanguageBatch, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        s, inputs, n = self.settings, batch.inputs, self.components.config.features.count
        device = next(self.language.parameters()).device
        places = inputs.batch.to(device)
        raw = tower_features(self.components, inputs.tower_pixels) if inputs.tower_pixels is not None else inputs.features
        assert raw is not None
        true = self.projectors.normalise(raw.to(device))
        fed, blank = self._fed_back(batch, places, true, inputs.blank.to(device), generator)
        hidden = self._hidden(places, fed, blank, s.checkpointing)
        spread = s.location_spread
        words = language_loss(self.language, hidden, places, self.tokenizer.loc_first if spread else None, spread) * share["words"]
        total = s.language_weight * words + every_gradient(self.language, self.projectors, hidden)
        mse = cosine = diffusion = torch.zeros((), device=device)
        out = {}
        if places.written.any():
            guess, goal = predictions(self.projectors, hidden, places, n, true).float(), true[places.written]
            mse, cosine = (value * share["written"] for value in feature_losses(guess, goal))
            if self.through is not None:
                diffusion = self._diffusion(inputs, guess, generator) * share["written"]
            total = total + s.mse_weight * mse + s.cosine_weight * cosine + s.diffusion_weight * diffusion
            which = blank[places.written]
            if which.any():
                out["parallel"] = (guess.detach()[which] - goal[which]).square().mean()
        values = {"words": words, "mse": mse, "cosine": cosine, "diffusion": diffusion}
        return {"loss": total} | {name: value.detach() for name, value in values.items()} | out

    def _hidden(self, places, fed: Tensor, blank: Tensor, recompute: bool = False) -> Tensor:
        layer = (lambda layer, *args: checkpoint(layer, *args, use_reentrant=False)) if recompute else None
        return self.language(embed(self.language, self.projectors, places, fed, blank), checkpoint=layer)

    def _fed_back(self, batch: LanguageBatch, places, true: Tensor, blank: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features fed into the slots of pictures, (m,n,c) normalised, and which pictures keep their placeholders instead (m,)."""
        s, m, device = self.settings, len(true), true.device
        if not m or not (s.feedback_noise or s.feedback_own):
            self._pass_along(places, true, blank)
            return true, blank

        def draw(*shape: int, normal: bool = False) -> Tensor:  # on the CPU: the same on every device
            return (torch.randn if normal else torch.rand)(*shape, generator=generator).to(device)

        two_passes = bool(torch.rand((), generator=generator) < s.feedback_own_batches) and batch.step >= s.feedback_own_from * s.steps
        own = places.written & (draw(m) < s.feedback_own) & two_passes
        blank = blank & ~own
        level = s.feedback_noise * draw(m, 1, 1)
        noisy = true + level * draw(*true.shape, normal=True)
        fed = torch.where((places.written & ~own)[:, None, None], noisy, true)
        if own.any():
            with torch.no_grad():  # a first pass, from noisy truth or from nothing, gives the predictions that are fed
                first = torch.where(own[:, None, None], true + 0.5 * draw(*true.shape, normal=True), fed)
                hidden = self._hidden(places, first, blank | (own & (draw(m) < 0.5)))
                whole = fed.clone()
                whole[places.written] = predictions(self.projectors, hidden, places, true.shape[1], true).to(fed)
                fed = torch.where(own[:, None, None], whole, fed)
            torch.clear_autocast_cache()  # torch before 2.10 keeps the copies of weights that carry no gradient
        else:
            self._pass_along(places, fed, blank)
        return fed, blank

    def _pass_along(self, places, fed: Tensor, blank: Tensor) -> None:
        """Weights in shards (FSDP) are gathered by all processes together: where another one may make a first pass, each makes one."""
        if self.settings.feedback_own and any(hasattr(p, "full_tensor") for p in self.language.parameters()):
            with torch.no_grad():
                self._hidden(places, fed, blank)
            torch.clear_autocast_cache()

    def _diffusion(self, inputs: ModelInputs, guess: Tensor, generator: torch.Generator) -> Tensor:
        """The denoising loss through the frozen UNet, under the written features (w,n,c), normalised."""
        assert self.through is not None and self.alphas is not None and inputs.target_pixels is not None and inputs.size_ids is not None
        latents = vae_latents(self.through, inputs.target_pixels, generator).to(guess.device)
        tokens = self.projectors.denormalise(guess)
        return denoising_loss(self.through, self.alphas.to(guess.device), latents, tokens, inputs.size_ids, self.settings.gamma, generator)

    def items(self, batch: LanguageBatch) -> dict[str, float]:
        places = batch.inputs.batch
        return {"words": float((places.labels[:, 1:] != -100).sum()), "written": float(places.written.sum())}

    def work(self, batch: LanguageBatch) -> dict[str, float]:
        inputs = batch.inputs
        warn_once(self._warned, inputs.skipped)
        b, t = inputs.batch.ids.shape
        reading = 2 if self.settings.lora else 3
        flops = reading * writer_flops(self.components.config, b, t)
        flops += self._seeing * len(inputs.tower_pixels) if inputs.tower_pixels is not None else 0
        return {"samples": b, "tokens": b * t, "flops": flops + self._painting * int(inputs.batch.written.sum())}

    def rate_groups(self) -> list[tuple[str, list[nn.Parameter], float]]:
        scale = self.settings.projector_lr_scale
        learning = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        if scale == 1:
            return [("", [p for _, p in learning], 1.0)]
        return [
            ("", [p for n, p in learning if not n.startswith("projectors.")], 1.0),
            ("projectors", [p for n, p in learning if n.startswith("projectors.")], scale),
        ]

    def frozen(self) -> list[nn.Module | None]:
        return [self.components.tower, self.language, self.through.unet if self.through is not None else None]

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        parts, dtype = self.components, PRECISIONS[self.settings.precision]
        parts.freeze(parts.tower, device=device, dtype=dtype)
        if self.through is not None:
            parts.freeze(self.through.unet, self.through.vae, self.through.layout, device=device, dtype=dtype)
            if self.settings.checkpointing:
                self.through.unet.enable_gradient_checkpointing()
                self.through.unet.train()
        if self.settings.lora:
            parts.freeze(self.language, device=device, dtype=dtype)

    def export(self, weights: dict[str, Tensor], source: Path, target: Path, folder: Path) -> str:
        config = trained_config(self.components.config, parallel=self.settings.parallel > 0)
        said, states = (
            "",
            {n: {k[len(n) + 1 :]: v for k, v in weights.items() if k.startswith(n + ".")} for n in ("language", "projectors")},
        )
        if isinstance(self.model, AdaptedLanguageModule):
            mine = {k.removeprefix("adapters."): v for k, v in weights.items() if k.startswith("adapters.")}
            path, base = export_adapter(self.model.adapters, self.language, mine, folder, config.decoder.space)
            said, states["language"] = f"{path}\n", base.state_dict()
        return f"{said}{export(source, target, states, config)}"


def every_gradient(language: Language, projectors: Projectors, hidden: Tensor) -> Tensor:
    """Zero, through the heads that a batch without words or pictures leaves out: every process has every gradient."""
    one = hidden[:1, :1]
    blank = one.new_zeros(1, 1, projectors.config.width)
    shown = Shown(blank[:, None], torch.ones(1, 1, dtype=torch.bool, device=one.device))
    total = language.logits(one).sum() + projectors.predict(one, shown).sum() + projectors.input_resampler(blank).sum()
    if projectors.regions is not None:  # boxes are rare: a process may have none
        total = total + sum(p.sum() for p in projectors.regions.parameters())
    return 0 * total
