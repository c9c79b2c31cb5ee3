"""What people say to the conversation and not to the model: "undo", "again", "the first one".

A prompt carries few exchanges (`ModelConfig.memory`), the conversation keeps them all; so it is the conversation that goes back.

    undo(c)      as it was before the last message or command
    again(c)     the last request once more, without its answer: the model answers it with another seed
    show(c, n)   the n-th picture that was drawn, counted from 1, is the current one again: the conversation goes on from there

Each returns a new conversation and can be undone; no picture is lost. A command is a whole message in one of the phrases below, its case,
punctuation and "please" left aside, without pictures attached: a request is never taken for one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

from .conversation import Conversation, Turn

UNDO = frozenset(
    "undo|undo that|undo it|undo this|undo the last one|undo last|undo the last change|go back|back|go one back|go back one|step back|"
    "one step back|go back one step|go a step back|take that back|take it back|take back|revert|revert that|scratch that".split("|")
)
AGAIN = frozenset(
    "again|once again|once more|one more time|one more|another|another one|another version|try again|try once more|try another|"
    "try another one|do it again|do that again|same again|the same again|retry|repeat|repeat that|repeat it|regenerate|make another|"
    "make another one|give me another|give me another one|draw it again|draw another|draw another one".split("|")
)
ORDINALS = {name: n for n, name in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)}
NUMBERS = {name: n for n, name in enumerate("one two three four five six seven eight nine ten".split(), 1)}
SHOW = re.compile(
    r"(?:(?:go )?back to |return to |show (?:me )?|give me |bring back |i want )?(?:the )?"
    rf"(?:(?P<nth>{'|'.join(ORDINALS)}|\d{{1,4}}(?:st|nd|rd|th))(?: one| picture| image| drawing| version)?"
    rf"|(?:picture|image|drawing) (?:number |no )?(?P<n>{'|'.join(NUMBERS)}|\d{{1,4}}))(?: again| back)?"
)


class CommandError(ValueError):
    """A command that cannot be followed; says why."""


@dataclass(frozen=True)
class Command:
    """`name`: undo, again or show; `number`: of the picture to show, from 1."""

    name: str
    number: int = 0


def read(text: str) -> Command | None:
    """The command that a whole message is; None: it is meant for the model."""
    words = re.sub(r"[^\w]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    words = re.sub(r"^please | please$", "", words)
    if words in UNDO:
        return Command("undo")
    if words in AGAIN:
        return Command("again")
    if found := SHOW.fullmatch(words):
        number = found["nth"] or found["n"]
        return Command("show", ORDINALS.get(number) or NUMBERS.get(number) or int(re.sub(r"\D", "", number)))
    return None


def of(turn: Turn) -> Command | None:
    """The command that a turn is; one that brings references is a request."""
    return read(turn.text) if turn.role == "user" and not turn.references else None


def apply(conversation: Conversation, command: Command) -> Conversation:
    """What the command makes of the conversation, in which it is not a turn itself. Raises CommandError where it cannot be done."""
    if command.name == "undo":
        return undo(conversation)
    return again(conversation) if command.name == "again" else show(conversation, command.number)


def undo(conversation: Conversation) -> Conversation:
    """As it was before the last message or command."""
    if conversation.previous is None and not conversation.messages:
        raise CommandError("there is nothing to take back: nothing was said yet.")
    back = conversation.taken_back()
    said = f"You last said «{back.turns[back.messages[-1]].text[:200]}»." if back.messages else "Nothing is left of the conversation."
    return replace(back, notice=f"Taken back. {said}")


def again(conversation: Conversation) -> Conversation:
    """Ends with the last request, to be answered anew."""
    if not conversation.messages:
        raise CommandError("there is nothing to repeat: nothing was said yet.")
    return replace(conversation, turns=conversation.turns[: conversation.messages[-1] + 1], previous=conversation, notice="")


def another_seed(conversation: Conversation, seed: int) -> int:
    """The seed for answering the last request again: `seed`, or the one after the last answer's, whichever is larger."""
    last = conversation.last
    return seed if last is None or last.seed is None else max(seed, (last.seed + 1) % 2**64)


def show(conversation: Conversation, number: int) -> Conversation:
    """As it was when its picture `number`, from 1, had just been drawn."""
    held = len(conversation.drawn)
    if not 1 <= number <= held:
        raise CommandError(f"there is no picture {number}: {held or 'none'} {'was' if held < 2 else 'were'} drawn in this conversation.")
    turns = conversation.drawn[number - 1]
    request = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
    return replace(conversation, turns=turns, previous=conversation, notice=f"Picture {number} again: «{request[:200]}».")
