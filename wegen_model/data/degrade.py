"""Self-made damage for restoration: six kinds, each with a strength of its own draw.

p a picture (h,w,3) uint8 · r a numpy Generator
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter


def _blur(p, r):
    """Gaussian, 0.5 to 2 % of the shorter side."""
    return np.array(Image.fromarray(p).filter(ImageFilter.GaussianBlur(float(r.uniform(0.005, 0.02)) * min(p.shape[:2]))))


def _noise(p, r):
    """Gaussian, deviation 15 to 60 of 255."""
    return (p + r.normal(0, r.uniform(15, 60), p.shape)).clip(0, 255).astype(np.uint8)


def _masks(p, r):
    """3 to 8 grey rectangles, each 8 to 25 % of a side."""
    out, (h, w) = p.copy(), p.shape[:2]
    for _ in range(r.integers(3, 9)):
        high, wide = (max(1, int(n * r.uniform(0.08, 0.25))) for n in (h, w))
        top, left = r.integers(0, h - high + 1), r.integers(0, w - wide + 1)
        out[top : top + high, left : left + wide] = 128
    return out


def _jpeg(p, r):
    """JPEG of quality 3 to 20."""
    out = io.BytesIO()
    Image.fromarray(p).save(out, "JPEG", quality=int(r.integers(3, 21)))
    return np.array(Image.open(out))


def _small(p, r):
    """A quarter to a tenth of the resolution, brought back to size without smoothing."""
    h, w = p.shape[:2]
    scale = r.uniform(0.1, 0.25)
    small = Image.fromarray(p).resize((max(1, int(w * scale)), max(1, int(h * scale))), Image.Resampling.BOX)
    return np.array(small.resize((w, h), Image.Resampling.NEAREST))


def _grey(p, r):
    return np.repeat(np.array(Image.fromarray(p).convert("L"))[..., None], 3, -1)


DAMAGES: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blur": _blur,
    "noise": _noise,
    "masks": _masks,
    "jpeg": _jpeg,
    "low resolution": _small,
    "greyscale": _grey,
}


def damage(picture: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """One kind, drawn evenly, and the damaged picture, of the same size."""
    kind = tuple(DAMAGES)[rng.integers(len(DAMAGES))]
    return kind, DAMAGES[kind](picture, rng)
