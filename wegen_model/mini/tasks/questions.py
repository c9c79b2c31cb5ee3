"""Tasks answered in words and boxes: name, caption, colour, count, where."""

from __future__ import annotations

from ..world.concepts import article
from ..world.scenes import Scene
from . import phrases as say_
from .sampling import Ref, Rng, Task, Turn, answers, asked_style, in_reading_order, named_scene

NUMBERS = ("no thing", "one", "two", "three")


def _scene(rng: Rng, held_out: bool, two: float, three: float = 0.0) -> Scene:
    """A picture to ask about: any layout, two or three things with these probabilities."""
    draw = rng.random()
    count = 3 if draw < three else 2 if draw < three + two else 1
    return named_scene(rng, count, held_out, "boxes" if count == 3 or rng.random() < 0.5 else "usual", style=asked_style(rng))


def _things(scene: Scene) -> str:
    return " and ".join(article(word) for word in in_reading_order(scene))


def _ask(rng: Rng, templates: tuple[str, ...], a: str = "") -> str:
    return rng.choice(templates).format(a=a)


def _name(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, held_out, two=0.25)
    return answers(_ask(rng, say_.NAME), scene, f"{_things(scene)}, {scene.items[0].style} style")


def _caption(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, held_out, two=0.4)
    return answers(_ask(rng, say_.CAPTION), scene, f"{_things(scene)} on {article(scene.background)} background")


def _colour(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, held_out, two=0.25)
    return answers(_ask(rng, say_.COLOUR), scene, scene.background)


def _count(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    scene = _scene(rng, held_out, two=0.35, three=0.3)
    return answers(_ask(rng, say_.COUNT), scene, NUMBERS[len(scene.items)])


def _where(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    """Each thing's box, asked one after another. The answer names what it passes, from left to right, until it comes to the thing."""
    scene = _scene(rng, held_out, two=0.7)
    seen = in_reading_order(scene)
    turns: tuple[Turn, ...] = ()
    for k, item in enumerate(rng.sample(scene.items, len(scene.items))):
        reply = ", ".join(seen[: seen.index(item.concept) + 1]) + " <bbox_1>"
        question = _ask(rng, say_.WHERE_TOO if k else say_.WHERE, item.concept)
        turns += (Turn("user", question, () if k else (Ref(scene, None),)), Turn("assistant", reply, (Ref(None, item.box),)))
    return turns


QUESTIONS: dict[str, Task] = {"name": _name, "caption": _caption, "colour": _colour, "count": _count, "where": _where}
