"""The pictures the miniature trains on: pools of rendered scenes, made once and kept.

m pictures of (128, 128, 3) uint8

`free(seed)` widens the domain beyond the named scenes: any colour or gradient behind, any place and size, mirrored and
hue-shifted drawings, so that tower, VAE and UNet do not know the named scenes alone.
"""

from __future__ import annotations

import colorsys
import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from ..tasks import MIX, Sample, sample
from ..tasks.sampling import Rng, anything
from .art import Art
from .concepts import NAMES, article
from .scenes import SIZE, Scene, render, turn_hue


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


class Pool:
    """Samples and the scenes they show and draw, each once. Pictures are rendered when asked for, or all at once."""

    def __init__(self, samples: list[Sample], art: Art, frees: int = 0, seed: int = 0, cache: Path | None = None):
        """`frees`: free pictures after the scenes. `cache`: a folder that keeps the rendered table of `pictures`."""
        self.samples, self.art, self.frees, self.seed, self.cache = samples, art, frees, seed, cache
        self.index: dict[Scene, int] = {}  # scene -> row
        for one in samples:
            for turn in one.turns:
                for scene in (*(r.scene for r in turn.references), turn.picture):
                    if scene is not None:
                        self.index.setdefault(scene, len(self.index))
        self.scenes = list(self.index)

    def __len__(self) -> int:
        return len(self.scenes) + self.frees

    def picture(self, row: int) -> np.ndarray:
        """(128,128,3) uint8 of a row: the scenes first, then free pictures."""
        if row < len(self.scenes):
            return render(self.scenes[row], self.art)
        return free(self.seed * 10_000_000 + row - len(self.scenes), self.art)

    @cached_property
    def pictures(self) -> np.ndarray:
        """(m,128,128,3) uint8: every row."""
        key = self.cache and Path(self.cache) / f"pool-{self.seed}-{len(self)}-{self.digest}.npy"
        if key and key.is_file():
            return np.load(key)
        pictures = np.empty((len(self), SIZE, SIZE, 3), np.uint8)
        for row in range(len(self)):
            pictures[row] = self.picture(row)
        if key:
            key.parent.mkdir(parents=True, exist_ok=True)
            part = key.with_suffix(".part.npy")
            np.save(part, pictures)
            os.replace(part, key)
        return pictures

    @cached_property
    def digest(self) -> str:
        """Changes with the scenes, the free pictures and the art."""
        h = hashlib.sha256(repr((self.scenes, self.frees, self.seed)).encode())
        for concept, style in self.art.keys():
            h.update(f"{concept} {style}".encode())
        for name in NAMES:
            h.update(self.art.sprite(name).tobytes())
        return h.hexdigest()[:10]


def build_pool(
    art: Art, samples: int, frees: int = 0, cache: Path | None = None, seed: int = 0, split: str = "train", mix: Mapping[str, float] = MIX
) -> Pool:
    """The samples `seed*10^7 …` of a mix, and free pictures."""
    return Pool([sample(seed * 10_000_000 + i, mix, split) for i in range(samples)], art, frees, seed, cache)
