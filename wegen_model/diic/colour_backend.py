"""Models without weights: things of one colour on a plain ground are captioned, found by colour, followed by template, compared by looks.

For trying the steps on a CPU and for tests; real video needs the models of transformers (hf.py). OpenCV comes with scenedetect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..chat.conversation import Box
from ..data.optional import need
from ..mini.world.concepts import COLOURS, article
from .models import OneByOne

NAMES = tuple(COLOURS)
TABLE = np.array([COLOURS[n] for n in NAMES], np.float32)
LEAST = 0.004  # of the picture


def named(picture: np.ndarray) -> np.ndarray:
    """(h,w): the number of the nearest named colour."""
    flat = picture.reshape(-1, 3).astype(np.float32)
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ TABLE.T + (TABLE**2).sum(1)
    return distance.argmin(1).reshape(picture.shape[:2])


def blobs(mask: np.ndarray) -> list[Box]:
    """Boxes of the connected parts of a mask that are not specks, the largest first."""
    cv2 = need("cv2")
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    h, w = mask.shape
    found = [
        (int(area), Box(x / w, y / h, wide / w, high / h))
        for x, y, wide, high, area in stats[1:count].tolist()
        if area >= LEAST * h * w and wide > 2 and high > 2
    ]
    return [b for _, b in sorted(found, key=lambda f: -f[0])]


def _ground(colours: np.ndarray) -> int:
    """The colour of the border."""
    edge = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    return int(np.bincount(edge).argmax())


class Captioner(OneByOne):
    """`a red shape at the left and a blue shape at the right on a white ground.`"""

    def __init__(self, name: str = ""):
        self.long = name == "long"

    def caption(self, picture: np.ndarray) -> str:
        colours = named(picture)
        ground = _ground(colours)
        things = []
        for c in range(len(NAMES)):
            if c != ground:
                things += [(b.centre[0], NAMES[c], b) for b in blobs(colours == c)]
        said = []
        for _, name, b in sorted(things, key=lambda t: t[0]):
            where = ("at the left", "in the middle", "at the right")[min(int(b.centre[0] * 3), 2)]
            size = f" that covers {round(100 * b.width * b.height)} percent of the view" if self.long else ""
            said.append(f"{article(name)} shape {where}{size}")
        return f"{' and '.join(said) or 'nothing'} on {article(NAMES[ground])} background."


class Detector(OneByOne):
    """Finds what a phrase names by the colour in it."""

    def __init__(self, name: str = ""):
        pass

    def detect(self, picture: np.ndarray, phrases: Sequence[str]) -> list[tuple[int, Box, float]]:
        colours, found = named(picture), []
        for i, phrase in enumerate(phrases):
            wanted = [NAMES.index(w) for w in phrase.lower().split() if w in NAMES]
            if wanted:
                found += [(i, b, 1.0) for b in blobs(np.isin(colours, wanted))]
        return found


class Tracker:
    """The place that differs least from the last look of a thing, at three scales, over the whole frame. (Cross-correlation would
    forgive another colour.)"""

    def __init__(self, name: str = "", least: float = 0.8):
        self.least = least

    def track(self, frames: Sequence[np.ndarray], boxes: Sequence[Box]) -> list[list[Box | None]]:
        cv2 = need("cv2")
        from ..data.readers.files import cut

        out = []
        for box in boxes:
            look = cut(frames[0], box)
            path: list[Box | None] = [box]
            for frame in frames[1:]:
                h, w = frame.shape[:2]
                best: tuple[float, Box | None] = (self.least, None)
                for scale in (0.8, 1.0, 1.25):
                    size = (round(look.shape[1] * scale), round(look.shape[0] * scale))
                    if min(size) < 4 or size[0] > w or size[1] > h:
                        continue
                    off, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(frame, cv2.resize(look, size), cv2.TM_SQDIFF_NORMED))
                    score = 1 - off - 0.05 * (scale != 1.0)  # a small template fits a part as well as the whole
                    if score > best[0]:
                        best = (score, Box(x / w, y / h, size[0] / w, size[1] / h))
                path.append(best[1])
                if best[1] is None:
                    path += [None] * (len(frames) - len(path))
                    break
                look = cut(frame, best[1])
            out.append(path)
        return out


class Embedder:
    """The look of a crop: 8x8 colours and a histogram of named colours, both of length 1."""

    def __init__(self, name: str = ""):
        pass

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for crop in crops:
            small = np.array(Image.fromarray(crop).resize((8, 8), Image.Resampling.BOX)).astype(np.float32).ravel() - 127.5
            colours = np.bincount(named(crop).ravel(), minlength=len(NAMES)).astype(np.float32)
            rows.append(np.concatenate([v / (np.linalg.norm(v) or 1) for v in (small, colours)]) / np.sqrt(2))
        return np.stack(rows)
