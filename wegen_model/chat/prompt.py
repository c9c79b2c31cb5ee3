"""A conversation becomes token ids with slots for its pictures; a reply becomes text and boxes.

l tokens · n features of a picture

    layout(conversation, n) -> PromptLayout: ids, and a Slot for each picture         needs no feature's value
    build(conversation)     -> Prompt: the same with each slot's Features

Source: SEED-X's format, which WeGen's public code uses: `[INST] {instruction} [/INST]\\n` and the response, each a segment
tokenised on its own, later turns after a newline, <s> once at the start, </s> once at the end. A picture is <img>, n ids
<img_00000>…, </img>, for input and output alike; a box is <box_start>, x centre, y centre, width, height in 224ths, <box_end>.
Text next to a special token loses the white space on that side and, with sentencepiece, begins with a word mark of its own, as in
transformers 4.30.2, which the public code pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..box import BOX_IDS, LOCATIONS, Box
from ..config import FeatureConfig
from ..features import Features
from .conversation import TAG, Conversation, Reference, Turn
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Slot:
    """The position of a picture in a prompt, and which of the conversation's pictures it is."""

    start: int  # position of its first feature; <img> is one before
    written: bool  # by the model; otherwise it is only read
    turn: int  # index of its turn in the conversation, those that the prompt leaves out counted
    reference: int | None  # index among the turn's references; None: a picture that the turn drew, …
    drawn: int = 0  # … its `drawn`-th, from 0
    boxes: tuple[Box, ...] = ()  # where it is written: the boxes that the user's turn before it asked for, in the prompt's order


@dataclass
class PromptLayout:
    """Token ids (l), and the positions of pictures and boxes among them. Each picture of `n` features has a slot, in the order of the prompt."""

    n: int
    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)  # (l) where the language-model loss counts
    slots: list[Slot] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # where each turn begins
    boxes: list[tuple[int, int]] = field(default_factory=list)  # of users' turns: where each one's ids begin, its number in the turn
    asked: tuple[Box, ...] = ()  # the boxes of the latest user's turn

    @property
    def read(self) -> list[bool]:
        """(l) True at the features of pictures that are shown to the model."""
        return self._mask(False)

    @property
    def written(self) -> list[bool]:
        """(l) True at the features of pictures that the model wrote."""
        return self._mask(True)

    def _mask(self, written: bool) -> list[bool]:
        out = [False] * len(self.ids)
        for slot in self.slots:
            if slot.written == written:
                out[slot.start : slot.start + self.n] = [True] * self.n
        return out

    def add(self, ids: list[int], trained: bool = False) -> None:
        self.ids += ids
        self.trained += [trained] * len(ids)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Prompt(PromptLayout):
    """A layout whose pictures are known: `features`, each (1,n,c), beside `slots`."""

    features: list[Features] = field(default_factory=list)


def first_kept(turns: Sequence[Turn], memory: int) -> int:
    """Index of the first turn that a prompt carries: `memory` exchanges before the latest message, each from its message on; 0: all."""
    messages = [i for i, turn in enumerate(turns) if turn.role == "user"]
    return messages[-1 - memory] if 0 < memory < len(messages) else 0


def layout(
    conversation: Conversation,
    tokenizer: Tokenizer,
    positions: int,
    n: int,
    reserve: int = 0,
    end: bool = False,
    trim_oldest: bool = False,
    memory: int = 0,
) -> PromptLayout:
    """Token ids and slots of a conversation; its pictures need not be encoded.

    Args:
        positions: the model's limit in tokens. n: features of a picture.
        reserve: tokens that must still fit after the prompt (the reply, the picture).
        end: close with </s> (training); otherwise an answer follows.
        trim_oldest: drop the oldest exchanges until it fits, instead of an error.
        memory: earlier exchanges that the prompt carries (ModelConfig.memory); 0: all.
    Raises:
        ValueError: past the limit, naming the turns to drop; or ids of another tokenizer.
    """
    check_tokenizer(conversation, tokenizer)
    turns = conversation.turns
    first = first_kept(turns, memory)
    while True:
        out = _Writer(tokenizer, n).write(turns, first, end)
        if len(out) + reserve <= positions:
            return out
        if trim_oldest and len(turns) - first > 2:
            first += 2
            continue
        need = len(out) + reserve - positions
        kept = turns[first:]
        drop = next((i for i, s in enumerate(out.starts) if i and s - out.starts[0] >= need and kept[i].role == "user"), None)
        if drop is None:
            raise ValueError(
                f"chat: the last message alone needs {len(out) + reserve} tokens, the model has {positions}. "
                f"Shorten the text, use fewer pictures (each takes {n + 2} tokens), or lower max_tokens "
                f"({reserve} tokens are reserved for the answer)."
            )
        raise ValueError(
            f"chat: the conversation needs {len(out) + reserve} tokens, the model has {positions}. Drop the first "
            f"{first + drop} turns (up to «{kept[drop - 1].text[:40]}»), or switch trim_oldest on."
        )


