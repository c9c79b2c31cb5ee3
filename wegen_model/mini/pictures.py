"""The pictures the miniature trains on: rendered scenes, and free pictures.

`free(seed)` widens the domain beyond the named scenes: any colour or gradient behind, any place and size, mirrored and
hue-shifted drawings, so that tower, VAE and UNet do not know the named scenes alone.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from .tasks import Sample
from .tasks.sampling import Rng, anything
from .world.art import Art
from .world.concepts import article
from .world.scenes import SIZE, Scene, turn_hue


def free(seed: int, art: Art) -> np.ndarray:
    """A picture (128,128,3) of one to three drawings of any kind anywhere; a pure function of the seed."""
    rng = Rng(f"free:{seed}")
    a, b = (np.array([int(255 * v) for v in colorsys.hsv_to_rgb(rng.random(), rng.random() ** 0.7, rng.uniform(0.2, 1))]) for _ in "ab")
    if rng.random() < 0.5:
        b = a
    angle = rng.choice(((1, 0), (0, 1), (0.7, 0.7)))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
    t = (angle[0] * y + angle[1] * x)[..., None] / sum(angle)
    picture = (a * (1 - t) + b * t).astype(np.uint8)
    for _ in range(rng.choice((1, 1, 2, 3))):
        side = rng.randint(36, 112)
        sprite = art.fitted(*anything(rng), side, side)
        if rng.random() < 0.5:
            sprite = sprite[:, ::-1]
        if rng.random() < 0.4:
            sprite = turn_hue(sprite, rng.randrange(256))
        h, w = sprite.shape[:2]
        top, left = rng.randint(-8, SIZE - h + 8), rng.randint(-8, SIZE - w + 8)
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, SIZE), min(left + w, SIZE)
        part = sprite[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
        under = picture[y0:y1, x0:x1].astype(np.uint16) * (255 - part[..., 3:]) // 255
        picture[y0:y1, x0:x1] = np.minimum(part[..., :3] + under, 255)
    return picture


def caption(scene: Scene) -> str:
    """The words of a scene, left to right."""
    things = sorted(scene.items, key=lambda item: (item.box[0] + item.box[2] / 2, item.box[1]))
    return f"{' and '.join(article(item.concept) for item in things)} on {article(scene.background)} background"


def scenes_of(samples: Iterable[Sample]) -> list[Scene]:
    """The scenes that samples show and draw, each once, in the order of their appearance."""
    found: dict[Scene, None] = {}
    for one in samples:
        for turn in one.turns:
            found |= dict.fromkeys(scene for scene in (*(r.scene for r in turn.references), turn.picture) if scene is not None)
    return list(found)


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (b,s,s,3) to float 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255
