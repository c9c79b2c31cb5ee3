"""The value of the chat panel: a conversation as JSON text in the workflow, pictures by file.

    {"version": 1, "head": "b", "turns": [
      {"id": "a", "parent": null, "role": "user", "text": "…", "seed": 7, "pictures": [{"filename", "subfolder", "type", "label", "box"}]},
      {"id": "b", "parent": "a", "role": "assistant", "text": "…", "pictures": […], "boxes": […], "seed": 7}]}

`label` and `box` may lack. Turns form a tree (an edited message or a second answer is a sibling); the path from `head` to the
root is the conversation. A list of turns, or text that is no JSON (one message), is read too. Where the conversation follows commands
("undo", "the first one": commands.py) they stand in it as they were typed, and reading it follows them again.
An answer may have several pictures, one a seed: versions beside each other (siblings), of which all but the first name the seed of the
first, with which the words were written, as `first`. Where such a one is chosen, it alone is asked for again.
js/chat/transcript.js is the other reader and the writer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..box import read_sides
from ..features import Features
from ..fileio import JSONError, parse_json
from . import commands as spoken
from .conversation import TAG, Box, Conversation, Reference, Turn, Unseen

TURNS, TEXT, PICTURES, BOXES = 4000, 20000, 8, 32  # read at most: turns, characters and pictures a turn, boxes a reply
LABEL, ID = 100, 64  # characters
PLACES = ("input", "output", "temp")


@dataclass(frozen=True)
class Say:
    """One turn of the path. `pictures`: files; `places`: box or None for each; `boxes`: those that a reply named; `first`: the seed of the
    first of the pictures beside this one, None where it is the first."""

    role: str
    text: str
    id: str = ""
    seed: int = 0
    pictures: tuple[dict, ...] = ()
    places: tuple[Box | None, ...] = ()
    boxes: tuple[Box, ...] = ()
    first: int | None = None


@dataclass(frozen=True)
class Transcript:
    """`turns` end with the message that waits for an answer; `seed` is that answer's; `first`: as in `Say`; `ignored`: what was left out, in words."""

    turns: tuple[Say, ...] = ()
    seed: int = 0
    ignored: tuple[str, ...] = field(default=())
    first: int | None = None

    @property
    def id(self) -> str:
        return self.turns[-1].id if self.turns else ""

    @property
    def original(self) -> tuple[dict, str] | None:
        """The picture that the waiting message changes, and which turn shows it: the message's only picture, if no box places it; of a
        message without pictures, that of the answer before. None: a new picture. (js/chat/transcript.js: `original`.)"""
        if not self.turns:
            return None
        last = self.turns[-1]
        if last.pictures:
            return (last.pictures[0], f"turn {len(self.turns)}") if len(last.pictures) == 1 and last.places[0] is None else None
        before = self.turns[-2] if len(self.turns) > 1 else None
        return (before.pictures[0], f"turn {len(self.turns) - 1}") if before is not None and before.pictures else None

    def conversation(self, load: Callable[[dict, str], Any], encode: Callable[[Any], Features], commands: bool = False) -> Conversation:
        """The turns with their pictures: `load(file, where)` gives IMAGE, `encode` its features (for pictures that the model drew,
        which are read when a prompt first needs them).

        `commands`: messages such as "undo" were the conversation's to follow, as in `WeGen.chat`; the last one is still to be followed.

        Raises:
            ValueError: nothing was said; a picture that cannot be read; a tag that names nothing.
        """
        if not self.turns:
            raise ValueError("WeGen Chat Panel: nothing was said yet. Write a message in the panel and press Send.")
        talk = Conversation()
        for number in range(0, len(self.turns) - 1, 2):  # exchanges: `parse_transcript` has seen to it
            asked = self._asked(number, load)
            command = spoken.of(asked) if commands else None
            if command is None:
                talk = talk.asked(asked)
            else:
                try:
                    talk = spoken.apply(talk, command)
                except spoken.CommandError:  # it could not be followed then either
                    continue
            if not talk.notice:
                talk = replace(talk, turns=(*talk.turns, self._answer(number + 1, load, encode)))
        last = self._asked(len(self.turns) - 1, load)
        return talk.user(last.text, last.references)

    def _pictures(self, index: int, load: Callable[[dict, str], Any]) -> list[Any]:
        return [load(file, f"turn {index + 1}") for file in self.turns[index].pictures]

    def _asked(self, index: int, load: Callable[[dict, str], Any]) -> Turn:
        say = self.turns[index]
        rows = zip(self._pictures(index, load), say.places, say.pictures, strict=True)
        return Turn("user", say.text, tuple(Reference(picture=p, box=b, label=str(f.get("label") or "")) for p, b, f in rows))

    def _answer(self, index: int, load: Callable[[dict, str], Any], encode: Callable[[Any], Features]) -> Turn:
        say = self.turns[index]
        boxes = tuple(Reference(box=box) for box in say.boxes)

        def unseen(file: dict) -> Unseen:
            return Unseen(lambda: encode(load(file, f"turn {index + 1}")))

        drawn = tuple(unseen(file) for file in say.pictures)
        return Turn("assistant", _without_dead_tags(say.text, len(boxes)), boxes, pictures=drawn)


