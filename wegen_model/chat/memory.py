"""What a prompt of a model with a short memory carries beside the last exchanges.

`ModelConfig.memory` says how many exchanges before the latest message are in the prompt. One question in words, and the picture that
was talked about would be out of it. So where the message refers to a picture (one of POINTING is in it) and no exchange in the prompt
shows one, the latest exchange that shows one, drawn or attached, takes the place of the oldest in the prompt: the prompt stays as long
as it was. A tag (`<image_1>`) needs none of this: `Conversation.user` brings the reference it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .conversation import Conversation, Turn
from .prompt import first_kept

POINTING = frozenset("it its picture image photo drawing background now instead make replace remove add move change turn".split())


def recalled(turns: Sequence[Turn], memory: int) -> range:
    """Indices of the turns of the exchange that the prompt carries although it is older than the last `memory`; empty: none."""
    first = first_kept(turns, memory)
    messages = [i for i, turn in enumerate(turns) if turn.role == "user"]
    if not first or not POINTING & set(re.findall(r"\w+", turns[messages[-1]].text.casefold())):
        return range(0)
    shows = [i for i, turn in enumerate(turns[: messages[-1] + 1]) if turn.pictures or any(r.has_picture for r in turn.references)]
    if not shows or shows[-1] >= first:
        return range(0)
    start = max((i for i in messages if i <= shows[-1]), default=0)
    return range(start, min(i for i in messages if i > start))


def recall(conversation: Conversation, memory: int) -> Conversation:
    """The conversation of which the prompt carries the last `memory` exchanges; the same one where nothing is recalled."""
    turns = conversation.turns
    exchange = recalled(turns, memory)
    if not exchange:
        return conversation
    newer = first_kept(turns, memory - 1) if memory > 1 else conversation.messages[-1]
    return replace(conversation, turns=(*turns[exchange.start : exchange.stop], *turns[newer:]))