def build(
    conversation: Conversation,
    tokenizer: Tokenizer,
    positions: int,
    reserve: int = 0,
    end: bool = False,
    trim_oldest: bool = False,
    memory: int = 0,
) -> Prompt:
    """`layout` of a conversation whose references are encoded, with their features.

    Raises:
        ValueError: as `layout`; a reference that was not encoded; pictures of unlike numbers of features.
    """
    kept = conversation.turns[first_kept(conversation.turns, memory) :]
    pictures = [f for turn in kept for f in (*(r.features for r in turn.references), *turn.pictures) if isinstance(f, Features)]
    n = pictures[0].tokens.shape[1] if pictures else FeatureConfig().count
    laid = layout(conversation, tokenizer, positions, n, reserve, end, trim_oldest, memory)
    return attach(laid, [features_at(conversation, slot) for slot in laid.slots])


def features_at(conversation: Conversation, slot: Slot) -> Features:
    """The features (1,n,c) of the picture of a slot of the conversation's prompt."""
    turn = conversation.turns[slot.turn]
    if slot.reference is None:
        return turn.written(slot.drawn)[:1]
    features = turn.references[slot.reference].features
    if features is None:
        raise ValueError(f"image_{slot.reference + 1} was not encoded: encode references before building the prompt.")
    return features[:1]


def attach(laid: PromptLayout, features: Sequence[Features]) -> Prompt:
    """The layout with its slots' features (1,n,c), in the order of the slots."""
    for f in features:
        if f.tokens.shape[1] != laid.n:
            raise ValueError(f"chat: a picture of {f.tokens.shape[1]} features among pictures of {laid.n}: encode them with one model.")
    return Prompt(**vars(laid), features=list(features))


def check_tokenizer(conversation: Conversation, tokenizer: Tokenizer) -> None:
    """Refuse a conversation whose ids another tokenizer made."""
    if conversation.tokenizer and conversation.tokenizer != tokenizer.hash:
        raise ValueError(
            f"chat: the conversation was held with another model (tokenizer {conversation.tokenizer}, this one "
            f"{tokenizer.hash}). Start a new conversation, or load the model that began it."
        )


def body(turn: Turn) -> list[str | Box | int]:
    """A turn's text with its tags replaced: pieces of text, boxes, and for a picture the index of its reference.

    1. References whose picture no tag names come first, each followed by its box if no tag names that either.
    2. A box that no tag names follows the first mention of its picture.

    Example: `a <image_1>` with a box becomes ["a ", 0, box, ""].
    """
    turn.check()
    tags = turn.tags()
    pieces: list[str | Box | int] = []
    for k, reference in enumerate(turn.references, 1):
        if reference.has_picture and ("image", k) not in tags:
            pieces.append(k - 1)
            if reference.box is not None and ("bbox", k) not in tags:
                pieces.append(reference.box)
        elif reference.box is not None and not reference.has_picture and ("bbox", k) not in tags:
            pieces.append(reference.box)
    end, placed = 0, {k for kind, k in tags if kind == "bbox"}
    for match in TAG.finditer(turn.text):
        kind, k = match[1].lower(), int(match[2])
        box = turn.references[k - 1].box
        pieces.append(turn.text[end : match.start()])
        if kind == "image":
            pieces.append(k - 1)
        if box is not None and (kind == "bbox" or k not in placed):
            pieces.append(box)
            placed.add(k)
        end = match.end()
    return [*pieces, turn.text[end:]]


