"""The miniature's conversations: `sample(seed)` is one, as plain hashable data; pictures stay Scene values.

    Sample ─ turns ─ Turn(role, text, references, picture)
                                      Ref(scene, box)    a picture shown, a place named, or both

In a text, `<image_k>` and `<bbox_k>` mark where the picture and the box of the turn's k-th reference go (k from 1).
A user's boxes are places in the picture to be made; a picture a user shows stands for the thing in it.
Boxes: (x, y, width, height), fractions 0..1, top-left. All texts are lower-case, and short: every token costs time.

Two splits by (thing, colour). With "train" no held-out combination (concepts.held_out_combination) is in any picture,
drawn or shown; with "heldout" the last picture (drawn, or asked about) holds at least one. The shape of the tasks
follows WeGen's training stages: understanding, text to picture, references with boxes, dialogue, prompt rewriting.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .concepts import COLOURS, DEFAULT_BACKGROUND, NAMES, article, held_out_combination
from .phrases import (
    ADD_LEFT,
    ADD_RIGHT,
    BOX,
    BOX_PLAIN,
    BOXES,
    BOXES_PLAIN,
    CAPTION,
    COLOUR,
    NAME,
    PAIR,
    PAIR_PLAIN,
    RECOLOUR,
    REFERENCE,
    REFERENCE_PLAIN,
    REFERENCES,
    REFERENCES_PLAIN,
    REPLACE,
    REWRITE,
    REWRITTEN,
    SUBJECT,
    TEXT,
    TEXT_PLAIN,
    WHERE,
)
from .scenes import Box, Scene, boxed, canonical, grid_boxes, pair

STYLE = "noto"
SPLITS = ("train", "heldout")
TAG = re.compile(r"<(image|bbox)_([1-9])>")

MIX: Mapping[str, float] = {
    "text": 0.34,  # words -> one thing in the middle
    "pair": 0.10,  # words -> two things side by side
    "boxes": 0.12,  # words with boxes
    "references": 0.16,  # pictures (with boxes) -> those things in one picture
    "subject": 0.06,  # a picture -> the same thing on another colour
    "name": 0.03,  # what is this?
    "caption": 0.03,
    "colour": 0.02,
    "where": 0.02,  # answered with a box
    "refine": 0.08,  # a second request that changes the first picture
    "rewrite": 0.04,  # a short request -> a longer one (the reply), and its picture
}


HARDER: Mapping[str, float] = {  # what is left to learn once single things are drawn well
    **MIX, "text": 0.14, "pair": 0.14, "boxes": 0.28, "references": 0.24, "subject": 0.04, "name": 0.02, "caption": 0.02,
    "refine": 0.07, "rewrite": 0.03,
}


QUESTIONS: Mapping[str, float] = {  # a short last stage: answers in words and boxes; the rest is kept alive
    "where": 0.24, "caption": 0.12, "name": 0.06, "colour": 0.03, "refine": 0.1, "pair": 0.06, "boxes": 0.18, "references": 0.15,
    "text": 0.05, "rewrite": 0.01,
}


@dataclass(frozen=True)
class Ref:
    """What a turn refers to: a picture, a box, or both."""

    scene: Scene | None
    box: Box | None


@dataclass(frozen=True)
class Turn:
    """What one side says; `picture` is what the assistant draws after its text."""

    role: str  # "user" | "assistant"
    text: str
    references: tuple[Ref, ...] = ()
    picture: Scene | None = None


@dataclass(frozen=True)
class Sample:
    """One conversation."""

    task: str
    turns: tuple[Turn, ...]


class _Rng(random.Random):
    """Random draws, and the sizes of boxes (cells a side) that the tasks may use."""

    cells: tuple[int, ...] = (3, 4, 5)


def sample(seed: int, mix: Mapping[str, float] = MIX, split: str = "train", cells: tuple[int, ...] = (3, 4, 5)) -> Sample:
    """The conversation of a seed: a pure function, the same on every machine.

    mix: task -> weight (need not sum to 1); its order does not matter. cells: allowed sides of boxes, 4 among them.
    ValueError for an unknown task or split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    unknown = [task for task in mix if task not in TASKS]
    if unknown:
        raise ValueError(f"no task {unknown[0]!r}: the tasks are {', '.join(TASKS)}")
    rng = _Rng(f"{split}:{seed}")
    rng.cells = cells
    task = rng.choices(list(TASKS), [mix.get(task, 0.0) for task in TASKS])[0]
    return Sample(task, TASKS[task](rng, split == "heldout"))


