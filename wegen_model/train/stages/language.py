"""`stage-1` and `stage-2`: the language model learns to read pictures, to answer, and to write features.

Trained: the language model (all of it, or an adapter) and both projectors. Frozen: tower, VAE, and the UNet that the diffusion loss
goes through.

b samples · t tokens · m pictures, w of them written · n features · c feature width · s the tower's side in pixels

Source: the public `ContinuousLVLMJointLLMSDVAR`: total = LM + MSE + cosine + diffusion, each mean over its own items; features are
predicted one position ahead, targets are the tower's, without gradient. Ours: the unconditional stream, `parallel` writing, and batches
without a drawn picture, or without any, which the public code cannot take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...chat.reference_cutout import paste_subject
from ...data.collate import Batch, Plan, collate, embed, language_loss, predictions, unconditional
from ...data.image_folder import tell
from ...data.sample import Sample, plan
from ...models.lora import Adapters
from ...models.pointer import Shown
from ...models.projectors import Projectors
from ..flops import decoder_flops, tower_flops, writer_flops
from ..losses import alphas_cumprod, feature_losses
from ..modules import Components
from ..settings import Settings
from ..trainer import Stage
from .decoder import DTYPES, denoising, latents_of, recipe_of, resize, see, tower_tokens


@dataclass
class Talk:
    """One piece: padded plans, `seen` (m,3,s,s) in their order, `painted` (w,h,w,3) uint8 of the written pictures (or none are needed),
    and `blank` (m,): pictures that are written from placeholders."""

    batch: Batch
    seen: Tensor
    painted: Tensor | None
    blank: Tensor
    skipped: dict[str, str] = field(default_factory=dict)  # what the source could not read so far, and why


class Adapted(nn.Module):
    """An adapter on the language model, and the projectors, which are trained whole."""

    def __init__(self, adapters: Adapters, projectors: Projectors):
        super().__init__()
        self.adapters, self.projectors = adapters, projectors


def make_talk(parts: Components, samples: list[Sample], s: Settings, rng: np.random.Generator) -> Talk:
    """Samples as the model is shown them.

    A share `rewrite` of the answers with words before their picture keeps the words; a share `unconditional` of the samples with a
    written picture brings <img> and its features alone along; a share `parallel` of the last written pictures is blank.
    """
    n = parts.config.features.count
    plans: list[Plan] = []
    pictures: list[np.ndarray] = []
    skipped: dict[str, str] = {}
    for sample in samples:
        if rng.random() >= s.rewrite:
            sample = without_words(sample)
        if parts.config.references == "placed":
            sample = placed(sample, parts.config.vision.image_size)
        try:
            one, own = plan(sample, parts.tokenizer, parts.config.language.positions, n)
        except ValueError as error:
            skipped[f"sample {sample.key}"] = str(error)
            continue
        plans.append(replace(one, pictures=[(start, len(pictures) + row, out) for start, row, out in one.pictures]))
        pictures += own
    if not plans:
        raise ValueError(f"no sample of the batch can be shown to the model; {skipped}")
    for one in list(plans):
        written = [row for _, row, out in one.pictures if out]
        if written and rng.random() < s.unconditional:
            pictures.append(pictures[written[-1]])
            plans.append(unconditional(parts.tokenizer, len(pictures) - 1, n))
    batch = collate(plans)
    m = len(batch.rows)
    final = torch.ones(m, dtype=torch.bool)  # earlier pictures of a conversation are there to be read
    if m:
        final[:-1] = batch.place[1:, 0] != batch.place[:-1, 0]
    blank = batch.written & final & torch.from_numpy(rng.random(m) < s.parallel)
    painted = None
    if s.diffusion_weight and batch.written.any():
        size = s.size or parts.config.decoder.size
        painted = torch.stack([resize(pictures[row], size) for row, out in zip(batch.rows, batch.written.tolist()) if out])
    return Talk(batch, see(parts, [pictures[row] for row in batch.rows]), painted, blank, skipped)


def without_words(sample: Sample) -> Sample:
    """Answers that draw, without what they say before."""
    return replace(sample, turns=tuple(replace(t, text="", pictures=(), boxes=()) if t.drawn is not None else t for t in sample.turns))


def placed(sample: Sample, size: int) -> Sample:
    """References with a box, laid into it: how models with `references="placed"` are shown them (place.py)."""

    def laid(picture, box):
        if picture is None or box is None:
            return picture
        return (paste_subject(torch.from_numpy(np.array(picture)).float() / 255, box, size) * 255).round().byte().numpy()

    return replace(
        sample,
        turns=tuple(
            replace(t, pictures=tuple(laid(p, b) for p, b in zip(t.pictures, t.boxes))) if t.role == "user" else t for t in sample.turns
        ),
    )


def writing_stage(
    name: str, parts: Components, source: Any, s: Settings, parts_per_step: int, pieces: int = 1, groups: Callable | None = None
) -> Stage:
    """The stage over a source of samples (order.py). Arguments as `decoding.decoding_stage`."""
    writer, decoder, count = parts.writer, parts.decoder, s.batch // parts_per_step
    language, projectors, n = writer.language, writer.projectors, parts.config.features.count
    dtype, told = DTYPES[s.precision], set()
    through = decoder is not None and s.diffusion_weight > 0
    alphas = alphas_cumprod(decoder) if through else None
    trained = Adapted(Adapters("language", language, s.lora), projectors) if s.lora else writer
    layer = (lambda layer, *args: checkpoint(layer, *args, use_reentrant=False)) if s.checkpointing else None

    def piece(step: int, part: int, of: int) -> Talk:
        talk = make_talk(parts, source.samples(step, part, of, count), s, np.random.default_rng((s.seed, 11, step, part)))
        return replace(talk, skipped=talk.skipped | getattr(source, "skipped", {}))

    def loss(talk: Talk, generator: torch.Generator, share: dict[str, float]) -> dict[str, Tensor]:
        device = next(language.parameters()).device
        batch = talk.batch.to(device)
        true = projectors.normalise(tower_tokens(parts, talk.seen))
        hidden = language(embed(language, projectors, batch, true, talk.blank.to(device)), checkpoint=layer)
        words = language_loss(language, hidden, batch) * share["words"]
        out = {"words": words.detach()}
        total = s.language_weight * words + _everything(language, projectors, hidden)
        zero = torch.zeros((), device=device)
        mse = cosine = diffusion = zero
        if batch.written.any():
            guess = predictions(projectors, hidden, batch, n, true).float()
            mse, cosine = (value * share["written"] for value in feature_losses(guess, true[batch.written]))
            if through:
                latents = latents_of(decoder, talk.painted, generator)
                sides = tuple(talk.painted.shape[1:3])
                value = denoising(decoder, alphas.to(device), latents, projectors.denormalise(guess), sides, s, generator)
                diffusion = value * share["written"]
            total = total + s.mse_weight * mse + s.cosine_weight * cosine + s.diffusion_weight * diffusion
        return {"loss": total} | out | {"mse": mse.detach(), "cosine": cosine.detach(), "diffusion": diffusion.detach()}

    def place(device: torch.device) -> None:
        parts.frozen(parts.tower, device=device, dtype=dtype)
        if through:
            parts.frozen(decoder.unet, decoder.vae, decoder.layout, device=device, dtype=dtype)
            if s.checkpointing:
                decoder.unet.enable_gradient_checkpointing()
                decoder.unet.train()
        if s.lora:
            parts.frozen(language, device=device, dtype=dtype)

    seeing = tower_flops(parts.config.vision)
    unet, vae = decoder_flops(parts.config, s.size or parts.config.decoder.size) if through else (0.0, 0.0)
    reading, painting = 2 if s.lora else 3, 2 * unet + vae  # frozen weights: backward passes go through them to their inputs alone

    def work(talk: Talk) -> dict[str, float]:
        tell(told, talk.skipped)
        b, t = talk.batch.ids.shape
        flops = reading * writer_flops(parts.config, b, t) + seeing * len(talk.seen)
        return {"samples": b, "tokens": b * t, "flops": flops + painting * int(talk.batch.written.sum())}

    def counts(talk: Talk) -> dict[str, float]:
        return {"words": float((talk.batch.labels[:, 1:] != -100).sum()), "written": float(talk.batch.written.sum())}

    return Stage(name, trained, None, loss, recipe_of(s, pieces), groups=groups, piece=piece, counts=counts, work=work, place=place)


def _everything(language: nn.Module, projectors: Projectors, hidden: Tensor) -> Tensor:
    """Zero, through the heads that a batch without words or pictures leaves out: every process has every gradient."""
    one = hidden[:1, :1]
    blank = one.new_zeros(1, 1, projectors.config.width)
    shown = Shown(blank[:, None], torch.ones(1, 1, dtype=torch.bool, device=one.device))
    return 0 * (language.logits(one).sum() + projectors.predict(one, shown).sum() + projectors.input_resampler(blank).sum())
