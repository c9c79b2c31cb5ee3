"""What a model is shown of samples: the one place that decides it, for every stage, sample sheet and contact sheet.

b samples · t tokens · m pictures in the order of the prompt, w of them written · s the tower's side, h,w the painted picture's, in pixels

For models with `references="placed"` a user's picture with a box is pasted into that box, and a picture that is not square keeps its
proportions (chat/reference_cutout.py), as in the pipeline. For all others the tower sees pictures squashed to its square; the decoder paints
them squashed, or their middle (`crop`, the public stage 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chat.conversation import Box
from ..chat.prompt import Slot
from ..chat.reference_cutout import pad_to_square, shown
from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..images import resize
from ..models.decoder import time_ids
from ..models.eva_clip import prepare
from .collate import Batch, Plan, collate, unconditional
from .sample import Picture, Sample, picture_at, plan


class KeyedPicture:
    """A picture that is made when it is looked at, `np.asarray(picture)` (h,w,3) uint8, and known by its key before."""

    def __init__(self, key: str, make: Callable[[], np.ndarray]):
        self.key, self._make = key, make

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._make(), dtype)


@dataclass(frozen=True)
class ShownPicture:
    """A picture as it is shown: (h,w,3) uint8, or a KeyedPicture, and the box that its subject is pasted into.

    keep_aspect: what is not square is padded, not squashed (pictures with a key are square).
    """

    picture: Picture
    box: Box | None = None
    keep_aspect: bool = False

    @property
    def key(self) -> tuple | None:
        """Says which picture this is without looking at it; None when it must be looked at."""
        own = getattr(self.picture, "key", None)
        return None if own is None else (own, self.box)

    def pixels(self, config: ModelConfig, fit: str = "squash") -> Tensor:
        """(1,3,s,s) normalised, exactly as in inference."""
        x = torch.from_numpy(np.array(self.picture)).float() / 255
        if self.box is not None or self.keep_aspect:
            x = (shown(x, self.box, config.vision.image_size) * 255).round() / 255  # rounded as a picture is
        return prepare(x[None], config.vision, fit)

    def to_paint(self, size: int) -> Tensor:
        """(size,size,3) uint8, see `target_pixels`."""
        if not self.keep_aspect:
            return target_pixels(self.picture, size)
        x = pad_to_square(torch.from_numpy(np.array(self.picture)).float() / 255, size)
        return target_pixels((x * 255).round().byte().numpy(), size)


@dataclass
class ModelInputs:
    """One micro-batch of conversations.

    batch: padded ids, labels and the places of pictures. pictures: (m,) ShownPictures, by `batch.rows`. blank: (m,) written pictures that
    stay placeholders (parallel writing). target_pixels: (w,h,w,3) uint8 of the written pictures; size_ids: (w,6) of the decoder; both
    None where nothing is painted. tasks, keys, sources: of the b samples, the unconditional ones included.
    """

    batch: Batch
    pictures: list[ShownPicture]
    blank: Tensor
    target_pixels: Tensor | None = None
    size_ids: Tensor | None = None
    tower_pixels: Tensor | None = None  # (m,3,s,s), see `look`
    features: Tensor | None = None  # (m,n,c) where they were known
    tasks: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # what cannot be shown, or was not read, and why


def model_inputs(
    samples: Sequence[Sample],
    config: ModelConfig,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    *,
    keep_caption_prob: float = 1.0,
    unconditional_share: float = 0.0,
    parallel: float = 0.0,
    size: int | None = None,
    time_ids_kind: str | None = None,
) -> ModelInputs:
    """Conversations as the language model is shown them.

    Args:
        keep_caption_prob: share of the answers with words before their picture that keep the words.
        unconditional_share: of the samples with a written picture, how many bring <img> and its features alone along.
        parallel: share of the last written pictures that are blank.
        size: of the pictures to paint, in pixels; None paints none. time_ids_kind: one of config.TIME_IDS; None as the decoder has it.
    Raises:
        ValueError: no sample fits the model's positions.
    """
    n = config.features.count
    plans: list[Plan] = []
    pictures: list[ShownPicture] = []
    tasks: list[str] = []
    keys: list[str] = []
    sources: list[str] = []
    skipped: dict[str, str] = {}
    for sample in samples:
        if rng.random() >= keep_caption_prob:
            sample = without_words(sample)
        try:
            one, slots = plan(sample, tokenizer, config.language.positions, n, config.memory)
        except ValueError as error:
            skipped[f"sample {sample.key}"] = str(error)
            continue
        plans.append(replace(one, pictures=[(start, len(pictures) + row, written) for start, row, written in one.pictures]))
        pictures += [shown_at(sample, slot, config) for slot in slots]
        tasks.append(sample.task)
        keys.append(sample.key)
        sources.append(sample.source)
    if not plans:
        raise ValueError(f"no sample of the batch can be shown to the model; {skipped}")
    for one, task, key, source in list(zip(plans, tasks, keys, sources)):
        rows = [row for _, row, written in one.pictures if written]
        if rows and rng.random() < unconditional_share:
            plans.append(unconditional(tokenizer, len(pictures), n))
            pictures.append(pictures[rows[-1]])
            tasks.append(task)
            keys.append(f"{key}, without its request")
            sources.append(source)
    batch = collate(plans)
    m = len(batch.rows)
    pictures = [pictures[row] for row in batch.rows]
    batch.rows = list(range(m))
    blank = batch.written & last_pictures(batch) & torch.from_numpy(rng.random(m) < parallel)
    out = ModelInputs(batch, pictures, blank, tasks=tasks, keys=keys, sources=sources, skipped=skipped)
    if size is not None and batch.written.any():
        painted = [pictures[i] for i in batch.written.nonzero().flatten().tolist()]
        out.target_pixels = torch.stack([picture.to_paint(size) for picture in painted])
        out.size_ids = time_ids(config.decoder, size, size, len(painted), torch.device("cpu"), time_ids_kind)
    return out


def last_pictures(batch: Batch) -> Tensor:
    """(m,) True at the last picture of each sample; earlier ones are there to be read."""
    final = torch.ones(len(batch.rows), dtype=torch.bool)
    final[:-1] = batch.place[1:, 0] != batch.place[:-1, 0]
    return final


def look(pictures: Sequence[ShownPicture], config: ModelConfig, fit: str = "squash") -> Tensor:
    """(m,3,s,s) normalised pixels for the tower."""
    side = config.vision.image_size
    return torch.cat([p.pixels(config, fit) for p in pictures]) if pictures else torch.zeros(0, 3, side, side)


def shown_at(sample: Sample, slot: Slot, config: ModelConfig) -> ShownPicture:
    """The picture in a slot of the sample's prompt; for models with `references="placed"` a user's with a box is pasted into it."""
    turn, placed = sample.turns[slot.turn], config.references == "placed"
    whole = turn.role != "user" or not placed
    return ShownPicture(picture_at(sample, slot), None if whole or slot.reference is None else turn.boxes[slot.reference], placed)


def without_words(sample: Sample) -> Sample:
    """Answers that draw, without what they say before."""
    return replace(sample, turns=tuple(replace(t, text="", pictures=(), boxes=()) if t.drawn is not None else t for t in sample.turns))


def target_pixels(picture: Picture, size: int, crop: bool = False) -> Tensor:
    """(size,size,3) uint8: squashed to the square as in the public stages 2 and 3, or its middle cut out (stage 1). Bicubic."""
    return resize(np.array(picture), size, crop)


def drawn(sample: Sample) -> Picture | None:
    """The last picture that a sample draws, or None."""
    return next((turn.drawn for turn in reversed(sample.turns) if turn.drawn is not None), None)


def target(sample: Sample) -> Picture | None:
    """The picture of a sample that is painted: what was drawn last, else the first that was shown; None without pictures."""
    made = drawn(sample)
    return made if made is not None else next((p for turn in sample.turns for p in turn.pictures if p is not None), None)
