"""The one form of a training sample, and how the model sees it: ids, masks, and its pictures in the order of the prompt.

m pictures of a sample or batch, read and drawn, in the order in which the prompt shows them · n features of a picture

    Sample - turns - Turn(role, text, pictures, boxes, drawn)

`<image_k>` and `<bbox_k>` in a text stand for picture k and box k of the turn (k from 1), as in conversation.py. `pictures` and
`boxes` are as long as each other: a reference is a picture, a box, or both. A user's box is a place in the picture to be made,
an assistant's box is an answer. `drawn` is the picture that the assistant makes after its words. Pictures: (h,w,3) uint8 sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..box import Box
from ..chat import prompt
from ..chat.conversation import Conversation, Reference
from ..chat.conversation import Turn as Said
from ..chat.tokenizer import Tokenizer
from ..features import Features
from .collate import Plan

TASKS = ("reconstruction", "text-to-picture", "subject", "restoration", "editing", "condition", "style", "understanding")


class Picture(Protocol):
    """(h,w,3) uint8 sRGB for `np.asarray`: an array, or a picture that is made when it is looked at (model_inputs.KeyedPicture)."""

    def __array__(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Turn:
    """What one side says, shows and draws."""

    role: str  # "user" | "assistant"
    text: str
    pictures: tuple[Picture | None, ...] = ()
    boxes: tuple[Box | None, ...] = ()
    drawn: Picture | None = None

    def check(self, where: str) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError(f"{where}: role {self.role!r} is neither user nor assistant.")
        if len(self.pictures) != len(self.boxes):
            raise ValueError(f"{where}: {len(self.pictures)} pictures and {len(self.boxes)} boxes; give None for what a reference lacks.")
        if self.drawn is not None and self.role == "user":
            raise ValueError(f"{where}: a user draws no picture.")
        for k, made in enumerate((*self.pictures, self.drawn), 1):
            picture = None if made is None else np.asarray(made)
            if picture is not None and not (picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3 and picture.size):
                raise ValueError(f"{where}: picture {k} is {picture.dtype} {picture.shape}, not uint8 (h, w, 3).")


@dataclass(frozen=True)
class Sample:
    """One conversation. `key`: unique in its dataset, for messages; `source`: the dataset, filled in by shards and mixtures."""

    task: str  # one of TASKS
    turns: tuple[Turn, ...]
    key: str
    source: str = ""

    def check(self) -> Sample:
        """Itself; ValueError names the sample and what is wrong with it."""
        if self.task not in TASKS:
            raise ValueError(f"sample {self.key}: no task {self.task!r}; the tasks are {', '.join(TASKS)}.")
        if not self.turns or self.turns[-1].role != "assistant":
            raise ValueError(f"sample {self.key}: the last turn must be the assistant's: it is what is learned.")
        for i, turn in enumerate(self.turns, 1):
            turn.check(f"sample {self.key}, turn {i}")
        try:
            conversation(self, 1)
        except ValueError as error:
            raise ValueError(f"sample {self.key}: {error}") from None
        return self


def conversation(sample: Sample, n: int) -> Conversation:
    """The sample as the library's Conversation, with n blank features for every picture: what a prompt's layout needs of it."""
    blank = Features(torch.zeros(1, n, 1), (1, n), "", "")
    turns = []
    for turn in sample.turns:
        references = tuple(Reference(features=None if p is None else blank, box=b) for p, b in zip(turn.pictures, turn.boxes, strict=True))
        made = Said(turn.role, turn.text, references, pictures=() if turn.drawn is None else (blank,))
        made.check()
        turns.append(made)
    return Conversation(tuple(turns))


def picture_at(sample: Sample, slot: prompt.Slot) -> Picture:
    """The picture that stands in a slot of the sample's prompt."""
    turn = sample.turns[slot.turn]
    picture = turn.drawn if slot.reference is None else turn.pictures[slot.reference]
    assert picture is not None, "a slot has a picture"
    return picture


def plan(sample: Sample, tokenizer: Tokenizer, positions: int, n: int, memory: int = 0) -> tuple[Plan, list[prompt.Slot]]:
    """Ids and masks as the model sees them, and where the pictures stand: row i of the plan is slot i (see `picture_at`).

    Args:
        memory: earlier exchanges that the prompt carries (ModelConfig.memory); 0: all.

    Raises:
        ValueError: longer than the model's positions, even without its oldest exchanges.
    """
    laid = prompt.layout(conversation(sample, n), tokenizer, positions, n, end=True, trim_oldest=True, memory=memory)
    return Plan.of(laid, list(range(len(laid.slots)))), laid.slots