class _Writer:
    """Writes turns one after another into a layout."""

    def __init__(self, tokenizer: Tokenizer, n: int):
        self.t, self.out = tokenizer, PromptLayout(n)

    def write(self, turns: Sequence[Turn], first: int, end: bool) -> PromptLayout:
        """The layout of the turns from `first` on."""
        out, t = self.out, self.t
        out.add([t.bos])
        for index in range(first, len(turns)):
            turn = turns[index]
            out.starts.append(len(out))
            if turn.role == "user":
                pieces = body(turn)
                out.asked = tuple(p for p in pieces if isinstance(p, Box))
                self.segment([("\n" if index > first else "") + "[INST] ", *pieces, " [/INST]\n"], index, user=True)
            elif turn.ids is not None:
                self.replay(turn, index)
            else:
                self.segment(body(turn), index)
                for drawn in range(len(turn.pictures)):
                    self.picture(index, None, drawn)
                if turn.open_image:
                    out.add([t.image_start], trained=True)
        if end:
            out.add([t.eos], trained=True)
        return out

    def segment(self, pieces: list[str | Box | int], index: int, user: bool = False) -> None:
        """Append the pieces of turn `index` (see `body`); neighbouring texts are joined first."""
        joined: list[str | Box | int] = []
        for piece in pieces:
            if isinstance(piece, str) and joined and isinstance(joined[-1], str):
                joined[-1] += piece
            else:
                joined.append(piece)
        number = 0
        for i, piece in enumerate(joined):
            if isinstance(piece, str):
                if i > 0:
                    piece = piece.lstrip()
                if i + 1 < len(joined):
                    piece = piece.rstrip()
                if piece:
                    self.out.add(self.t.encode(piece), trained=not user)
            elif isinstance(piece, Box):
                if user:
                    self.out.boxes.append((len(self.out), number))
                    number += 1
                self.out.add(box_ids(piece, self.t), trained=not user)
            else:
                self.picture(index, piece)

    def replay(self, turn: Turn, index: int) -> None:
        """An assistant's turn from its own ids, with a slot for each picture that it wrote."""
        t, ids = self.t, turn.ids or ()
        at, drawn = 0, 0
        while at < len(ids):
            if ids[at] == t.image_start and at + 1 < len(ids) and ids[at + 1] == t.image_first:
                if drawn == len(turn.pictures):
                    raise ValueError(
                        "chat: an assistant's turn holds a picture whose features are lost. Start a new conversation, or "
                        "pass on the chat output of AR Feature Decode unchanged."
                    )
                self.picture(index, None, drawn)
                drawn += 1
                at += self.out.n + 2
            else:
                if ids[at] != t.eos:
                    self.out.add([ids[at]], trained=True)
                at += 1

    def picture(self, index: int, reference: int | None, drawn: int = 0) -> None:
        """A slot: of reference `reference`, which is read, or of the `drawn`-th picture of the turn, which the model writes."""
        out, t, written = self.out, self.t, reference is None
        out.add([t.image_start], trained=written)
        out.slots.append(Slot(len(out), written, index, reference, drawn, out.asked if written else ()))
        out.add(picture_ids(out.n, t))


def box_ids(box: Box, t: Tokenizer) -> list[int]:
    """The BOX_IDS ids of a box."""
    return [t.box_start, *(t.location(v) for v in box.locations()), t.box_end]


def picture_ids(n: int, t: Tokenizer) -> list[int]:
    """The ids that follow <img> when a picture of n features was written."""
    return [*(t.image_first + i for i in range(n)), t.image_end]


def read_box(ids: Sequence[int], t: Tokenizer) -> Box | None:
    """The box that the first BOX_IDS of `ids` encode; None where they are no well-formed box."""
    if len(ids) < BOX_IDS or ids[0] != t.box_start or ids[BOX_IDS - 1] != t.box_end:
        return None
    x, y, width, height = (v - t.loc_first for v in ids[1 : BOX_IDS - 1])
    return Box.from_locations((x, y, width, height)) if all(0 <= v < LOCATIONS for v in (x, y, width, height)) else None


def parse(ids: list[int], t: Tokenizer) -> tuple[str, tuple[Reference, ...]]:
    """A reply's text and its boxes; each well-formed box becomes `<bbox_k>` in the text and reference k."""
    text, boxes, run = "", [], []
    i = 0
    while i < len(ids):
        box = read_box(ids[i : i + BOX_IDS], t)
        if box is None:
            run.append(ids[i])
            i += 1
        else:
            boxes.append(Reference(box=box))
            text += t.decode(run) + f"<bbox_{len(boxes)}>"
            run = []
            i += BOX_IDS
    return (text + t.decode(run)).strip(), tuple(boxes)
