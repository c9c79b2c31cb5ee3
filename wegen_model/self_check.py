"""A model that looks at what it drew: draw, look at the picture, say what is wrong, draw again; at most so many times.

    talk -> draw -> paint -> encode -> ask -> right, or no attempt left: done
              ^______________ say what lacks __________|

The question is asked in a conversation of its own, so that it neither fills the talk nor sees what was asked for. What counts as right:
where words are wanted, that the answer holds them all; else that it begins with "yes". A model that has concepts (config.py) is asked to
describe the picture, and the things among its concepts that the request names are wanted; another is asked whether the picture is right.
A model judges itself here: what it cannot see it does not mend. The picture with the least lacking is kept, the first of equals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .chat.conversation import TAG, Conversation, Reference
from .config import ModelConfig
from .features import Features

DESCRIBE = "<image_1> describe the picture"
JUDGE = "<image_1> Does this picture show what was asked for: «{request}»? Answer yes, or say what is wrong."
AGAIN = "{request}"
MEND = "That is not right yet: {answer} Draw it again: {request}"
MOST = 8  # attempts


@dataclass(frozen=True)
class Checked:
    """The picture that was kept: `features`, `image` (1,h,w,3), the conversation that ends with it, and every answer in order with what it
    lacked. `kept`: which of them."""

    features: Features
    image: Tensor
    conversation: Conversation
    answers: tuple[str, ...]
    lacking: tuple[tuple[str, ...], ...]
    kept: int

    @property
    def right(self) -> bool:
        return not self.lacking[self.kept]


def wanted_words(request: str, config: ModelConfig) -> tuple[str, ...]:
    """The model's concepts that a request names, in its order, each once."""
    words = re.findall(r"\w+", TAG.sub(" ", request).casefold())
    return tuple(dict.fromkeys(word for word in words if word in config.concepts))


def lacking_words(answer: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Wanted words that an answer does not hold; without wanted words, the answer itself unless it begins with "yes"."""
    if not wanted:
        return () if re.match(r"\W*yes\b", answer, re.IGNORECASE) else (answer or "no answer",)
    said = set(re.findall(r"\w+", answer.casefold()))
    return tuple(word for word in wanted if word.casefold() not in said)


def draw_checked(
    model: Any,
    conversation: Conversation,
    *,
    attempts: int = 2,
    question: str = "",
    wanted: tuple[str, ...] | None = None,
    correction: str = "",
    guidance: float = 1.0,
    seed: int = 0,
    trim_oldest: bool = False,
) -> Checked:
    """Draw the picture that a conversation opened, and look at it.

    Args:
        model: a `WeGen`. conversation: its last turn opened a picture.
        attempts: how many times it is drawn again at most, 0 to MOST; 0 looks once and mends nothing.
        question: about <image_1>; {request} stands for the last message. Empty: as the model can answer.
        wanted: words that the answer must hold, as () that it begins with "yes"; None: the concepts that the request names.
        correction: the message that asks again, with {request}, {answer} and {lacking}; its references are shown again. Empty: as the model understands.
        guidance: over features. seed: of the painting, and of each attempt's words.
    Raises:
        ValueError: no open picture, or attempts out of their range.
    """
    if not 0 <= attempts <= MOST:
        raise ValueError(f"attempts is {attempts}: a picture is drawn again 0 to {MOST} times. A loop without a bound is not offered.")
    asked = next((t for t in reversed(conversation.turns) if t.role == "user"), None)
    request = TAG.sub("", asked.text).strip() if asked is not None else ""
    wanted = wanted_words(request, model.config) if wanted is None else wanted
    question = question or (DESCRIBE if wanted else JUDGE)
    correction = correction or (AGAIN if wanted else MEND)
    best: tuple[Features, Tensor, Conversation] | None = None
    answers: list[str] = []
    lacks: list[tuple[str, ...]] = []
    kept = 0
    for attempt in range(attempts + 1):
        features, talk = model.draw(conversation, guidance=guidance, trim_oldest=trim_oldest)
        image = model.decode(features, seed=seed)
        seen = model.chat(Conversation().user(_fill(question, request=request), (Reference(image),)), picture="never", max_tokens=64)
        answers.append(seen.turns[-1].text)
        lacks.append(lacking_words(answers[-1], wanted))
        if best is None or len(lacks[-1]) < len(lacks[kept]):
            best, kept = (features, image, talk), attempt
        if not lacks[-1] or attempt == attempts:
            break
        again = talk.user(
            _fill(correction, request=asked.text if asked else "", answer=answers[-1], lacking=", ".join(lacks[-1])),
            asked.references if asked else (),
        )
        conversation = model.chat(again, picture="always", seed=(seed + attempt + 1) % 2**64, trim_oldest=trim_oldest)
    assert best is not None
    return Checked(*best, tuple(answers), tuple(lacks), kept)


def _fill(text: str, **values: str) -> str:
    """Put values for their names in braces; other braces stay."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
