"""The values that people and nodes pass around: references, turns, conversations. All frozen.

`<image_k>` and `<bbox_k>` in a turn's text say where reference k's picture or box stands; k counts from 1 within the turn.
A box is the place of its reference in the picture to be made, in fractions of the side, top-left corner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from torch import Tensor

from ..box import Box
from ..features import Features

TAG = re.compile(r"<((?ai:image|bbox))_(\d+)>")  # in any case; `Turn.tags` and others that ask which kind fold it


@dataclass(frozen=True)
class Reference:
    """A picture (1,h,w,3 in 0..1), or its features, or both; a box or none; a label for people. A box alone is a place."""

    picture: Tensor | None = None
    features: Features | None = None
    box: Box | None = None
    label: str = ""

    def __post_init__(self):
        if self.picture is None and self.features is None and self.box is None:
            raise ValueError("a reference needs a picture, features or a box.")

    @property
    def has_picture(self) -> bool:
        return self.picture is not None or self.features is not None


@dataclass(frozen=True)
class Turn:
    """One turn of one side. `ids`: the tokens as generated, authoritative for an assistant's turn. `pictures`: features written."""

    role: str  # "user" or "assistant"
    text: str
    references: tuple[Reference, ...] = ()
    ids: tuple[int, ...] | None = None
    pictures: tuple[Features, ...] = ()
    open_image: bool = False  # the turn ended by opening an image that is still to be drawn

    def tags(self) -> list[tuple[str, int]]:
        return [(m[1].lower(), int(m[2])) for m in TAG.finditer(self.text)]

    def check(self) -> None:
        """Refuses a tag without its reference, and an empty message."""
        n = len(self.references)
        if self.role == "user" and not self.text.strip() and not any(r.has_picture for r in self.references):
            raise ValueError("the message is empty: write what you want, or attach a picture.")
        for kind, k in self.tags():
            if not 1 <= k <= n:
                raise ValueError(
                    f"the text says <{kind}_{k}>, but this turn has {n} reference{'s' * (n != 1)}. Connect image_{k}, or change the tag."
                )
            reference = self.references[k - 1]
            if kind == "bbox" and reference.box is None:
                raise ValueError(
                    f"the text says <bbox_{k}>, but reference {k} has no box. Give it one (Bbox Compose), or take the tag out."
                )
            if kind == "image" and not reference.has_picture:
                raise ValueError(f"the text says <image_{k}>, but reference {k} is only a box. Connect image_{k}, or take the tag out.")


@dataclass(frozen=True)
class Conversation:
    """Turns so far, and the hash of the tokenizer whose ids they hold."""

    turns: tuple[Turn, ...] = ()
    tokenizer: str = ""

    def user(self, text: str, references: tuple[Reference, ...] = ()) -> Conversation:
        turn = Turn("user", text, tuple(references))
        turn.check()
        if self.open_image:
            raise ValueError(
                "the last turn opened a picture that was never drawn: pass the conversation through "
                "AR Feature Decode first, and connect its chat output here."
            )
        return replace(self, turns=(*self.turns, turn))

    def with_last(self, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns[:-1], turn))

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    @property
    def open_image(self) -> bool:
        return bool(self.turns) and self.turns[-1].open_image
