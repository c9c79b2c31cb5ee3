"""The values that people and nodes pass around: references, turns, conversations. All frozen.

A conversation keeps more than a prompt carries: every exchange, every picture that was drawn, taken back or not, and what it was
before its last message. `commands.py` works on that: undo, again, the first one.

`<image_k>` and `<bbox_k>` in a turn's text say where reference k's picture or box stands; k counts from 1 within the turn.
A box is the place of its reference in the picture to be made, in fractions of the side, top-left corner.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ..box import Box
from ..features import Features

TAG = re.compile(r"<((?ai:image|bbox))_(\d+)>")  # in any case; `Turn.tags` and others that ask which kind fold it


@dataclass(frozen=True)
class Reference:
    """A picture (1,h,w,3 in 0..1; a fourth channel is its opacity), or its features, or both; a box or none; a label for people. A box alone is a place."""

    picture: Tensor | None = None
    features: Features | None = None
    box: Box | None = None
    label: str = ""

    def __post_init__(self):
        if self.picture is None and self.features is None and self.box is None:
            raise ValueError("a reference needs a picture, features or a box.")

    def __repr__(self) -> str:
        shown = "features" if self.picture is None else "picture {2}x{1}".format(*self.picture.shape)
        place = "" if self.box is None else " at " + " ".join(f"{v:.3g}" for v in (self.box.x, self.box.y, self.box.width, self.box.height))
        return f"<{self.label or 'reference'}: {shown if self.has_picture else 'a place'}{place}>"

    @property
    def has_picture(self) -> bool:
        return self.picture is not None or self.features is not None


class Unseen:
    """A picture of an earlier turn, whose features are made when a prompt first needs them: of a long conversation, few are."""

    def __init__(self, look: Callable[[], Features]):
        self._look = look

    @cached_property
    def features(self) -> Features:
        return self._look()


@dataclass(frozen=True)
class Turn:
    """One turn of one side. `ids`: the tokens as generated, authoritative for an assistant's turn. `pictures`: features written, or to
    be made from the picture that was saved."""

    role: str  # "user" or "assistant"
    text: str
    references: tuple[Reference, ...] = ()
    ids: tuple[int, ...] | None = None
    pictures: tuple[Features | Unseen, ...] = ()
    open_image: bool = False  # the turn ended by opening an image that is still to be drawn
    seed: int | None = None  # with which an assistant's words were sampled

    def written(self, k: int) -> Features:
        """The features of its k-th picture, from 0 (-1: the last)."""
        picture = self.pictures[k]
        return picture.features if isinstance(picture, Unseen) else picture

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
    """Turns so far, and the hash of the tokenizer whose ids they hold.

    drawn: for each picture that was drawn here, in order, the turns up to it; what is taken back stays in it.
    previous: the conversation before its last message or command; None at its beginning, or where it was made of turns.
    notice: what the conversation itself answers to a command; empty after a turn of the model.
    model: who held it, where a node says so: for AR Feature Decode without a model of its own.
    """

    turns: tuple[Turn, ...] = ()
    tokenizer: str = ""
    drawn: tuple[tuple[Turn, ...], ...] = field(default=(), repr=False, compare=False)
    previous: Conversation | None = field(default=None, repr=False, compare=False)
    notice: str = ""
    model: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        known = {id(turns[-1].pictures[0]) for turns in self.drawn}
        new = [
            i for i, turn in enumerate(self.turns, 1) if turn.role == "assistant" and turn.pictures and id(turn.pictures[0]) not in known
        ]
        if new:
            object.__setattr__(self, "drawn", (*self.drawn, *(self.turns[:i] for i in new)))

    def __str__(self) -> str:
        """As people read it, for nodes that show any value as text."""
        said = [
            f"{'You' if t.role == 'user' else 'WeGen'}: {t.text}{' [picture]' * bool(t.pictures or t.references or t.open_image)}".rstrip()
            for t in self.turns
        ]
        return "\n".join([*said, *([f"({self.notice})"] if self.notice else [])]) or "(nothing was said yet)"

    def user(self, text: str, references: tuple[Reference, ...] = ()) -> Conversation:
        """With a message. Tags in a message without references mean those of the latest message that had some."""
        talk = self.asked(Turn("user", text, tuple(references)))
        talk.turns[-1].check()
        if self.open_image:
            raise ValueError(
                "the last turn opened a picture that was never drawn: pass the conversation through "
                "AR Feature Decode first, and connect its chat output here."
            )
        return talk

    def asked(self, turn: Turn) -> Conversation:
        """`user`, unchecked."""
        if not turn.references and turn.tags():
            turn = replace(turn, references=next((t.references for t in reversed(self.turns) if t.role == "user" and t.references), ()))
        return replace(self, turns=(*self.turns, turn), previous=self, notice="")

    def with_last(self, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns[:-1], turn))

    def taken_back(self) -> Conversation:
        """As it was before its last message or command; the pictures that were drawn since stay in `drawn`."""
        if self.previous is not None:
            return replace(self.previous, tokenizer=self.tokenizer, drawn=self.drawn, notice="")
        return replace(self, turns=self.turns[: self.messages[-1]] if self.messages else (), notice="")

    @property
    def messages(self) -> list[int]:
        """Indices of the user's turns."""
        return [i for i, turn in enumerate(self.turns) if turn.role == "user"]

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    @property
    def reply(self) -> str:
        """What was answered last, in words: by the model, or by the conversation itself (`notice`)."""
        return self.notice or (self.last.text if self.last and self.last.role == "assistant" else "")

    @property
    def open_image(self) -> bool:
        return bool(self.turns) and self.turns[-1].open_image

    @property
    def shown_again(self) -> Features | None:
        """The picture that a command brought back: the last turn's, drawn before."""
        return self.last.written(-1) if self.notice and self.last and self.last.pictures else None
