"""What `wegen mini eval` measures of pictures made from a picture: edits, restorations, styles, second turns, conditions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...chat.conversation import Reference
from ..tasks import sample
from ..world.concepts import COLOURS, NAMES, OFFERED_STYLES
from ..world.scenes import Scene, canonical, mask
from .metrics import DRAWN_STYLES, background_of, crop, iou, offered, psnr

if TYPE_CHECKING:
    from .measure import Bench


def edits(bench: Bench) -> None:
    by, kept, wanted, made = defaultdict(list), [], [], []
    samples = [sample(800_000 + bench.seed * 1000 + i, {"edit": 1}, "heldout") for i in range(12 * bench.size)]
    for one, image in zip(samples, bench.paint([bench.follow(one) for one in samples])):
        before, after = one.shown, one.drawn
        kind, right, outside = edited(bench, before, after, image)
        by[kind].append(right)
        kept.append(psnr(image[outside], bench.truth(after)[outside]))
        wanted.append(torch.cat([bench.truth(before), bench.truth(after)], 1))
        made.append(torch.cat([image, image], 1))
    for kind, values in sorted(by.items()):
        bench.add(f"edit, {kind}: changed part right", values)
    bench.add("edits: changed part right", [v for values in by.values() for v in values])
    bench.add("edits: PSNR of the rest", kept)
    bench.sheet("edits", wanted, torch.stack(made))


def edited(bench: Bench, before: Scene, after: Scene, image: Tensor) -> tuple[str, bool, Tensor]:
    """Kind of an edit, whether its changed part is right, and the mask of what had to stay."""
    gone = [i for i in before.items if i not in after.items]
    new = [i for i in after.items if i not in before.items]
    outside = torch.ones(image.shape[:2], dtype=torch.bool)
    for item in (*gone, *new):
        x, y, w, h = (round(v * image.shape[0]) for v in item.box)
        outside[y : y + h, x : x + w] = False
    if before.background != after.background:
        return "background", background_of(image) == after.background, outside
    truth = bench.truth(after)
    if not new:
        colour = torch.tensor(COLOURS[after.background]) / 255
        return "remove", bool((image - colour)[~outside].abs().mean() < 0.08), outside
    if new[0].tint:
        shown = torch.from_numpy(mask(after, after.items.index(new[0]), bench.art) > 127)
        hue = lambda p: p[shown].mean(0)  # noqa: E731
        far = (hue(image) - hue(truth)).norm()
        return "paint", bool(far < 0.5 * (hue(truth) - hue(bench.truth(before))).norm()), outside
    named = bench.judge.name(crop(image, new[0].box)[None], after.background, offered(new[0]))[0][0]
    return ("replace" if gone and gone[0].box == new[0].box else "move" if gone else "add"), named == new[0].concept, outside


def restorations(bench: Bench) -> None:
    samples = [sample(700_000 + bench.seed * 1000 + i, {"restore": 1}, "heldout") for i in range(8 * bench.size)]
    images = bench.paint([bench.follow(one) for one in samples])
    for one, image in zip(samples, images):
        damaged, truth = one.shown, bench.truth(one.drawn)
        kind = damaged.effect.split(":")[0]
        bench.rows[f"restore, {kind}: PSNR of damaged picture"].append(psnr(bench.truth(damaged), truth))
        bench.rows[f"restore, {kind}: PSNR"].append(psnr(image, truth))
    scenes = [one.drawn for one in samples]
    bench.score("restorations", scenes, images, offered)
    bench.sheets["restorations"][0] = torch.stack([bench.truth(one.shown) for one in samples])


def styles(bench: Bench) -> None:
    scenes, made = [], []
    for n in NAMES:
        after = canonical(n, bench.colour(n), OFFERED_STYLES[bench.rng.integers(len(OFFERED_STYLES))])
        others = [s for s in DRAWN_STYLES if s != after.items[0].style]
        source = others[bench.rng.integers(len(others))]
        shown = replace(after, items=(replace(after.items[0], style=source),))
        scenes.append(after)
        made.append(bench.write(f"<image_1> in {after.items[0].style} style", (Reference(bench.truth(shown)[None]),)))
    images = bench.paint(made)
    both = tuple((n, s) for n in NAMES for s in DRAWN_STYLES)
    seen = [bench.judge.name(crop(i)[None], s.background, both)[0] for i, s in zip(images, scenes)]
    bench.add("style transfer: same thing", [k[0] == s.items[0].concept for k, s in zip(seen, scenes)])
    bench.add("style transfer: right style", [k[1] == s.items[0].style for k, s in zip(seen, scenes)])
    bench.sheet("style transfer", [bench.truth(s) for s in scenes], images)


def conversations(bench: Bench) -> None:
    for task, name in (("refine", "second and third turns"), ("condition", "edges and silhouettes")):
        samples = [sample(600_000 + bench.seed * 1000 + i, {task: 1}, "heldout") for i in range(6 * bench.size)]
        scenes = [one.drawn for one in samples]
        images = bench.paint([bench.follow(one) for one in samples])
        right = [
            bench.judge.name(crop(i, x.box)[None], s.background, offered(x))[0][0] == x.concept
            for i, s in zip(images, scenes)
            for x in s.items
        ]
        bench.add(f"{name}: judge top-1", right)
        bench.add(f"{name}: background", [background_of(i) == s.background for i, s in zip(images, scenes)])
        bench.add(f"{name}: mask IoU", [iou(i, s, bench.art) for i, s in zip(images, scenes)])
        bench.sheet(name, [bench.truth(s) for s in scenes], images)


TABLES = (edits, restorations, styles, conversations)
