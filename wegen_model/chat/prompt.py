"""A conversation becomes token ids with features at their places; a reply becomes text and boxes.

l tokens · n features of a picture

Source: SEED-X's format, which WeGen's public code uses: `[INST] {instruction} [/INST]\\n` and the response, each a segment
tokenised on its own, later turns after a newline, <s> once at the start, </s> once at the end. A picture is <img>, n ids
<img_00000>…, </img>, for input and output alike; a box is <box_start>, x centre, y centre, width, height in 224ths, <box_end>.
Text next to a special token loses the white space on that side and, with sentencepiece, begins with a word mark of its own, as in
transformers 4.30.2, which the public code pins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..features import Features
from .conversation import TAG, Box, Conversation, Reference, Turn
from .tokenizer import Tokenizer


@dataclass
class Prompt:
    """Lists of one length l: `ids`; `read`, `written`: True at the features of input and of output pictures; `trained`: True
    where the language-model loss counts. `features`: the pictures' Features in order of their appearance, read and written."""

    ids: list[int] = field(default_factory=list)
    read: list[bool] = field(default_factory=list)
    written: list[bool] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # where each turn begins
    boxes: list[tuple[int, int]] = field(default_factory=list)  # of users' turns: where each one's ids begin, its number in the turn
    asked: tuple[Box, ...] = ()  # the boxes of the latest user's turn
    regions: list[tuple[Box, ...]] = field(default_factory=list)  # beside `features`: the boxes asked for, where it is written

    def add(self, ids: list[int], trained: bool = False) -> None:
        self.ids += ids
        self.read += [False] * len(ids)
        self.written += [False] * len(ids)
        self.trained += [trained] * len(ids)

    def picture(self, features: Features, t: Tokenizer, written: bool) -> None:
        n = features.tokens.shape[1]
        self.add([t.image_start], trained=written)
        self.ids += [t.image_first + i for i in range(n)]
        self.read += [not written] * n
        self.written += [written] * n
        self.trained += [False] * n
        self.add([t.image_end])
        self.features.append(features)
        self.regions.append(self.asked if written else ())

    def box(self, box: Box, t: Tokenizer, written: bool) -> None:
        if not written:
            self.boxes.append((len(self), len(self.asked)))
            self.asked += (box,)
        self.add(box_ids(box, t), trained=written)

    def __len__(self) -> int:
        return len(self.ids)


def box_ids(box: Box, t: Tokenizer) -> list[int]:
    return [t.box_start, *(t.location(v) for v in box.locations()), t.box_end]


def _segment(prompt: Prompt, pieces: list, t: Tokenizer, written: bool = False) -> None:
    """Append text (str), boxes (Box) and pictures (Features); neighbouring texts are joined first."""
    joined: list = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    for i, piece in enumerate(joined):
        if isinstance(piece, str):
            if i > 0:
                piece = piece.lstrip()
            if i + 1 < len(joined):
                piece = piece.rstrip()
            if piece:
                prompt.add(t.encode(piece), trained=written)
        elif isinstance(piece, Box):
            prompt.box(piece, t, written)
        else:
            prompt.picture(piece, t, written=False)


def body(turn: Turn) -> list:
    """A turn's text with its tags replaced; references that no tag names come first. A box that no tag names follows its picture,
    where the picture stands first."""
    turn.check()
    tags = turn.tags()
    pieces: list = []
    for k, reference in enumerate(turn.references, 1):
        if reference.has_picture and ("image", k) not in tags:
            pieces.append(_features(reference, k))
            if reference.box is not None and ("bbox", k) not in tags:
                pieces.append(reference.box)
        elif not reference.has_picture and ("bbox", k) not in tags:
            pieces.append(reference.box)
    end, placed = 0, {k for kind, k in tags if kind == "bbox"}
    for match in TAG.finditer(turn.text):
        k = int(match[2])
        reference = turn.references[k - 1]
        pieces.append(turn.text[end : match.start()])
        pieces.append(reference.box if match[1] == "bbox" else _features(reference, k))
        if reference.box is not None and k not in placed:
            pieces.append(reference.box)
            placed.add(k)
        end = match.end()
    return [*pieces, turn.text[end:]]


def _features(reference: Reference, k: int) -> Features:
    if reference.features is None:
        raise ValueError(f"image_{k} was not encoded: encode references before building the prompt.")
    return reference.features[:1]


