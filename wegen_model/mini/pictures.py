"""The pictures the miniature trains on: pools of rendered scenes, made once and kept.

m pictures of (128, 128, 3) uint8

`free(seed)` widens the domain beyond the named scenes: any colour or gradient behind, any place and size, mirrored and
hue-shifted drawings, so that tower, VAE and UNet do not know the named scenes alone.
"""

from __future__ import annotations

import colorsys
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .art import Art
from .concepts import NAMES, article
from .scenes import SIZE, Scene, render
from .tasks import Sample, sample


def free(seed: int, art: Art, style: str = "noto") -> np.ndarray:
    """A picture (128,128,3) of one to three drawings anywhere; a pure function of the seed."""
    rng = random.Random(f"free:{seed}")
    a, b = (np.array([int(255 * v) for v in colorsys.hsv_to_rgb(rng.random(), rng.random() ** 0.7, rng.uniform(0.2, 1))]) for _ in "ab")
    if rng.random() < 0.5:
        b = a
    angle = rng.choice(((1, 0), (0, 1), (0.7, 0.7)))
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
    t = (angle[0] * y + angle[1] * x)[..., None] / sum(angle)
    picture = (a * (1 - t) + b * t).astype(np.uint8)
    for _ in range(rng.choice((1, 1, 2, 3))):
        side = rng.randint(36, 112)
        sprite = art.fitted(rng.choice(NAMES), style, side, side)
        if rng.random() < 0.5:
            sprite = sprite[:, ::-1]
        if rng.random() < 0.4:
            sprite = _hue(sprite, rng.randrange(256))
        h, w = sprite.shape[:2]
        top, left = rng.randint(-8, SIZE - h + 8), rng.randint(-8, SIZE - w + 8)
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, SIZE), min(left + w, SIZE)
        part = sprite[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
        under = picture[y0:y1, x0:x1].astype(np.uint16) * (255 - part[..., 3:]) // 255
        picture[y0:y1, x0:x1] = np.minimum(part[..., :3] + under, 255)
    return picture


def _hue(sprite: np.ndarray, shift: int) -> np.ndarray:
    hsv = np.array(Image.fromarray(np.ascontiguousarray(sprite[..., :3])).convert("HSV"))
    hsv[..., 0] += np.uint8(shift)
    rgb = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return np.concatenate([np.minimum(rgb, sprite[..., 3:]), sprite[..., 3:]], -1)


def caption(scene: Scene) -> str:
    """The words of a scene, left to right."""
    things = sorted(scene.items, key=lambda item: (item.box[0] + item.box[2] / 2, item.box[1]))
    return f"{' and '.join(article(item.concept) for item in things)} on {article(scene.background)} background"


@dataclass
class Pool:
    """Samples and the pictures they show and draw, each picture once."""

    samples: list[Sample]
    index: dict[Scene, int]  # scene -> row of `pictures`
    pictures: np.ndarray  # (m,128,128,3) uint8: the scenes first, then free pictures
    scenes: list[Scene]


def build_pool(art: Art, samples: int, frees: int, cache: Path | None = None, seed: int = 0, split: str = "train", **options) -> Pool:
    """Samples `seed*10^7 …` with their scenes rendered, and free pictures after them; kept in a file beside the art.

    `options`: `mix` and `cells` of `tasks.sample`.
    """
    made = [sample(seed * 10_000_000 + i, split=split, **options) for i in range(samples)]
    index: dict[Scene, int] = {}
    for one in made:
        for turn in one.turns:
            for scene in (*(r.scene for r in turn.references), turn.picture):
                if scene is not None:
                    index.setdefault(scene, len(index))
    scenes = list(index)
    key = cache and Path(cache) / f"pool-{split}-{seed}-{samples}-{frees}-{_digest(scenes, art)}.npy"
    if key and key.is_file():
        return Pool(made, index, np.load(key), scenes)
    pictures = np.empty((len(scenes) + frees, SIZE, SIZE, 3), np.uint8)
    for i, scene in enumerate(scenes):
        pictures[i] = render(scene, art)
    for i in range(frees):
        pictures[len(scenes) + i] = free(seed * 10_000_000 + i, art)
    if key:
        key.parent.mkdir(parents=True, exist_ok=True)
        part = key.with_suffix(".part.npy")
        np.save(part, pictures)
        os.replace(part, key)
    return Pool(made, index, pictures, scenes)


def _digest(scenes: list[Scene], art: Art) -> str:
    import hashlib

    h = hashlib.sha256(repr(scenes).encode())
    for name in NAMES:
        h.update(art.sprite(name).tobytes())
    return h.hexdigest()[:10]
