"""What may be done to a scene's picture: damages that restoration mends, the conditions that a picture may be drawn from, and
`laid`: the picture pasted into a box, as one that a user shows is (chat/reference_cutout.py).

A picture is (s,s,3) uint8, the mask of its things (s,s) uint8. Each effect is a pure function of the picture and its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, ImageFilter

from ...chat.conversation import Box
from ...chat.reference_cutout import paste_subject


def apply(effect: str, picture: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """`effect`: "name", "name:seed" or "laid:x y width height". ValueError for an unknown name."""
    name, _, seed = effect.partition(":")
    if name == LAID:
        canvas = paste_subject(torch.from_numpy(picture).float() / 255, Box(*map(float, seed.split())), picture.shape[0])
        return (canvas * 255).round().byte().numpy()
    if name not in EFFECTS:
        raise ValueError(f"no effect {name!r}: the effects are {', '.join(EFFECTS)}")
    return EFFECTS[name](picture, shown, np.random.default_rng(int(seed or 0)))


def _blur(picture, shown, rng):
    return np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3)))


def _noise(picture, shown, rng):
    return (picture + rng.normal(0, 40, picture.shape)).clip(0, 255).astype(np.uint8)


def _holes(picture, shown, rng):
    """Four grey squares of an eighth of the side, anywhere."""
    out, side = picture.copy(), picture.shape[0] // 8
    for y, x in rng.integers(0, picture.shape[0] - side, (4, 2)):
        out[y : y + side, x : x + side] = 128
    return out


def _grey(picture, shown, rng):
    return np.repeat((picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None], 3, -1)


def _small(picture, shown, rng):
    """A quarter of the resolution, with the blocks it gives."""
    s = picture.shape[0]
    return np.array(Image.fromarray(picture).resize((s // 4, s // 4), Image.Resampling.BOX).resize((s, s), Image.Resampling.NEAREST))


def _edges(picture, shown, rng):
    """White lines where the picture changes, on black."""
    light = np.pad(picture.astype(np.int16), ((1, 0), (1, 0), (0, 0)), mode="edge")
    change = np.maximum(np.abs(np.diff(light, axis=0))[:, 1:].max(-1), np.abs(np.diff(light, axis=1))[1:].max(-1))
    return np.repeat(np.where(change > 40, 255, 0).astype(np.uint8)[..., None], 3, -1)


def _silhouette(picture, shown, rng):
    """White where a thing is, on black."""
    return np.repeat(np.where(shown > 127, 255, 0).astype(np.uint8)[..., None], 3, -1)


LAID = "laid"
EFFECTS: Mapping[str, Callable] = {
    "blur": _blur,
    "noise": _noise,
    "holes": _holes,
    "grey": _grey,
    "small": _small,
    "edges": _edges,
    "silhouette": _silhouette,
}