def expected(sample: Sample) -> Scene | None:
    """The picture the last turn should show; None when it is answered in words."""
    return sample.turns[-1].picture


def corpus(n: int, mix: Mapping[str, float] = MIX) -> Iterator[str]:
    """The texts of the first n training samples, in the pieces between tags: what a tokenizer is trained on."""
    for seed in range(n):
        for turn in sample(seed, mix).turns:
            for piece in TAG.sub("\n", turn.text).split("\n"):
                if piece.strip():
                    yield piece


PLAIN_SHARE = 0.1  # of the requests to draw in "train": no colour named, so white


def _say(rng: random.Random, templates: tuple[str, ...] | str, a: str = "", b: str = "", on: str = "") -> str:
    template = templates if isinstance(templates, str) else rng.choice(templates)
    articles = {f"an_{key}": article(word) for key, word in (("a", a), ("b", b), ("on", on)) if word}
    return template.format(a=a, b=b, on=on, **articles)


# -- what is drawn -------------------------------------------------------------------------------------------


def _held_out(scene: Scene) -> bool:
    return any(held_out_combination(item.concept, scene.background) for item in scene.items)


def _pick(rng: random.Random, make: Callable[[], Scene], held_out: bool) -> Scene:
    """The first scene of this side of the split. About one thing in 12 is held out, so this ends soon."""
    while True:
        scene = make()
        if _held_out(scene) is held_out:
            return scene


def _colour(rng: random.Random) -> str:
    return rng.choice(tuple(COLOURS))


def _scene(rng: random.Random, count: int, held_out: bool, layout: str, plain: bool = False) -> Scene:
    """A scene of 1 or 2 different things. layout: "usual" (canonical or pair) or "boxes"; plain: on white."""

    def make() -> Scene:
        concepts = rng.sample(NAMES, count)
        background = DEFAULT_BACKGROUND if plain else _colour(rng)
        if layout == "boxes":
            return boxed(concepts, grid_boxes(rng, _sizes(rng, count)), background, STYLE)
        return (pair if count == 2 else canonical)(*concepts, background, STYLE)

    return _pick(rng, make, held_out)


def _sizes(rng: _Rng, count: int) -> tuple[int, ...]:
    """Cells a side of each box: mostly 4."""
    table = {(3,): 2, (4,): 6, (5,): 2} if count == 1 else {(4, 4): 10, (3, 4): 3, (4, 3): 3, (3, 3): 2, (3, 5): 1, (5, 3): 1}
    allowed = {sizes: weight for sizes, weight in table.items() if set(sizes) <= set(rng.cells)}
    return rng.choices(list(allowed), list(allowed.values()))[0]


def _shown(rng: random.Random, concept: str, not_on: str | None = None) -> Scene:
    """A reference picture: the thing alone, half the time on white."""

    def make() -> Scene:
        return canonical(concept, DEFAULT_BACKGROUND if rng.random() < 0.5 else _colour(rng), STYLE)

    while True:
        scene = _pick(rng, make, held_out=False)
        if scene.background != not_on:
            return scene


def _question(rng: random.Random, held_out: bool, two: float) -> Scene:
    """A picture to ask about: any layout; two things with probability `two`."""
    count = 2 if rng.random() < two else 1
    return _scene(rng, count, held_out, "boxes" if rng.random() < 0.4 else "usual")


def _names(scene: Scene) -> dict[str, str]:
    """The words of a scene, for _say: things in the order of its items."""
    words = {key: item.concept for key, item in zip("ab", scene.items)}
    return {**words, "on": scene.background}


def _in_reading_order(scene: Scene) -> list[str]:
    """Things from left to right, then from top to bottom."""
    return [i.concept for i in sorted(scene.items, key=lambda i: (i.box[0] + i.box[2] / 2, i.box[1]))]


# -- the tasks: (rng, held_out) -> turns ---------------------------------------------------------------------


def _plain(rng: random.Random, held_out: bool) -> bool:
    return rng.random() < PLAIN_SHARE and not held_out  # white is never held out


def _draws(text: str, scene: Scene, references: tuple[Ref, ...] = (), reply: str = "") -> tuple[Turn, Turn]:
    return Turn("user", text, references), Turn("assistant", reply, (), scene)


