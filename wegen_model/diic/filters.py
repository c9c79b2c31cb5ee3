"""What makes a frame unfit for training: blur, lines of text laid over it, a watermark, and being a picture that was had before.

Rules without weights, each a number that an option bounds; their limits are in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..chat.conversation import Box
from ..data.optional import need

SIDE = 256  # pixels: blur and watermarks are measured at this size
TEXT_SIDE = 512  # text
STROKE, LETTERS = 45, 6  # of 255: how much a stroke stands out; letters of a line, at least
EDGE = 40  # of a gradient: where an edge is
SHOTS, ALWAYS = 3, 0.85  # a watermark stands in at least so many shots, in so much of them


def _grey(picture: np.ndarray, side: int) -> np.ndarray:
    cv2 = need("cv2")
    h, w = picture.shape[:2]
    scale = side / max(h, w)
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = (max(8, round(w * scale)), max(8, round(h * scale)))
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=shrink)


def blur(picture: np.ndarray) -> float:
    """How soft the picture's hardest edges are: the width (sigma) of the Gaussian that would make a step so, in pixels at SIDE.

    Of the quarter of its tiles with the strongest edges, since a blurred background is no fault; contrast does not matter.
    """
    cv2 = need("cv2")
    h, w = (max(8, round(v * SIDE / max(picture.shape[:2]))) for v in picture.shape[:2])
    fine = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA), (5, 5), 0)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    slope, bend = (_tiles(v) for v in (across**2 + down**2, cv2.Laplacian(grey, cv2.CV_32F) ** 2))
    strong = np.argsort(slope)[-len(slope) // 4 :]
    return float(np.sqrt(slope[strong].sum() / max(2 * bend[strong].sum(), 1e-9)))


def _tiles(values: np.ndarray) -> np.ndarray:
    """(16,) means of the tiles of a 4x4 grid."""
    h, w = (v // 4 for v in values.shape)
    return values[: 4 * h, : 4 * w].reshape(4, h, 4, w).mean((1, 3)).ravel()


def text_lines(picture: np.ndarray) -> list[Box]:
    """Where lines of text stand: at least LETTERS thin strokes' blobs, bright on dark or dark on bright, of like height on one base line."""
    cv2 = need("cv2")
    grey = _grey(picture, TEXT_SIDE)
    h, w = grey.shape
    kernel = np.ones((13, 13), np.uint8)
    found: list[Box] = []
    for shape in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        strokes = (cv2.morphologyEx(grey, shape, kernel) > STROKE).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
        letters = [s for s in stats[1:count].tolist() if 6 <= s[3] <= 0.12 * h and s[2] <= 3 * s[3] and s[4] >= 0.15 * s[2] * s[3]]
        for line in _lines(sorted(letters)):
            left, top = min(s[0] for s in line), min(s[1] for s in line)
            right, foot = max(s[0] + s[2] for s in line), max(s[1] + s[3] for s in line)
            b = Box(left / w, top / h, (right - left) / w, (foot - top) / h)
            if all(abs(b.centre[1] - o.centre[1]) > b.height / 2 for o in found):  # the edge of bright letters is dark
                found.append(b)
    return found


def _lines(letters: list[list[int]]) -> list[list[list[int]]]:
    """Blobs (x, y, width, height, area, from left to right) that stand in a row as letters do."""
    rows: list[list[list[int]]] = []
    for letter in letters:
        x, y, _, high, _ = letter
        for row in rows:
            before = row[-1]
            tall = max(high, before[3])
            beside = -0.5 * tall <= x - before[0] - before[2] <= 1.2 * tall
            if beside and abs(y + high - before[1] - before[3]) <= 0.45 * tall and tall <= 2 * min(high, before[3]):
                row.append(letter)
                break
        else:
            rows.append([letter])

    def level(row: list[list[int]]) -> bool:
        feet, tall = [s[1] + s[3] for s in row], float(np.median([s[3] for s in row]))
        return float(np.std(feet)) <= 0.25 * tall

    return [row for row in rows if len(row) >= LETTERS and level(row)]


def text_share(picture: np.ndarray) -> float:
    """Share of the picture that lines of text cover."""
    return sum(b.width * b.height for b in text_lines(picture))


def fingerprint(picture: np.ndarray) -> int:
    """64 bits: whether each cell of a 9x8 picture is brighter than its right neighbour. Small changes flip few of them."""
    cv2 = need("cv2")
    cells = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(int)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int("".join("1" if b else "0" for b in bits), 2)


class Seen:
    """Fingerprints that were had. Two that differ in up to 3 bits agree in one of four bands of 16, so that few are compared."""

    def __init__(self, bits: int):
        self.bits, self.bands = bits, [dict[int, list[int]]() for _ in range(4)]

    def had(self, fingerprint: int) -> bool:
        """Whether one like it was added."""
        if self.bits < 0:
            return False
        near = (other for band, places in self._bands(fingerprint) for other in places.get(band, ()))
        return any((other ^ fingerprint).bit_count() <= self.bits for other in near)

    def add(self, fingerprints: Iterable[int]) -> None:
        for one in fingerprints:
            for band, places in self._bands(one):
                places.setdefault(band, []).append(one)

    def _bands(self, one: int) -> list[tuple[int, dict[int, list[int]]]]:
        return [((one >> 16 * i) & 0xFFFF, places) for i, places in enumerate(self.bands)]


class Watermark:
    """Edges that stand in the same place over all shots of a film, whatever is filmed."""

    def __init__(self) -> None:
        self.shots, self.sum = 0, np.zeros((0, 0), np.float32)

    def look(self, pictures: Sequence[np.ndarray]) -> None:
        """The frames of one shot."""
        cv2 = need("cv2")
        edges = [cv2.morphologyEx(_grey(p, SIDE), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > EDGE for p in pictures]
        steady = np.mean(edges, axis=0, dtype=np.float32)
        if self.sum.shape != steady.shape:
            self.shots, self.sum = 0, np.zeros(steady.shape, np.float32)
        self.shots, self.sum = self.shots + 1, self.sum + steady

    def found(self) -> Box | None:
        """Where it stands; None without one, or with too few shots to tell. A frame around the picture (letterbox) is none."""
        cv2 = need("cv2")
        if self.shots < SHOTS:
            return None
        always = (self.sum / self.shots >= ALWAYS).astype(np.uint8)
        h, w = always.shape
        count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(always, np.ones((5, 5), np.uint8)), connectivity=8)
        marks = [s for s in stats[1:count].tolist() if s[4] >= 25 and s[2] < 0.6 * w and s[3] < 0.6 * h]
        if not marks:
            return None
        x, y, wide, high, _ = max(marks, key=lambda s: s[4])
        return Box(x / w, y / h, wide / w, high / h)