def _without_dead_tags(text: str, boxes: int) -> str:
    """A reply's text with only those tags that name one of its boxes."""

    def keep(tag: re.Match[str]) -> str:
        return tag[0] if tag[1].lower() == "bbox" and 1 <= int(tag[2]) <= boxes else ""

    return TAG.sub(keep, text)


def parse_transcript(text: Any) -> Transcript:
    """Read the panel's value; what is wrong in it is left out and named in `ignored`. Never raises: a workflow may come from anywhere."""
    if not isinstance(text, str) or not text.strip():
        return Transcript()
    try:
        value = parse_json(text, "the transcript", lenient=True)
    except JSONError:
        value = None
    if not isinstance(value, (dict, list)):
        return Transcript((Say("user", text.strip()[:TEXT]),))
    ignored: list[str] = []
    path = _path(value, ignored)
    says: list[Say] = []
    for row in path:
        say = _say(row, ignored)
        if say is None:
            continue
        if says and says[-1].role == say.role:
            ignored.append(f"a message that was never answered: «{says[-1].text[:30]}»" if say.role == "user" else "an answer to nothing")
            if say.role == "user":
                says.pop()
            else:
                continue
        elif not says and say.role == "assistant":
            ignored.append("an answer to nothing")
            continue
        says.append(say)
    seed, first = (says[-1].seed, says[-1].first) if says else (0, None)
    if says and says[-1].role == "assistant":  # already answered: the same question again, with the answer's own seed
        says.pop()
    if len(ignored) > 4:
        ignored = [*ignored[:4], f"and {len(ignored) - 4} more"]
    return Transcript(tuple(says), seed, tuple(ignored), first)


def _path(value: dict | list, ignored: list[str]) -> list:
    """The turns that count, oldest first."""
    rows = value if isinstance(value, list) else value.get("turns")
    if not isinstance(rows, list):
        ignored.append("the conversation, which holds no list of turns")
        return []
    if len(rows) > TURNS:
        ignored.append(f"all but the last {TURNS} of {len(rows)} turns")
        rows = rows[-TURNS:]
    rows = [row for row in rows if isinstance(row, dict)]
    head = value.get("head") if isinstance(value, dict) else None
    table = {row["id"]: row for row in reversed(rows) if isinstance(row.get("id"), str)}  # of two with one name, the first
    if not isinstance(head, str) or head not in table:
        return rows if not isinstance(value, dict) or "head" not in value else []
    path, met = [], set()
    while isinstance(head, str) and head in table and head not in met:
        met.add(head)
        path.append(table[head])
        head = table[head].get("parent")
    return path[::-1]


def _say(row: dict, ignored: list[str]) -> Say | None:
    role, text = row.get("role"), row.get("text")
    if role not in ("user", "assistant"):
        ignored.append(f"a turn of «{str(role)[:20]}»")
        return None
    text = text if isinstance(text, str) else ""
    if len(text) > TEXT:
        ignored.append(f"what a turn says past {TEXT} characters")
        text = text[:TEXT]
    files: list[dict] = []
    places: list[Box | None] = []
    for file in row["pictures"] if isinstance(row.get("pictures"), list) else ():
        if len(files) == PICTURES or not _is_file(file):
            ignored.append(
                "a picture that names no file of the input, output or temp folder"
                if len(files) < PICTURES
                else f"a turn's pictures past {PICTURES}"
            )
            continue
        files.append(
            {
                "filename": file["filename"],
                "subfolder": file.get("subfolder") or "",
                "type": file["type"],
                "label": file["label"][:LABEL] if isinstance(file.get("label"), str) else "",
            }
        )
        places.append(_box(file.get("box")))
    boxes = [_box(box) for box in (row["boxes"] if isinstance(row.get("boxes"), list) else ())[:BOXES]]
    identity = row["id"] if isinstance(row.get("id"), str) else ""
    if role == "user" and not text.strip() and not files:
        ignored.append("an empty message")
        return None
    seed, first = _seed(row.get("seed")) or 0, _seed(row.get("first"))
    named = tuple(box for box in boxes if box is not None)
    return Say(role, text, identity[:ID], seed, tuple(files), tuple(places), named, None if first == seed else first)


def _seed(value: Any) -> int | None:
    """A whole number of 64 bits, else None. Past 2**53, which JavaScript would round, the browser writes it as the text of its digits."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:  # JSON has one kind of number: 7.0 is 7
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64 else None


def _is_file(file: Any) -> bool:
    """A name inside one of ComfyUI's folders: no absolute path, no way up, no drive."""
    if not isinstance(file, dict) or file.get("type") not in PLACES:
        return False
    name, folder = file.get("filename"), file.get("subfolder")
    folder = "" if folder is None else folder
    if not isinstance(name, str) or not isinstance(folder, str) or not name or len(name) + len(folder) > 500:
        return False
    parts = [*folder.replace("\\", "/").split("/"), name]
    return (
        "/" not in name
        and "\\" not in name
        and not folder.startswith(("/", "\\"))
        and not any(p == ".." or ":" in p or "\0" in p for p in parts)
    )


def _box(value: Any) -> Box | None:
    if not isinstance(value, dict):
        return None
    sides = read_sides(value)
    if sides is None:
        return None
    try:
        return Box(*map(float, sides))
    except ValueError:
        return None
