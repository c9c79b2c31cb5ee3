"""What the model itself makes of training samples: features that its language model writes, and latents that its UNet paints.

p pictures · n features · c feature width · k latent channels

A decoder that meets them in training learns to sharpen what regression blurs (own features), and a VAE's decoder to mend what the UNet
leaves soft (own latents). Both are made once, before the first step, and kept in the work folder.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..chat import prompt
from ..data.model_inputs import ShownPicture, drawn, look, shown_at, target_pixels
from ..data.sample import Sample, conversation
from ..features import Features
from ..fileio import atomic
from ..generation import generate, paint
from ..progress import ProgressEvent
from ..runtime import Runtime
from .encoders import tower_features, vae_latents
from .modules import Components
from .settings import Settings

TRIES = 200  # steps of the source without a new sample that draws, at most
AT_ONCE = 16  # samples
WORST = 0.1  # normalised squared error of a written feature; a decoder can sharpen a blur, not undo a mistake


@dataclass
class OwnPictures:
    """`tokens` (p,n,c) and `latents` (p,k,h,w), of samples whose pictures are `wanted` (p,H,W,3) uint8 (no rows of pixels where not kept)."""

    tokens: Tensor
    latents: Tensor
    wanted: Tensor

    def mixed_in(self, tokens: Tensor, latents: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch's tokens (b,n,c) and latents (b,k,h,w) with a share of the rows replaced by rows of these."""
        own = torch.rand(len(tokens), generator=generator) < share
        rows = torch.randint(len(self.tokens), (len(tokens),), generator=generator)
        here = own.to(tokens.device)
        tokens = torch.where(here[:, None, None], self.tokens[rows].to(tokens), tokens)
        return tokens, torch.where(here[:, None, None, None], self.latents[rows].to(latents), latents)


def own_features(
    components: Components,
    source: Any,
    s: Settings,
    device: torch.device,
    folder: Path | None,
    runtime: Runtime | None = None,
    keep_wanted: bool = False,
) -> OwnPictures:
    """Features that the language model writes after the requests of `s.own_count` samples, every third batch all at once where the
    weights were trained for it; and the true latents of what was asked for. Those with the largest errors are left out (`WORST`).
    `keep_wanted`: the pictures too."""

    def make() -> OwnPictures:
        tokens, true, latents, wanted = [], [], [], []
        size, decoder = s.size or components.config.decoder.size, components.need_decoder()
        components.freeze(components.need_tower(), decoder.vae, device=device, dtype=None)
        for i, some in enumerate(batched(samples_that_draw(source, s.own_count))):
            parallel = components.config.features.parallel and i % 3 == 2
            tokens.append(write(components, some, device, "parallel" if parallel else "autoregressive"))
            asked = [p for x in some if (p := drawn(x)) is not None]
            true.append(tower_features(components, look([ShownPicture(p) for p in asked], components.config)).cpu())
            pixels = torch.stack([target_pixels(p, size, s.crop) for p in asked])
            latents.append(vae_latents(decoder, pixels, None).cpu().half())
            wanted.append(pixels if keep_wanted else pixels[:, :0])
            _tick(runtime, AT_ONCE * (i + 1), s.own_count, "own features")
        writer = components.need_language().cpu()
        made, aims = torch.cat(tokens), torch.cat(true)
        error = (writer.projectors.normalise(made) - writer.projectors.normalise(aims)).square().mean((1, 2))
        good = error < max(WORST, error.median().item() + 1e-6)
        return OwnPictures(made[good].half(), torch.cat(latents)[good], torch.cat(wanted)[good])

    return _kept(folder, "own-features", s, components, source, make)


