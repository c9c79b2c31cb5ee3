"""Tasks that start from one picture: edit, restore, condition, style."""

from __future__ import annotations

from dataclasses import replace

from ..world.concepts import COLOURS, NAMES, OFFERED_STYLES, TRAINED_STYLES
from ..world.scenes import Item, Scene, boxed, canonical, grid_box, grid_boxes
from . import phrases as say_
from .sampling import Ref, Rng, Task, Turn, anything, asked_style, colour, draws, is_held_out, named_scene, pick, say, words

DAMAGES = {"blur": say_.DEBLUR, "noise": say_.DENOISE, "holes": say_.FILL, "grey": say_.COLOURISE, "small": say_.ENLARGE}
CONDITIONS = {"edges": say_.EDGES, "silhouette": say_.SILHOUETTE}


def _edit(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    """One instruction on a picture of one or two things, the first of them named."""
    while True:
        kind = rng.choice(("replace", "remove", "move", "paint", "add", "background"))
        style = asked_style(rng)
        before = _picture(rng, kind, style)
        first, rest = before.items[0], before.items[1:]
        b, box = rng.choice(NAMES), None
        if kind == "replace":
            after, text = replace(before, items=(replace(first, concept=b), *rest)), say_.EXCHANGE
        elif kind == "remove":
            after, text = replace(before, items=rest), say_.REMOVE
        elif kind == "move":
            box = grid_box(rng, round(first.box[2] * 8), [first.box, *(i.box for i in rest)])
            after, text = replace(before, items=(replace(first, box=box or first.box), *rest)), say_.MOVE
        elif kind == "paint":
            hue = rng.choice([c for c in COLOURS if c not in ("white", "black", "gray", "beige", before.background)])
            after, text = replace(before, items=(replace(first, tint=hue), *rest)), say_.PAINT
        elif kind == "add":
            box = grid_box(rng, 4, [i.box for i in before.items])
            after, text = replace(before, items=(*before.items, Item(b, style, box or first.box))), say_.ADD
        else:
            after, text = replace(before, background=colour(rng)), say_.BACKGROUND
        if after == before or (kind in ("move", "add") and box is None) or any(b == i.concept for i in before.items):
            continue
        if is_held_out(before) or is_held_out(after) is not held_out:
            continue
        extra = (Ref(None, box),) if kind in ("move", "add") else ()
        on = after.items[0].tint if kind == "paint" else after.background
        return draws(say(rng, text, a=first.concept, b=b, on=on), after, (Ref(before, None), *extra))


def _picture(rng: Rng, kind: str, style: str) -> Scene:
    """What an instruction of this kind starts from; a second thing may be any drawing."""
    count = 2 if kind == "remove" or rng.random() < 0.35 else 1
    name = rng.choice(NAMES)
    if count == 1:
        if kind in ("move", "add") or rng.random() < 0.3:
            return boxed([name], grid_boxes(rng, (4,)), colour(rng), style)
        return canonical(name, colour(rng), style)
    boxes = grid_boxes(rng, rng.choice(((4, 4), (4, 4), (3, 4), (4, 3))))
    other, vendor = anything(rng)
    return Scene(colour(rng), (Item(name, style, boxes[0]), Item(other, vendor, boxes[1])))


def _restore(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    """A damaged picture and its mending; colours are given back only to things with a name."""
    damage = rng.choice(tuple(DAMAGES))
    named = damage == "grey" or held_out or rng.random() < 0.4

    def make() -> Scene:
        thing, style = (rng.choice(NAMES), asked_style(rng)) if named else anything(rng)
        if rng.random() < 0.6:
            return canonical(thing, colour(rng), style)
        other, vendor = (rng.choice(NAMES), style) if named else anything(rng)
        boxes = grid_boxes(rng, (4, 4))
        return Scene(colour(rng), (Item(thing, style, boxes[0]), Item(other, vendor, boxes[1])))

    scene = pick(make, held_out)
    text = say(rng, DAMAGES[damage], on=scene.background)  # said where it cannot be seen: in grey
    return draws(text, scene, (Ref(replace(scene, effect=f"{damage}:{rng.randrange(1000)}"), None),))


def _condition(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    kind, count = rng.choice(tuple(CONDITIONS)), rng.choices((1, 2), (0.7, 0.3))[0]
    scene = named_scene(rng, count, held_out, "boxes" if rng.random() < 0.6 else "usual", style=asked_style(rng))
    text = say(rng, CONDITIONS[kind][count - 1], **words(scene))
    return draws(text, scene, (Ref(replace(scene, effect=kind), None),))


def _style(rng: Rng, held_out: bool) -> tuple[Turn, ...]:
    """The same things as another vendor draws them."""
    target = rng.choice(OFFERED_STYLES)
    source = rng.choice([s for s in TRAINED_STYLES[:3] if s != target])
    after = named_scene(rng, 1, held_out, "usual" if rng.random() < 0.75 else "boxes", style=target)
    before = replace(after, items=tuple(replace(i, style=source) for i in after.items))
    if not held_out and rng.random() < 0.2:
        before = replace(before, background="white")
    on = {"on": after.background} if before.background != after.background else {}
    text = rng.choice(say_.RESTYLE_ON if on else say_.RESTYLE).format(style=target, **on)
    return draws(text, after, (Ref(before, None),))


CHANGES: dict[str, Task] = {"edit": _edit, "restore": _restore, "condition": _condition, "style": _style}