def build(
    conversation: Conversation, tokenizer: Tokenizer, positions: int, reserve: int = 0, end: bool = False, trim_oldest: bool = False
) -> Prompt:
    """Token ids and features of a conversation whose references are encoded.

    Args:
        positions: the model's limit in tokens.
        reserve: tokens that must still fit after the prompt (the reply, the picture).
        end: close with </s> (training); otherwise an answer follows.
        trim_oldest: drop the oldest exchanges until it fits, instead of an error.
    Raises:
        ValueError: past the limit, naming the turns to drop; or ids of another tokenizer.
    """
    check_tokenizer(conversation, tokenizer)
    turns = list(conversation.turns)
    while True:
        prompt = _build(turns, tokenizer, end)
        if len(prompt) + reserve <= positions:
            return prompt
        if trim_oldest and len(turns) > 2:
            turns = turns[2:]
            continue
        need = len(prompt) + reserve - positions
        first = prompt.starts[0]
        drop = next((i for i, s in enumerate(prompt.starts) if i and s - first >= need and turns[i].role == "user"), None)
        if drop is None:
            raise ValueError(
                f"chat: the last message alone needs {len(prompt) + reserve} tokens, the model has {positions}. "
                f"Shorten the text, use fewer pictures (each takes {tokenizer_picture(prompt)} tokens), or lower max_tokens "
                f"({reserve} tokens are reserved for the answer)."
            )
        raise ValueError(
            f"chat: the conversation needs {len(prompt) + reserve} tokens, the model has {positions}. Drop the first "
            f"{drop} turns (up to «{turns[drop - 1].text[:40]}»), or switch trim_oldest on."
        )


def check_tokenizer(conversation: Conversation, tokenizer: Tokenizer) -> None:
    """A conversation's ids mean something only to the tokenizer that made them."""
    if conversation.tokenizer and conversation.tokenizer != tokenizer.hash:
        raise ValueError(
            f"chat: the conversation was held with another model (tokenizer {conversation.tokenizer}, this one "
            f"{tokenizer.hash}). Start a new conversation, or load the model that began it."
        )


def tokenizer_picture(prompt: Prompt) -> int:
    return prompt.features[0].tokens.shape[1] + 2 if prompt.features else 66


def _build(turns: list[Turn], t: Tokenizer, end: bool) -> Prompt:
    prompt = Prompt()
    prompt.add([t.bos])
    for i, turn in enumerate(turns):
        prompt.starts.append(len(prompt))
        if turn.role == "user":
            prompt.asked = ()
            _segment(prompt, [("\n" if i else "") + "[INST] ", *body(turn), " [/INST]\n"], t)
        elif turn.ids is not None:
            _replay(prompt, turn, t)
        else:
            _segment(prompt, body(turn), t, written=True)
            for features in turn.pictures:
                prompt.picture(features, t, written=True)
            if turn.open_image:
                prompt.add([t.image_start], trained=True)
    if end:
        prompt.add([t.eos], trained=True)
    return prompt


def _replay(prompt: Prompt, turn: Turn, t: Tokenizer) -> None:
    """An assistant's turn from its own ids; features stand where it wrote pictures."""
    pictures = iter(turn.pictures)
    rest = list(turn.ids)
    while rest:
        token = rest.pop(0)
        if token == t.image_start and rest and rest[0] == t.image_first:
            features = next(pictures, None)
            if features is None:
                raise ValueError(
                    "chat: an assistant's turn holds a picture whose features are lost. Start a new conversation, or "
                    "pass on the chat output of AR Feature Decode unchanged."
                )
            prompt.picture(features, t, written=True)
            del rest[: features.tokens.shape[1] + 1]
        elif token != t.eos:
            prompt.add([token], trained=True)


def picture_ids(n: int, t: Tokenizer) -> list[int]:
    """The ids that follow <img> when a picture of n features was written."""
    return [*(t.image_first + i for i in range(n)), t.image_end]


def parse(ids: list[int], t: Tokenizer) -> tuple[str, tuple[Reference, ...]]:
    """A reply's text and its boxes; each well-formed box becomes `<bbox_k>` in the text and reference k."""
    text, boxes, run = "", [], []
    i = 0
    while i < len(ids):
        inside = ids[i + 1 : i + 5]
        if (
            ids[i] == t.box_start
            and i + 5 < len(ids)
            and ids[i + 5] == t.box_end
            and all(t.loc_first <= v < t.loc_first + 224 for v in inside)
        ):
            text += t.decode(run)
            run = []
            boxes.append(Reference(box=Box.from_locations(tuple(v - t.loc_first for v in inside))))
            text += f"<bbox_{len(boxes)}>"
            i += 6
        else:
            run.append(ids[i])
            i += 1
    return (text + t.decode(run)).strip(), tuple(boxes)
