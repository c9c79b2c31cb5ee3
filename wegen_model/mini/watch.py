"""What a writer in training really does: features rolled out on samples it never saw, as numbers in the log and as a sheet of pictures.

Teacher-forced error misleads (0.14 where the rolled-out one was 0.38), so this is the number to steer by. 1 is the error of always
writing the mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..models.decoder import Decoder
from ..models.decoder import noise as noise_of
from .dialogue import Bank, LanguageModule, plans
from .rollout import write
from .tasks import TASKS, sample
from .world.art import Art
from .world.pictures import Pool

STEPS = 8  # of denoising: enough for a look


class Watch:
    """`watch(writer, step, folder)` -> {task: rolled-out error}; writes sample-STEP.png, a column a sample: wanted above painted."""

    def __init__(
        self,
        tower: torch.nn.Module,
        decoder: Decoder,
        config: ModelConfig,
        tokenizer: Tokenizer,
        art: Art,
        each: int = 3,
        tasks: Sequence[str] = tuple(TASKS),
    ):
        """`each`: samples a task, of the held-out combinations; those that end in words are passed over."""
        samples = [sample(s, {task: 1}, "heldout") for task in tasks for s in range(each)]
        self.samples = [s for s in samples if s.turns[-1].picture is not None]
        self.pool = Pool(self.samples, art)
        self.bank = Bank(tower, config, self.pool)
        self.plans = plans(self.pool, tokenizer, config.language.positions)
        self.config, self.decoder = config, decoder

    @torch.no_grad()
    def __call__(self, writer: LanguageModule, step: int, folder: Path) -> dict[str, float]:
        errors: dict[str, list[float]] = defaultdict(list)
        rows, made = [], []
        for one, plan in zip(self.samples, self.plans):
            row = plan.pictures[-1][1]
            for parallel in (False, True):
                tokens = write(writer, self.config, [plan], self.bank, parallel)
                off = ((tokens - self.bank[[row]].float()) / writer.projectors.std).square().mean().item()
                errors["rolled_parallel" if parallel else "rolled"].append(off)
                if not parallel:
                    errors[f"rolled_{one.task}"].append(off)
                    rows.append(row)
                    made.append(tokens)
        self.sheet(torch.cat(made), rows, folder / f"sample-{step:06d}.png")
        return {name: float(np.mean(values)) for name, values in errors.items()}

    def sheet(self, tokens: Tensor, rows: list[int], path: Path, columns: int = 11) -> None:
        d, unet = self.decoder, self.decoder.unet.config
        side = d.config.size // d.factor
        latents = d.sample(tokens, tokens.mean(1), noise_of(len(tokens), unet.out_channels, side, side, 0), steps=STEPS)
        painted = ((d.to_pixels(latents) / 2 + 0.5).clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
        cells = [np.concatenate([self.pool.picture(r), p]) for r, p in zip(rows, painted)]
        cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
        Image.fromarray(np.concatenate([np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)])).save(path)
