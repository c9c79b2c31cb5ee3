"""Sample pictures on the way: originals above, what the model makes of them below.

`visual-decoding`: each picture is encoded and painted. The writer's stages: each request is answered with a picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chat import prompt
from ..chat.conversation import Conversation
from ..features import Features
from ..generation import generate
from ..generation import paint as painting
from .modules import Components
from .stages.decoder import drawn, resize, see, target, tower_tokens

COUNT, STEPS = 4, 12
LOOKED_AT = 32  # steps of the source, at most, for pictures to show


def sheet(parts: Components, source: Any, stage: str) -> Callable[[int, Path], None]:
    """A `Stage.sample`: writes FOLDER/samples/STEP.png from the first samples of the source that have a picture to compare with.

    Raises:
        ValueError: none of the first hundred or so has one.
    """
    wanted = target if stage == "visual-decoding" else drawn
    samples: list = []
    for step in range(LOOKED_AT):
        samples += [s for s in source.samples(step, 0, 1, COUNT) if wanted(s) is not None]
        if len(samples) >= COUNT:
            break
    samples = samples[:COUNT]
    if not samples:
        raise ValueError(
            f"--sample-every: none of the first samples of --data {'has' if wanted is target else 'draws'} a picture that "
            "could be compared. Leave it out, or name other data."
        )

    def write(step: int, folder: Path) -> None:
        with torch.no_grad():
            made = paint(parts, tokens_of(parts, samples, stage))
        if os.environ.get("RANK", "0") == "0":  # weights in shards: every process takes part
            save(folder / "samples" / f"{step:06d}.png", [wanted(s) for s in samples], made)

    return write


def tokens_of(parts: Components, samples: list, stage: str) -> Tensor:
    """(b,n,c) features: the tower's, or those that the writer writes after each sample's last request."""
    if stage == "visual-decoding":
        return tower_tokens(parts, see(parts, [target(s) for s in samples]))
    from ..data.sample import conversation, picture_at

    f, first = parts.config.features, parts.writer.language.model.norm.weight
    device = first.device
    model = generate.Model(parts.writer.language, parts.writer.projectors, parts.tokenizer, device, first.dtype)
    prompts = []
    for sample in samples:
        turns = list(conversation(sample, f.count).turns)
        while turns and turns[-1].role == "assistant":
            turns.pop()
        laid = prompt.layout(Conversation(tuple(turns)), parts.tokenizer, parts.config.language.positions, f.count, f.count + 2)
        laid.add([parts.tokenizer.image_start])
        shown = [picture_at(sample, slot) for slot in laid.slots]
        read = tower_tokens(parts, see(parts, shown)).split(1) if shown else ()
        prompts.append(prompt.attach(laid, [Features(tokens, tuple(f.grid), f.space, f.tower) for tokens in read]))
    return generate.write_features(model, prompts).to(device)


def paint(parts: Components, tokens: Tensor, steps: int = STEPS, seed: int = 0) -> Tensor:
    """(b,h,w,3) in 0..1 of features (b,n,c), as the decoder was made to paint them; without a tower guided against zeros."""
    c, side = parts.config, parts.config.vision.image_size
    blank = c.decoder.negative == "blank" and parts.tower is not None
    negative = tower_tokens(parts, torch.zeros(1, 3, side, side)) if blank else None  # all zero once normalised
    return painting.paint(parts.decoder, tokens, seed=seed, steps=steps, negative=negative)


def save(path: Path, originals: list[np.ndarray], made: Tensor) -> None:
    """A PNG of two rows, written beside and renamed."""
    from PIL import Image

    size = made.shape[1]
    above = torch.cat([resize(p, size) for p in originals], 1)
    below = (torch.cat(list(made), 1) * 255).round().byte()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    Image.fromarray(torch.cat([above, below]).numpy()).save(part, "PNG")
    part.replace(path)