def own_latents(
    components: Components, source: Any, s: Settings, device: torch.device, folder: Path | None, runtime: Runtime | None = None
) -> OwnPictures:
    """Unscaled latents that the UNet paints: half under features that the language model writes, half under true ones."""

    def make() -> OwnPictures:
        fewer = replace(s, own_count=max(1, s.own_count // 2))
        written = own_features(components, source, fewer, device, None, runtime, keep_wanted=True)
        size, pictures = s.size or components.config.decoder.size, written.wanted
        true = torch.cat([tower_features(components, _look_again(components, some)).cpu() for some in pictures.split(AT_ONCE)])
        tokens = torch.cat([written.tokens.float(), true])
        painted = paint_latents(components, tokens, size, s.seed, device, runtime).half()
        components.need_decoder().unet.cpu()
        return OwnPictures(tokens.half(), painted, pictures.repeat(2, 1, 1, 1))

    return _kept(folder, "own-latents", s, components, source, make)


def batched(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    """Lists of AT_ONCE samples."""
    while some := list(itertools.islice(samples, AT_ONCE)):
        yield some


def _tick(runtime: Runtime | None, step: int, total: int, label: str) -> None:
    if runtime is not None:
        runtime.tick(ProgressEvent("other", min(step, total), total, label=label))


def _look_again(components: Components, pictures: Tensor) -> Tensor:
    return look([ShownPicture(p.numpy()) for p in pictures], components.config)


@torch.no_grad()
def paint_latents(
    components: Components, tokens: Tensor, size: int, seed: int, device: torch.device, runtime: Runtime | None = None, batch: int = 32
) -> Tensor:
    """(p,k,h,w) unscaled latents, as the UNet denoises them under raw features (p,n,c), in its configuration's steps and guidance."""
    decoder = components.need_decoder()
    decoder.unet.to(device).eval()
    if decoder.layout is not None:
        decoder.layout.to(device)
    negative, out = blank_features(components), []
    for i, part in enumerate(tokens.split(batch)):
        painted = paint.latents(decoder, part, seed=seed + i, width=size, height=size, negative=negative)
        out.append((painted / decoder.vae.config.scaling_factor).float().cpu())
        _tick(runtime, batch * (i + 1), len(tokens), "own latents")
    return torch.cat(out)


def blank_features(components: Components) -> Tensor | None:
    """(1,n,c) what the decoder is guided against, where that is a blank picture (all zero once normalised); None is zeros, and where no
    tower is at hand."""
    if components.config.decoder.negative != "blank" or components.tower is None:
        return None
    side = components.config.vision.image_size
    return tower_features(components, torch.zeros(1, 3, side, side))


def samples_that_draw(source: Any, count: int) -> Iterator[Sample]:
    """The first `count` samples of a source whose last turn draws a picture, each once; fewer, with a warning, where there are not more."""
    source = getattr(source, "talks", source)  # the conversations behind a source of single pictures
    seen: set[tuple[str, str]] = set()
    idle = step = 0
    while len(seen) < count and idle < TRIES:
        idle += 1
        for sample in source.samples(step, 0, 1, AT_ONCE):
            name = (sample.source, sample.key)
            if sample.turns[-1].drawn is not None and name not in seen and len(seen) < count:
                seen.add(name)
                idle = 0
                yield sample
        step += 1
    if not seen:
        raise ValueError("own_features: none of the first samples of the data draws a picture that could be written. Name other data.")
    if len(seen) < count:
        logging.getLogger("wegen").warning("own_count is %d, and the data has %d samples that draw a picture.", count, len(seen))


@torch.no_grad()
def write(components: Components, samples: list[Sample], device: torch.device, mode: str = "autoregressive") -> Tensor:
    """(b,n,c) raw features that the language model writes after each sample's last request, on the CPU."""
    writer = components.need_language()
    first = writer.language.model.norm.weight
    model = generate.Model(writer.language.to(device), writer.projectors.to(device), components.need_tokenizer(), device, first.dtype)
    return generate.write_features(model, [context(components, sample) for sample in samples], mode=mode)


def context(components: Components, sample: Sample) -> prompt.Prompt:
    """The prompt up to the picture that a sample's last turn draws, features attached; what the turn says before it is part of it."""
    config, f = components.config, components.config.features
    talk = conversation(sample, f.count)
    talk = talk.with_last(replace(talk.turns[-1], pictures=(), open_image=True))
    laid = prompt.layout(talk, components.need_tokenizer(), config.language.positions, f.count, f.count + 1, memory=config.memory)
    read = tower_features(components, look([shown_at(sample, slot, config) for slot in laid.slots], config)).cpu()
    return prompt.attach(
        laid, [Features(tokens, (f.grid[0], f.grid[1]), f.space, f.tower) for tokens in read.split(1)] if laid.slots else []
    )


def _kept(folder: Path | None, name: str, s: Settings, components: Components, source: Any, make: Callable[[], OwnPictures]) -> OwnPictures:
    """What an earlier run made of the same weights, settings and data, else what `make` returns; kept in the folder by the first process."""
    if folder is None:
        return make()
    first = [(x.source, x.key) for x in getattr(source, "talks", source).samples(0, 0, 1, AT_ONCE)]
    h = hashlib.sha256(repr((s.seed, s.own_count, s.size, s.crop, s.precision, first)).encode())
    for module in (components.tower, components.writer, components.decoder):
        for value in module.state_dict().values() if module is not None else ():
            h.update(value.float().flatten()[:64].cpu().numpy().tobytes())
    path = folder / f"{name}-{h.hexdigest()[:10]}.pt"
    if path.is_file():
        return OwnPictures(**torch.load(path, weights_only=True))
    made = make()
    if os.environ.get("RANK", "0") == "0":
        with atomic(path) as part:
            torch.save({"tokens": made.tokens, "latents": made.latents, "wanted": made.wanted}, part)
    return made
