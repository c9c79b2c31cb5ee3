"""A sample as a record of a shard: JSON and the bytes of its pictures, and back."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from .. import images
from ..chat.conversation import Box
from .sample import Picture, Sample, Turn

FORMAT = 1


class Unreadable(ValueError):
    """One sample or shard that cannot be read: skipped, counted and named by whoever reads many."""


def encode(picture: np.ndarray, lossless: bool) -> tuple[str, bytes]:
    """Extension and bytes of a picture (h,w,3) uint8: PNG, or JPEG 95 with colour at full resolution."""
    out = io.BytesIO()
    image = Image.fromarray(picture)
    if lossless:
        image.save(out, "PNG", compress_level=3)
        return "png", out.getvalue()
    image.save(out, "JPEG", quality=95, subsampling=0)
    return "jpg", out.getvalue()


def decode(data: bytes, where: str) -> np.ndarray:
    """(h,w,3) uint8 of a picture's bytes, as images.read gives it; Unreadable names it."""
    try:
        return images.read(data, where)
    except images.PictureError as error:
        raise Unreadable(str(error)) from None


def describe(sample: Sample) -> tuple[dict, list[np.ndarray]]:
    """A sample's JSON, and its pictures, each once."""
    pictures: list[Picture] = []

    def number(picture: Picture | None) -> int | None:
        if picture is None:
            return None
        found = next((i for i, p in enumerate(pictures) if p is picture), None)
        if found is None:
            pictures.append(picture)
            found = len(pictures) - 1
        return found

    turns = [
        {
            "role": t.role,
            "text": t.text,
            "pictures": [number(p) for p in t.pictures],
            "boxes": [None if b is None else [b.x, b.y, b.width, b.height] for b in t.boxes],
            "drawn": number(t.drawn),
        }
        for t in sample.turns
    ]
    made = {"format": FORMAT, "task": sample.task, "source": sample.source, "key": sample.key, "turns": turns}
    return made, [np.asarray(p) for p in pictures]


def rebuild(made: dict, pictures: list[np.ndarray]) -> Sample:
    def at(i: int | None) -> np.ndarray | None:
        return None if i is None else pictures[i]

    turns = tuple(
        Turn(
            t["role"],
            t["text"],
            tuple(at(i) for i in t["pictures"]),
            tuple(None if b is None else Box(*b) for b in t["boxes"]),
            at(t["drawn"]),
        )
        for t in made["turns"]
    )
    return Sample(made["task"], turns, made["key"], made["source"])


def length(sample: Sample, features: int = 64) -> int:
    """About how many tokens the model sees: for buckets, before there is a tokenizer."""
    return sum(
        len(t.text) // 4 + 8 + 6 * sum(b is not None for b in t.boxes) + (features + 2) * sum(p is not None for p in (*t.pictures, t.drawn))
        for t in sample.turns
    )
