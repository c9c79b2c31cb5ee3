"""Prompts become padded batches for training the language model.

b samples · t tokens (padded on the right: causal attention never looks there) · m pictures in the batch · n features · c width
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..box import LOCATIONS, Box
from ..chat.prompt import PromptLayout, picture_ids
from ..chat.tokenizer import Tokenizer
from ..models.llama import Language
from ..models.pointer import Shown
from ..models.projectors import Projectors
from ..models.prompt_embedding import embed_prompts


@dataclass
class Plan:
    """A prompt without its features: what can be kept for millions of samples."""

    ids: list[int]
    trained: list[bool]
    pictures: list[tuple[int, int, bool]]  # position of the first feature, row in the table of features, written?
    boxes: list[tuple[int, int]] = field(default_factory=list)  # as of PromptLayout
    regions: list[tuple[Box, ...]] = field(default_factory=list)  # beside `pictures`; none without boxes

    @classmethod
    def of(cls, laid: PromptLayout, rows: list[int]) -> Plan:
        """`rows`: the pictures' rows in the table, in the order of the slots."""
        pictures = [(slot.start, row, slot.written) for slot, row in zip(laid.slots, rows, strict=True)]
        return cls(laid.ids, laid.trained, pictures, laid.boxes, [slot.boxes for slot in laid.slots])


@dataclass
class Batch:
    """Padded plans. `place` (m,2): sample and first position of each picture; `written` (m,) which of them are outputs."""

    ids: Tensor  # (b,t)
    labels: Tensor  # (b,t), -100 where no loss
    place: Tensor
    written: Tensor
    rows: list[int]  # rows of the feature table, (m,)
    boxes: list[tuple[int, int, int]] = field(default_factory=list)  # sample, where a box's ids begin, its number in its turn
    regions: list[tuple[Box, ...]] = field(default_factory=list)  # (m,) boxes that each written picture was asked to keep to

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{k: getattr(self, k).to(device) for k in ("ids", "labels", "place", "written")})


def unconditional(tokenizer: Tokenizer, row: int, n: int) -> Plan:
    """The unconditional sequence of classifier-free guidance: <img> and the features, without a prompt."""
    ids = [tokenizer.image_start, *picture_ids(n, tokenizer)]
    return Plan(ids, [False] * len(ids), [(1, row, True)])


def collate(plans: list[Plan], pad: int = 0) -> Batch:
    t = max(len(p.ids) for p in plans)
    ids = torch.full((len(plans), t), pad)
    labels = torch.full((len(plans), t), -100)
    place, written, rows, boxes, regions = [], [], [], [], []
    for i, p in enumerate(plans):
        ids[i, : len(p.ids)] = torch.tensor(p.ids)
        mask = torch.tensor(p.trained)
        labels[i, : len(p.ids)][mask] = torch.tensor(p.ids)[mask]
        for start, row, out in p.pictures:
            place.append((i, start))
            written.append(out)
            rows.append(row)
        boxes += [(i, at, number) for at, number in p.boxes]
        regions += p.regions or [()] * len(p.pictures)
    return Batch(ids, labels, torch.tensor(place).view(-1, 2), torch.tensor(written, dtype=torch.bool), rows, boxes, regions)


def embed(language: Language, projectors: Projectors, batch: Batch, fed: Tensor, blank: Tensor | None = None) -> Tensor:
    """(b,t,d) input embeddings: tokens, with normalised features `fed` (m,n,c) at their places.

    `blank` (m,): pictures whose places keep the placeholders' own embeddings (parallel writing).
    """
    return embed_prompts(language, projectors, batch.ids, batch.place, fed, boxes=batch.boxes, regions=batch.regions, blank=blank)


def predictions(projectors: Projectors, hidden: Tensor, batch: Batch, n: int, features: Tensor) -> Tensor:
    """(w,n,c) normalised predictions of the written pictures, each read one position before its feature.

    `features` (m,n,c): the batch's pictures, normalised; read by models that point at earlier ones.
    """
    place = batch.place[batch.written]
    at = place[:, 1:] - 1 + torch.arange(n, device=hidden.device)
    shown = shown_before(batch, features, batch.written) if projectors.config.pointer else None
    return projectors.predict(hidden[place[:, :1].expand(-1, n), at], shown)


def shown_before(batch: Batch, features: Tensor, which: Tensor) -> Shown | None:
    """For each picture of `which` (m,), the features of the earlier pictures of its sample."""
    sample = batch.place[:, 0].tolist()
    rows = [[features[j] for j in range(i) if sample[j] == sample[i]] for i in which.nonzero().flatten().tolist()]
    return Shown.of(rows, features)


def language_loss(language: Language, hidden: Tensor, batch: Batch, locations: int | None = None, spread: float = 0.0) -> Tensor:
    """Shifted cross-entropy over the trained positions; zero (with a graph) when there are none.

    `locations`: the id of the first of the 224 locations. With a `spread` (in locations) half of an answer's location is aimed at
    its neighbours, as a bell curve: being near is better than being far, which plain cross-entropy does not know.
    """
    labels = batch.labels[:, 1:]
    mask = labels != -100
    if not mask.any():
        return hidden.sum() * 0
    logits, wanted = language.logits(hidden[:, :-1][mask]), labels[mask]
    loss = F.cross_entropy(logits, wanted, reduction="none")
    if locations is None or not spread:
        return loss.mean()
    place = wanted - locations
    if (some := (place >= 0) & (place < LOCATIONS)).any():
        away = torch.arange(LOCATIONS, device=logits.device) - place[some, None]
        bell = (-0.5 * (away / spread).square()).softmax(-1)
        near = -(bell * logits[some].log_softmax(-1)[:, locations : locations + LOCATIONS]).sum(-1)
        loss = loss.index_put((some.nonzero().flatten(),), (loss[some] + near) / 2)
    return loss.mean()
