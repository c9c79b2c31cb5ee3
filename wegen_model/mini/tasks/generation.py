"""Tasks that draw from words and references: text, pair, boxes, references, subject, refine, rewrite."""

from __future__ import annotations

from ..world.concepts import NAMES, article
from ..world.scenes import CENTRE, Item, Scene, canonical, pair
from . import phrases as say_
from .sampling import (
    PLAIN_SHARE,
    Ref,
    Rng,
    Task,
    Turn,
    anything,
    asked_style,
    colour,
    draws,
    free_boxes,
    is_held_out,
    named_scene,
    pick,
    plain,
    say,
    shown,
    varied,
    words,
)


def _text(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    white = plain(rng, held_out)
    scene = named_scene(rng, 1, held_out, "usual", white, asked_style(rng))
    return draws(say(rng, say_.TEXT_PLAIN if white else say_.TEXT, **words(scene)), scene)


def _pair(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    white = plain(rng, held_out)
    scene = named_scene(rng, 2, held_out, "usual", white, asked_style(rng))
    return draws(say(rng, say_.PAIR_PLAIN if white else say_.PAIR, **words(scene)), scene)


def _boxes(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    white, count = plain(rng, held_out), rng.choice((1, 2))
    scene = named_scene(rng, count, held_out, "boxes", white, asked_style(rng))
    templates = ((say_.BOX, say_.BOXES), (say_.BOX_PLAIN, say_.BOXES_PLAIN))[white][count - 1]
    return draws(say(rng, templates, **words(scene)), scene, tuple(Ref(None, i.box) for i in scene.items))


def _references(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    kind = rng.choices(("boxes", "mixed", "sides"), (0.8, 0.1, 0.1))[0]
    if kind != "boxes":
        return _named_references(rng, held_out, kind)
    white, count = plain(rng, held_out), rng.choices((1, 2, 3), (0.4, 0.4, 0.2))[0]
    templates = ((say_.REFERENCE, say_.REFERENCES, say_.THREE), (say_.REFERENCE_PLAIN, say_.REFERENCES_PLAIN, say_.THREE_PLAIN))
    things = [anything(rng) for _ in range(count)]
    boxes, looks = free_boxes(rng, count), [varied(rng) for _ in things]

    def make() -> Scene:
        if held_out:  # only named things are ever held out on a colour
            things[0] = (rng.choice(NAMES), things[0][1])
        return Scene("white" if white else colour(rng), tuple(Item(*thing, box, **how) for thing, box, how in zip(things, boxes, looks)))

    scene = pick(make, held_out)
    # a named thing is now and then shown whole, as features that were made before their box was known
    whole = [i.concept in NAMES and rng.random() < 0.15 for i in scene.items]
    references = tuple(Ref(shown(rng, i, None if w else i.box), i.box) for i, w in zip(scene.items, whole))
    return draws(say(rng, templates[white][count - 1], on=scene.background), scene, references)


def _named_references(rng: Rng, held_out: bool, kind: str) -> tuple[Turn, ...]:
    """Two named things: one shown and one said, in boxes; or both shown without boxes, side by side."""
    style = asked_style(rng)
    scene = named_scene(rng, 2, held_out, "boxes" if kind == "mixed" else "usual", style=style)
    first, second = scene.items
    if kind == "mixed":
        references: tuple[Ref, ...] = (Ref(shown(rng, first, first.box), first.box), Ref(None, second.box))
        return draws(say(rng, say_.SHOWN_AND_SAID, **words(scene)), scene, references)
    references = tuple(Ref(shown(rng, i), None) for i in scene.items)
    return draws(say(rng, say_.SIDES, on=scene.background), scene, references)


def _subject(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    concept, style = anything(rng)
    look = varied(rng)

    def make() -> Scene:
        return Scene(colour(rng), (Item(rng.choice(NAMES) if held_out else concept, style, CENTRE, **look),))

    scene = pick(make, held_out)
    seen = shown(rng, scene.items[0], not_on=scene.background)
    return draws(say(rng, say_.SUBJECT, on=scene.background), scene, (Ref(seen, None),))


def _refine(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    """A request, and one or two changes to what it gave."""
    changes = rng.choices((1, 2), (0.7, 0.3))[0]
    white = rng.random() < PLAIN_SHARE
    while True:
        first = named_scene(rng, 1, False, "usual", white, asked_style(rng))
        style = first.items[0].style
        turns: tuple[Turn, ...] = draws(say(rng, say_.TEXT_PLAIN if white else say_.TEXT, **words(first)), first)
        now, ok = first, True
        for k in range(changes):
            text, then = change(rng, now, style)
            ok = ok and then != now and (is_held_out(then) is (held_out and k == changes - 1))
            turns, now = turns + draws(text, then), then
        if ok:
            return turns


def change(rng: Rng, scene: Scene, style: str) -> tuple[str, Scene]:
    """A request that changes a picture of one or two things, and what it gives; now and then what was there."""
    a, b = scene.items[0].concept, rng.choice(NAMES)
    kinds = (say_.RECOLOUR, say_.REPLACE, say_.ADD_RIGHT, say_.ADD_LEFT) if len(scene.items) == 1 else (say_.RECOLOUR,)
    kind = rng.choice(kinds)
    if kind is say_.RECOLOUR:
        then = Scene(colour(rng), scene.items)
    elif kind is say_.REPLACE:
        then = canonical(b, scene.background, style)
    else:
        then = scene if a == b else pair(*((a, b) if kind is say_.ADD_RIGHT else (b, a)), scene.background, style)
    return say(rng, kind, a=a, b=b, on=then.background), then


def _rewrite(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    scene = named_scene(rng, 1, held_out, "usual")
    a = scene.items[0].concept
    text = say_.REWRITTEN.format(an_a=article(a), an_on=article(scene.background))
    return draws(rng.choice(say_.REWRITE).format(a=a, an_a=article(a)), scene, reply=text)


DRAWING: dict[str, Task] = {
    "text": _text,
    "pair": _pair,
    "boxes": _boxes,
    "references": _references,
    "subject": _subject,
    "refine": _refine,
    "rewrite": _rewrite,
}
