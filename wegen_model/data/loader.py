"""From a mixture to what a step consumes: ids, masks, and pictures at the sizes of the tower and the decoder.

m pictures, w written ones · s side of the tower's pictures · d side of the decoder's

torch's DataLoader with worker processes decodes ahead; a step is the index, so order does not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..chat.tokenizer import Tokenizer
from .collate import Batch
from .mixture import Mixture
from .sample import Sample, batch, plan


@dataclass
class Step:
    """What one micro-batch gives to a training step."""

    batch: Batch  # rows: 0 … m-1
    seen: Tensor  # (m,s,s,3) uint8, every picture squashed as the tower sees it, in the order of batch.rows
    target: Tensor | None  # (w,d,d,3) uint8, the written ones as the decoder paints them: centre crop
    sizes: Tensor | None  # (w,6) original height, width, top, left, d, d: SDXL's time ids
    source: str
    tasks: list[str]
    keys: list[str]
    skipped: list[str] = field(default_factory=list)  # samples that could not be read or do not fit, each named


def squash(picture: np.ndarray, side: int) -> np.ndarray:
    """(side,side,3): the whole picture, its aspect given up, bilinear with antialiasing as vision.prepare does."""
    if picture.shape[:2] == (side, side):
        return picture
    return np.array(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def crop(picture: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The middle square at (side,side,3), and SDXL's six numbers: original height and width, top and left of the crop, side, side.

    Top and left are in pixels of the picture scaled so that its shorter side is `side`.
    """
    h, w = picture.shape[:2]
    scale = side / min(h, w)
    high, wide = max(side, round(h * scale)), max(side, round(w * scale))
    top, left = (high - side) // 2, (wide - side) // 2
    box = (left / scale, top / scale, min(w, (left + side) / scale), min(h, (top + side) / scale))
    out = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS, box=box)
    return np.array(out), (h, w, top, left, side, side)


@dataclass(frozen=True)
class Sizes:
    """What the model asks of its data."""

    positions: int  # tokens of a conversation at most
    features: int = 64
    tower: int = 448
    decoder: int = 0  # 0: no targets for the decoder

    @classmethod
    def of(cls, config, decoder: int = 0) -> Sizes:
        """Of a ModelConfig."""
        return cls(config.language.positions, config.features.count, config.vision.image_size, decoder)


def assemble(samples: list[Sample], tokenizer: Tokenizer, sizes: Sizes, source: str = "", skipped: list[str] | None = None) -> Step:
    """A Step of some samples. Those that do not fit the model's positions are left out and named; ValueError when none fits."""
    plans, kept, skipped = [], [], list(skipped or ())
    for s in samples:
        try:
            plans.append(plan(s, tokenizer, sizes.positions, sizes.features))
            kept.append(s)
        except ValueError as error:
            skipped.append(f"sample {s.key} of {source or s.source}: {error}")
    if not plans:
        raise ValueError(f"{source}: no sample of the batch can be shown to the model. {skipped[-1] if skipped else 'It is empty.'}")
    made, pictures = batch(plans)
    side = sizes.tower
    seen = _stack([squash(p, side) for p in pictures], side)
    target = numbers = None
    if sizes.decoder:
        cut = [crop(pictures[i], sizes.decoder) for i in made.written.nonzero()[:, 0].tolist()]
        target = _stack([c[0] for c in cut], sizes.decoder)
        numbers = torch.tensor([c[1] for c in cut]).view(-1, 6)
    return Step(made, seen, target, numbers, source, [s.task for s in kept], [s.key for s in kept], skipped)


def _stack(pictures: list[np.ndarray], side: int) -> Tensor:
    return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty(0, side, side, 3, dtype=torch.uint8)


class Steps(Dataset):
    """`self[step]` is the Step of this rank: a pure function of (seed, rank, step)."""

    def __init__(self, mixture: Mixture, tokenizer: Tokenizer, sizes: Sizes, steps: int, rank: int = 0, world: int = 1):
        self.mixture, self.tokenizer, self.sizes, self.steps, self.rank, self.world = mixture, tokenizer, sizes, steps, rank, world

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Step:
        drawn = self.mixture.samples(step, self.rank, self.world)
        return assemble(drawn.samples, self.tokenizer, self.sizes, drawn.source, drawn.skipped)


def loader(steps: Steps, start: int = 0, workers: int = 4, ahead: int = 4) -> DataLoader:
    """Steps `start` … in order; `ahead` of them are prepared by each of `workers` processes (0: in this one)."""
    some = dict(prefetch_factor=ahead, persistent_workers=True, worker_init_fn=_one_thread) if workers else {}
    return DataLoader(
        steps, batch_size=None, sampler=range(start, len(steps)), num_workers=workers, pin_memory=torch.cuda.is_available(), **some
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