def _answers(text: str, scene: Scene, reply: str, boxes: tuple[Box, ...] = ()) -> tuple[Turn, Turn]:
    references = tuple(Ref(None, box) for box in boxes)
    return Turn("user", text, (Ref(scene, None),)), Turn("assistant", reply, references)


def _text(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    plain = _plain(rng, held_out)
    scene = _scene(rng, 1, held_out, "usual", plain)
    return _draws(_say(rng, TEXT_PLAIN if plain else TEXT, **_names(scene)), scene)


def _pair(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    plain = _plain(rng, held_out)
    scene = _scene(rng, 2, held_out, "usual", plain)
    return _draws(_say(rng, PAIR_PLAIN if plain else PAIR, **_names(scene)), scene)


def _boxes(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    plain, count = _plain(rng, held_out), rng.choice((1, 2))
    scene = _scene(rng, count, held_out, "boxes", plain)
    templates = ((BOX, BOXES), (BOX_PLAIN, BOXES_PLAIN))[plain][count - 1]
    return _draws(_say(rng, templates, **_names(scene)), scene, tuple(Ref(None, i.box) for i in scene.items))


def _references(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    plain, count = _plain(rng, held_out), rng.choice((1, 2))
    template = rng.choice(((REFERENCE, REFERENCES), (REFERENCE_PLAIN, REFERENCES_PLAIN))[plain][count - 1])
    with_boxes = "<bbox_1>" in template
    scene = _scene(rng, count, held_out, "boxes" if with_boxes else "usual", plain)
    references = tuple(
        Ref(
            _shown(rng, item.concept) if f"<image_{k}>" in template else None,
            item.box if with_boxes else None,
        )
        for k, item in enumerate(scene.items, 1)
    )
    return _draws(_say(rng, template, **_names(scene)), scene, references)


def _subject(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, 1, held_out, "usual")
    shown = _shown(rng, scene.items[0].concept, not_on=scene.background)
    return _draws(_say(rng, SUBJECT, **_names(scene)), scene, (Ref(shown, None),))


def _name(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _question(rng, held_out, two=0.25)
    return _answers(_say(rng, NAME), scene, " and ".join(article(word) for word in _in_reading_order(scene)))


def _caption(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _question(rng, held_out, two=0.4)
    things = " and ".join(article(word) for word in _in_reading_order(scene))
    return _answers(_say(rng, CAPTION), scene, f"{things} on {article(scene.background)} background")


def _colour_question(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _question(rng, held_out, two=0.25)
    return _answers(_say(rng, COLOUR), scene, scene.background)


def _where(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _question(rng, held_out, two=0.6)
    item = rng.choice(scene.items)
    return _answers(_say(rng, WHERE, a=item.concept), scene, "<bbox_1>", (item.box,))


def _refine(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    plain, change = rng.random() < PLAIN_SHARE, rng.choice((RECOLOUR, REPLACE, ADD_RIGHT, ADD_LEFT))
    plain = plain and (change is RECOLOUR or not held_out)
    while True:
        first = _scene(rng, 1, False, "usual", plain)
        a, b = first.items[0].concept, rng.choice(NAMES)
        if change is RECOLOUR:
            second = canonical(a, _colour(rng), STYLE)
        elif change is REPLACE:
            second = canonical(b, first.background, STYLE)
        else:
            second = pair(*((a, b) if change is ADD_RIGHT else (b, a)), first.background, STYLE)
        if first != second and (change is RECOLOUR or a != b) and _held_out(second) is held_out:
            break
    request = _say(rng, TEXT_PLAIN if plain else TEXT, a=a, on=first.background)
    return _draws(request, first) + _draws(_say(rng, change, a=a, b=b, on=second.background), second)


def _rewrite(rng: random.Random, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, 1, held_out, "usual")
    words = _names(scene)
    return _draws(_say(rng, REWRITE, **words), scene, reply=_say(rng, REWRITTEN, **words))


TASKS: Mapping[str, Callable[[random.Random, bool], tuple[Turn, ...]]] = {
    "text": _text,
    "pair": _pair,
    "boxes": _boxes,
    "references": _references,
    "subject": _subject,
    "name": _name,
    "caption": _caption,
    "colour": _colour_question,
    "where": _where,
    "refine": _refine,
    "rewrite": _rewrite,
}
