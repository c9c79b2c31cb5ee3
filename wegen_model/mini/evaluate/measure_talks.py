"""What `wegen mini eval` measures of how people write: capitals and stray spaces, and talks of ten turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...chat.conversation import Conversation
from ..tasks import phrases
from ..tasks.generation import change
from ..tasks.sampling import Rng, named_scene, say, words
from ..world.concepts import DEFAULT_STYLE, NAMES
from ..world.scenes import Scene, canonical
from .metrics import background_of, crop, iou, offered

if TYPE_CHECKING:
    from .measure import Bench

TURNS = 10
FORMS = {"lower case": str.lower, "Title Case": str.title, "UPPER CASE, two spaces": lambda text: text.upper().replace(" ", "  ")}


def cases(bench: Bench) -> None:
    """Every thing once, the same request in each form."""
    scenes = [canonical(name, bench.colour(name)) for name in NAMES]
    for form, write in FORMS.items():
        made = [bench.write(write(f"a {s.items[0].concept} on a {s.background} background")) for s in scenes]
        bench.score(f"text to picture, {form}", scenes, bench.paint(made), offered)


def talks(bench: Bench) -> None:
    """Each instruction obeyed and the rest kept. The talk goes on whatever came out.

    `right`: what is in each place, and the background; `shaped`: and the outline, which a thing painted twice does not pass.
    """
    right: list[list[bool]] = []
    shaped: list[list[bool]] = []
    wanted: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    for i in range(bench.size):
        talk, features = Conversation(), []
        messages = messages_of(Rng(f"talk:{bench.seed}:{i}"))
        for text, _ in messages:
            written, talk = bench.model.draw(bench.model.chat(talk.user(text), picture="always", max_tokens=40))
            features.append(written)
        images = bench.paint(features)
        scenes = [scene for _, scene in messages]
        right.append([wholly_right(bench, scene, image) for scene, image in zip(scenes, images)])
        shaped.append([ok and iou(image, scene, bench.art) > 0.5 for ok, scene, image in zip(right[-1], scenes, images)])
        wanted += [bench.truth(scene) for scene in scenes]
        made.append(images)
    for turn, values in enumerate(zip(*right, strict=True), 1):
        bench.add(f"talks, turn {turn}: wholly right", values)
    bench.add(f"talks, turns 2 to {TURNS}: wholly right", np.array(right)[:, 1:])
    bench.add(f"talks, turns 2 to {TURNS}: wholly right, mask IoU over .5", np.array(shaped)[:, 1:])
    bench.sheet("talks", wanted, torch.cat(made))


def messages_of(rng: Rng) -> list[tuple[str, Scene]]:
    """What is said in a talk of ten turns, and what each must give: one thing changed step by step, a fresh request after two things."""
    out: list[tuple[str, Scene]] = []
    while len(out) < TURNS:
        now = out[-1][1] if out else None
        if now is None or len(now.items) > 1:
            fresh = named_scene(rng, 1, False, "usual")
            out.append((say(rng, phrases.TEXT, **words(fresh)), fresh))
        else:
            text, then = change(rng, now, DEFAULT_STYLE)
            if then != now:
                out.append((text, then))
    return out


def wholly_right(bench: Bench, scene: Scene, image: torch.Tensor) -> bool:
    """Is every thing what was asked for, in its place, on the colour asked for?"""
    named = (bench.judge.name(crop(image, i.box)[None], scene.background, offered(i))[0][0] == i.concept for i in scene.items)
    return background_of(image) == scene.background and all(named)


TABLES = (cases, talks)
