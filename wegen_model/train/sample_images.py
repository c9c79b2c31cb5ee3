"""Sample pictures during training: originals above, the model's pictures below.

`visual-decoding`: each picture is encoded and painted. The language stages: each request is answered with a picture, and the error of
what was written can be logged: teacher-forced error misleads (0.14 where the rolled-out one was 0.38), so this is the number to steer by.

b samples · n features · c feature width
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.model_inputs import ShownPicture, drawn, look, target, target_pixels
from ..data.sample import Sample
from ..fileio import atomic
from ..generation import paint as painting
from .encoders import tower_features
from .modules import Components
from .own_pictures import blank_features, write

COUNT, STEPS, COLUMNS = 4, 12, 11
LOOKED_AT = 32  # steps of the source, at most, for pictures to show


class SampleImages:
    """`images(step, folder)` writes FOLDER/samples/STEP.png, and gives numbers for the log, or None."""

    def __init__(self, components: Components, source: Any, stage: str, measured: bool = False):
        """`source`: samples, or a source whose first samples with a picture to compare with are taken.

        Raises:
            ValueError: none of the first hundred or so has one.
        """
        self.components, self.stage, self.measured = components, stage, measured
        wanted = target if stage == "visual-decoding" else drawn
        found: list[Sample] = [s for s in source if wanted(s) is not None] if isinstance(source, list) else []
        for step in range(0 if isinstance(source, list) else LOOKED_AT):
            found += [s for s in source.samples(step, 0, 1, COUNT) if wanted(s) is not None]
            if len(found) >= COUNT:
                found = found[:COUNT]
                break
        if not found:
            raise ValueError(
                f"--sample-every: none of the first samples of --data {'has' if wanted is target else 'draws'} a picture that "
                "could be compared. Leave it out, or name other data."
            )
        self.samples, self.wanted = found, [p for s in found if (p := wanted(s)) is not None]
        self.requests = [next((t.text for t in reversed(s.turns) if t.role == "user"), "") for s in found]

    @torch.no_grad()
    def __call__(self, step: int, folder: Path) -> dict[str, float] | None:
        true, numbers = self._true(), None
        if self.stage == "visual-decoding":
            tokens = true
        else:
            device = self.components.need_language().language.model.norm.weight.device
            tokens = write(self.components, self.samples, device)
            numbers = self._errors(tokens, true, device) if self.measured else None
        made = paint(self.components, tokens)
        if os.environ.get("RANK", "0") == "0":  # weights in shards: every process takes part
            save(folder / "samples" / f"{step:06d}.png", self.wanted, made)
        return numbers

    def _true(self) -> Tensor:
        return tower_features(self.components, look([ShownPicture(p) for p in self.wanted], self.components.config)).cpu()

    def _errors(self, tokens: Tensor, true: Tensor, device: torch.device) -> dict[str, float]:
        """Squared errors of written features, normalised: 1 is the error of always writing the mean. All, by task, and all at once."""
        normalise = self.components.need_language().projectors.normalise
        off = (normalise(tokens.to(device)) - normalise(true.to(device))).square().mean((1, 2)).tolist()
        by_task: dict[str, list[float]] = defaultdict(list)
        for sample, value in zip(self.samples, off):
            by_task[f"rolled_{sample.task}"].append(value)
        by_task["rolled"] = off
        if self.components.config.features.parallel:
            at_once = write(self.components, self.samples, device, "parallel").to(device)
            by_task["rolled_parallel"] = (normalise(at_once) - normalise(true.to(device))).square().mean((1, 2)).tolist()
        return {name: float(np.mean(values)) for name, values in by_task.items()}


def paint(components: Components, tokens: Tensor, steps: int = STEPS, seed: int = 0, **sides: Any) -> Tensor:
    """(b,h,w,3) in 0..1 of features (b,n,c), as the decoder was made to paint them; `width` and `height` in pixels."""
    return painting.paint(components.need_decoder(), tokens, seed=seed, steps=steps, negative=blank_features(components), **sides)


def save(path: Path, originals: list, made: Tensor) -> None:
    """A PNG of pairs, wanted above made, written beside and renamed."""
    size = made.shape[1]
    pairs = [torch.cat([target_pixels(p, size), (m * 255).round().byte()]) for p, m in zip(originals, made)]
    columns = min(COLUMNS, len(pairs))
    pairs += [torch.zeros_like(pairs[0])] * (-len(pairs) % columns)
    sheet = torch.cat([torch.cat(pairs[i : i + columns], 1) for i in range(0, len(pairs), columns)])
    with atomic(path) as part:
        Image.fromarray(sheet.numpy()).save(part, "PNG")
